"""The examples of the Python client run: those of its page, and those of its docstrings."""

from __future__ import annotations

import doctest
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from labelmill import Client, calls, handles, registry_calls
from labelmill import client as client_module
from labelmill_ops.sample import SAMPLE_PATH

pytestmark = [pytest.mark.acceptance]

_PAGE = Path(__file__).parents[2] / "docs" / "python-client.md"


def _examples() -> list[str]:
    """The Python of the page, the notebook as one piece."""
    text = _PAGE.read_text()
    before, _, notebook = text.partition("## A notebook")
    blocks = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [*blocks.findall(before), "\n".join(blocks.findall(notebook))]


@pytest.fixture
def _in_a_stack(stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_DATA_DIR", str(stack))
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE_PATH, "utterances.jsonl")


@pytest.mark.slow
@pytest.mark.usefixtures("_in_a_stack")
def test_the_examples_of_the_client_run(capsys: pytest.CaptureFixture[str]) -> None:
    first, waiting, registry, service, notebook = _examples()
    namespace: dict[str, Any] = {}
    exec(compile(notebook, "notebook.py", "exec"), namespace)
    assert "requests@1" in capsys.readouterr().out
    assert namespace["labelled"].height == len(SAMPLE_PATH.read_text().splitlines())
    namespace["client"].close()

    exec(compile(first, "first.py", "exec"), {})
    assert [line.rpartition(" ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "wake me at six",
        "will it rain today",
    ]
    exec(compile(waiting, "waiting.py", "exec"), {})
    told = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[2] for line in told[-3:]] == ["completed", "completed", "2"]

    exec(compile(registry, "registry.py", "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["requests@1 ['champion']"]
    assert Path("report.html").read_text().startswith("<!DOCTYPE html>")

    _serve(service)
    with Client() as client:
        _run_docstrings(client)


def _serve(source: str) -> None:
    namespace: dict[str, Any] = {"__name__": "service"}
    exec(compile(source, "service.py", "exec"), namespace)
    tickets = [{"id": "t1", "body": "wake me at six"}, {"id": "t2", "body": "will it rain"}]
    with TestClient(namespace["app"]) as http:
        key = {"Idempotency-Key": "a POST that is sent twice"}
        trainings = [http.post("/trainings/served?dataset=requests", headers=key).json()["id"] for _ in range(2)]
        assert trainings[0] == trainings[1]
        taken = http.post("/trainings/other?dataset=requests", headers=key)
        assert (taken.status_code, taken.json()["code"]) == (409, "key_taken")
        batch = http.post("/batches/requests", json=tickets).json()["id"]
        with Client() as client:
            client.wait([*trainings, batch], 120)
        assert http.get(f"/batches/{batch}").json()["rows"]["labelled"] == 2
        lines = http.get(f"/batches/{batch}/labels").text.splitlines()
        assert [json.loads(line)["id"] for line in lines] == ["t1", "t2"]
        assert http.get("/batches/batch_0").status_code == 404
        assert http.get("/batches/batch_0/labels").json()["code"] == "not_found"
        assert http.post("/batches/nothing", json=tickets).json()["code"] == "not_found"


def _run_docstrings(client: Client) -> None:
    batch = client.classify(["wake me at six", "will it rain"], "requests")
    batch.wait()
    known = {"client": client, "batch": batch, "database_url": client.settings.sql_url}
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tests = [
        test
        for module in (client_module, calls, registry_calls, handles)
        for test in finder.find(module, extraglobs=known)
    ]
    examples = [test for test in tests if test.examples]
    assert len(examples) >= 10
    for test in examples:
        runner.run(test)
    assert runner.summarize().failed == 0
