"""Applications of the client are checked, in strict mode, against the built wheel: its types say enough."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from labelmill import AsyncClient, Client
from labelmill.async_client import AsyncBatch, AsyncJob, AsyncTraining
from labelmill.handles import Batch, Job, Training

_ROOT = Path(__file__).parents[1]
_EXAMPLES = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

#: What the page does not show: every kind of source and of result, in both clients.
_APPLICATION = """
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import polars as pl

from labelmill import AsyncClient, Batch, Client, InvalidInput, Job, JobDocument, KeyTaken, ResultRow


def rows() -> Iterator[dict[str, object]]:
    yield {"text": "a", "id": 1}


async def texts() -> AsyncIterator[str]:
    yield "a"


def label_of(row: ResultRow) -> str | None:
    return None if row["error"] else row["predictions"]["intent"]["label"]


def classify(client: Client) -> list[Job[JobDocument]]:
    sources = (Path("texts.jsonl"), ["a", "b"], rows(), pl.DataFrame({"text": ["a"]}))
    jobs: list[Job[JobDocument]] = [client.classify(source, "m") for source in sources]
    jobs.append(client.prepare("d", rows(), targets=["intent=intent"], metadata={"team": "search"}))
    try:
        training = client.train("m", "d", max_cost=0.5, idempotency_key="k")
    except (KeyTaken, InvalidInput) as error:
        print(error.message)
    else:
        estimate = training.status()["estimate"]
        print(estimate["amount"] if estimate else "")
    return jobs


def manage(client: Client) -> str:
    changed = client.promote("m@2")
    notes = [changed["note"], *client.alias("m@2", "next")["warnings"], *client.model("m")["aliases"]]
    client.threshold("m", {"intent": 0.5})
    client.register("old", "ft:classifier:old", multi=["tags"])
    client.archive("m@1", here_only=True)
    for entry in client.watch("batch_1", timeout_s=60):
        print(entry["progress"], notes)
    return client.report("batch_1")


def read(batch: Batch) -> int:
    labels = [label_of(row) for row in batch.results(only="abstained", scores="top:2")]
    frame: pl.DataFrame = batch.polars()
    return len(labels) + frame.height


async def main() -> float | None:
    async with AsyncClient(database_url="sqlite:///jobs.db") as client:
        batch = await client.classify(texts(), model="m", id_column=None)
        async for row in batch.results(follow=True):
            print(label_of(row))
        evaluation = await client.evaluate("m", "d")
        print((await client.rollback("m"))["model"], await batch.report())
        async for entry in batch.watch():
            print(entry["state"])
        await client.wait([batch, evaluation.id], timeout_s=60, on_progress=lambda job: print(job["progress"]))
        metrics = (await evaluation.status())["metrics"] or {}
        print(metrics["intent"].get("per_label", {}))
        return metrics["intent"]["accuracy_answered"]
"""

#: Each line is an error of both checkers.
_WRONG = """
from labelmill import AsyncClient, Client


async def wrong(client: Client, later: AsyncClient) -> None:
    client.classify(7, "m")  # wrong
    client.classify(["a"], "m", treshold=0.5)  # wrong
    client.train("m", "d", max_cost="a lot")  # wrong
    await later.classify(["a"], model=3)  # wrong
    client.classify(["a"], "m").wait()["metrics"]  # wrong
    client.results("batch_1", only="good")  # wrong
    client.threshold("m", {"intent": "high"})  # wrong
    client.report("batch_1").write("report.html")  # wrong
    (await later.archive("m@1"))["archived"]  # wrong
"""


@pytest.fixture(scope="module")
def python_with_the_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter whose packages are this environment's, but Labelmill's is the built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=_ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(
        subprocess.run([str(python), "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    )
    with zipfile.ZipFile(wheel) as files:
        assert "labelmill/py.typed" in files.namelist()
        files.extractall(packages)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def applications(tmp_path: Path) -> list[str]:
    """The examples of the page and an application of its own, as files of this folder."""
    before, _, notebook = (_ROOT / "docs" / "python-client.md").read_text().partition("## A notebook")
    sources = [*_EXAMPLES.findall(before), "\n".join(_EXAMPLES.findall(notebook)), _APPLICATION]
    for number, source in enumerate(sources):
        (tmp_path / f"application_{number}.py").write_text(source)
    (tmp_path / "wrong.py").write_text(_WRONG)
    return [f"application_{number}.py" for number in range(len(sources))]


def _run(*command: str, folder: Path | None = None) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.slow
def test_mypy_accepts_applications_and_finds_what_is_wrong(
    python_with_the_wheel: Path, applications: list[str], tmp_path: Path
) -> None:
    checked = ("-m", "mypy", "--strict", "--python-executable", str(python_with_the_wheel), *applications, "wrong.py")
    lines = _run(sys.executable, *checked, folder=tmp_path).splitlines()
    assert {line.split(": error:")[0] for line in lines if ": error:" in line} == _wrong_lines(), lines


@pytest.mark.slow
def test_pyright_accepts_applications_and_finds_what_is_wrong(
    python_with_the_wheel: Path, applications: list[str], tmp_path: Path
) -> None:
    if "pyright" not in _run(sys.executable, "-m", "pyright", "--version"):
        missing = pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip
        missing("pyright cannot be had: it needs Node and the npm registry")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    checked = ("-m", "pyright", "--outputjson", "--pythonpath", str(python_with_the_wheel), *applications, "wrong.py")
    problems = json.loads(_run(sys.executable, *checked, folder=tmp_path))["generalDiagnostics"]
    found = {f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}" for each in problems}
    assert found == _wrong_lines(), problems


def _wrong_lines() -> set[str]:
    return {f"wrong.py:{number}" for number, line in enumerate(_WRONG.splitlines(), 1) if line.endswith("# wrong")}


@pytest.mark.parametrize("kind", [Client, Job, Training, Batch, AsyncClient, AsyncJob, AsyncTraining, AsyncBatch])
def test_no_public_signature_hides_what_it_takes(kind: type) -> None:
    for name, member in inspect.getmembers(kind, callable):
        if name.startswith("_"):
            continue
        signature = inspect.signature(member)
        for parameter in signature.parameters.values():
            assert parameter.kind is not parameter.VAR_KEYWORD, name
            assert "Any" not in str(parameter.annotation), (name, parameter)
        assert "Any" not in str(signature.return_annotation), name
        assert inspect.getdoc(member), f"{kind.__name__}.{name} has no docstring"
