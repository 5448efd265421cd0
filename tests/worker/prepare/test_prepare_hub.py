"""Rows from the Hugging Face hub, with the real `datasets` library and a stand-in for the hub over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stand_in_hub import StandInHub

from labelmill.contracts.errors import InvalidInput
from labelmill_worker.prepare.hub import check_card, hub_rows

_READ = """
import json, sys
from labelmill.contracts.errors import LabelmillError
from labelmill_worker.prepare.hub import hub_rows
for line in sys.stdin:
    reference, columns = json.loads(line)
    try:
        found = {"rows": [row.values for row in hub_rows(reference, columns)]}
    except LabelmillError as error:
        found = {"error": error.code, "said": error.message, "after": getattr(error, "retry_after_s", None)}
    except Exception as error:
        found = {"error": "unforeseen " + type(error).__name__, "said": str(error)}
    print(json.dumps(found), flush=True)
"""

ROWS = [{"text": "hi", "label": "a", "noise": 1}, {"text": "bye", "label": "b", "noise": 2}]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TEST = b'{"text": "of the test", "label": "a", "noise": 3}\n'
SECRET = b'{"text": "secret", "label": "a", "noise": 0}\n'
CLASSES = """
dataset_info:
  features:
  - {name: text, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': a, '1': b}}}}
"""


def card(configs: str, rest: str = "") -> bytes:
    return f"---\nconfigs:\n{configs}{rest}\n---\n# A dataset\n".encode()


def one(path: str, **more: str) -> bytes:
    """A card whose one configuration names one file."""
    rest = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in more.items())
    return card(f"- config_name: default\n  data_files: {json.dumps(path)}\n{rest}")


HONEST: dict[str, dict[str, bytes]] = {
    "a/no-card": {"train.jsonl": JSONL, "test.jsonl": TEST},
    "a/glob": {"README.md": one("data/*.jsonl"), "data/x.jsonl": JSONL, "other/y.jsonl": SECRET},
    "a/splits": {
        "README.md": card(
            "- config_name: default\n  data_files:\n  - {split: test, path: t/*}\n"
            "  - {split: train, path: [one.jsonl]}\n"
        ),
        "one.jsonl": JSONL,
        "t/two.jsonl": TEST,
    },
    "a/configs": {
        "README.md": card("- {config_name: en, data_dir: en, default: true}\n- {config_name: de, data_dir: de}\n"),
        "en/train.jsonl": SECRET,
        "de/train.jsonl": JSONL,
    },
    "a/csv": {"train.csv": b"text,label,noise\nhi,a,1\nbye,b,2\n"},
    "a/classes": {
        "README.md": card("- {config_name: default, data_files: x.jsonl}\n", CLASSES),
        "x.jsonl": b'{"text": "hi", "label": 0}\n{"text": "none", "label": -1}\n{"text": "bye", "label": 1}\n',
    },
}


def hostile(secret: str, elsewhere: str) -> dict[str, bytes]:
    """Cards that name what is not theirs; each is the README of a dataset with an honest file beside it."""
    named = {
        "absolute": secret,
        "absolute-glob": f"{Path(secret).parent}/*",
        "file": f"file://{secret}",
        "http": f"{elsewhere}/secret.jsonl",
        "up": "../secret.jsonl",
        "up-within": "data/../../../b/other@main/x.jsonl",
        "other": "hf://datasets/b/other/x.jsonl",
        "revision": "hf://datasets/h/revision@main/x.jsonl",
        "chained": f"zip://*.jsonl::{elsewhere}/x.zip",
        "local": f"local://{secret}",
        "home": "~/secret.jsonl",
        "environ": "/proc/self/environ",
        "bucket": "s3://bucket/x.jsonl",
        "python": "memory://x.jsonl",
    }
    found = {f"h/{name}": one(path) for name, path in named.items()}
    found["h/data-dir"] = card(f"- {{config_name: default, data_dir: {Path(secret).parent}}}\n")
    found["h/data-dir-up"] = card("- {config_name: default, data_dir: ../../b/other@main}\n")
    found["h/second-config"] = card(
        f"- {{config_name: default, data_files: x.jsonl}}\n- {{config_name: bad, data_files: {secret}}}\n"
    )
    found["h/in-a-list"] = card(f"- config_name: default\n  data_files:\n  - x.jsonl\n  - {secret}\n")
    found["h/in-a-split"] = card(
        f"- config_name: default\n  data_files:\n  - {{split: train, path: [x.jsonl, '{elsewhere}/x.jsonl']}}\n"
    )
    return found


STATUSES = {
    429: "remote_unavailable",
    500: "remote_unavailable",
    503: "remote_unavailable",
    401: "invalid_input",
    403: "invalid_input",
    404: "invalid_input",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each dataset: read one after the other by one process, for the library takes seconds to import."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "secret.jsonl").write_bytes(SECRET)
    with StandInHub({}) as elsewhere:
        cards = hostile(str(folder / "secret.jsonl"), elsewhere.url)
        datasets = HONEST | {name: {"README.md": text, "x.jsonl": JSONL} for name, text in cards.items()}
        datasets["b/other"] = {"x.jsonl": SECRET}
        datasets["h/yaml"] = {".huggingface.yaml": b"configs: []\n", "x.jsonl": JSONL}
        datasets["a/images"] = {"train/a/x.png": b"\x89PNG"}
        datasets["a/broken-card"] = {"README.md": b"---\nconfigs: [\n---\n", "x.jsonl": JSONL}
        datasets["a/empty"] = {"README.md": b"# nothing\n"}
        asked = [(name, ["text", "label"]) for name in datasets]
        asked += [("a/configs/de", ["text", "label"]), ("a/configs/fr", ["text"]), ("a/csv", ["nothing"])]
        asked += [(f"x/status-{status}", ["text"]) for status in STATUSES] + [("x/nothing", ["text"])]
        environment = {
            "HF_HOME": str(folder / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "NO_PROXY": "*",
        }
        with StandInHub(datasets) as hub:
            done = subprocess.run(
                [sys.executable, "-c", _READ],
                input="".join(json.dumps(one) + "\n" for one in asked),
                text=True,
                capture_output=True,
                timeout=240,
                cwd=folder,
                env=environment | {"HF_ENDPOINT": hub.url},
                check=False,
            )
    lines = done.stdout.splitlines()
    assert len(lines) == len(asked), done.stderr[-3000:]
    results = {f"{name} {columns[0]}": json.loads(line) for (name, columns), line in zip(asked, lines, strict=True)}
    return results | {"elsewhere": elsewhere.asked, "hostile": list(cards)}


@pytest.mark.parametrize("name", ["a/no-card", "a/glob", "a/splits", "a/configs/de", "a/csv"])
def test_a_datasets_own_files_are_read_from_its_train_split(found: dict[str, Any], name: str) -> None:
    rows = found[f"{name} text"]["rows"]
    assert [(row["text"], row["label"]) for row in rows] == [("hi", "a"), ("bye", "b")]


def test_class_numbers_become_their_names(found: dict[str, Any]) -> None:
    rows = [{"text": "hi", "label": "a"}, {"text": "none", "label": None}, {"text": "bye", "label": "b"}]
    assert found["a/classes text"] == {"rows": rows}


def test_a_card_that_names_what_is_not_its_own_is_refused_before_anything_is_opened(found: dict[str, Any]) -> None:
    for name in found["hostile"]:
        result = found[f"{name} text"]
        assert (result["error"], "not one of its own files" in result["said"]) == ("invalid_input", True), (
            name,
            result,
        )
    assert found["elsewhere"] == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("h/yaml text", "names its files in .huggingface.yaml, which is not read"),
        ("a/images text", "of the format imagefolder"),
        ("a/broken-card text", "hf:a/broken-card cannot be read"),
        ("a/empty text", "hf:a/empty cannot be read"),
        ("a/configs/fr text", "BuilderConfig 'fr' not found"),
        ("a/csv nothing", "hf:a/csv has no column 'nothing'; it has 'text', 'label', 'noise'"),
        ("x/nothing text", "has no dataset x/nothing, or it is not public"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_one_sentence(found: dict[str, Any], name: str, sentence: str) -> None:
    assert (found[name]["error"], sentence in found[name]["said"]) == ("invalid_input", True), found[name]


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_a_hub_that_answers_with_a_fault_is_named_and_asked_again_if_that_may_help(
    found: dict[str, Any], status: int, kind: str
) -> None:
    result = found[f"x/status-{status} text"]
    assert (result["error"], "the Hugging Face hub" in result["said"]) == (kind, True), result
    if kind == "remote_unavailable":
        assert f"status {status}" in result["said"]
        assert result["after"] == (7.0 if status == 429 else None)


def test_a_hub_that_is_away_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _READ],
        input='["a/b", ["text"]]\n',
        text=True,
        capture_output=True,
        timeout=120,
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path)},
        check=True,
    )
    result = json.loads(done.stdout)
    assert (result["error"], "cannot be reached to read a/b" in result["said"]) == ("remote_unavailable", True), result


@pytest.mark.parametrize(
    "configs",
    [
        [{"data_files": {"train": ["x", {"path": "/etc/passwd"}]}}],
        [{"data_files": "a/../../b"}],
        [{"data_files": "C:\\x"}],
        [{"data_files": "a\\..\\b"}],
        [{"data_dir": "/"}],
        {"data_files": "http://x"},
        [{"data_files": "x::y"}],
        [{"data_files": [["//host/share"]]}],
    ],
)
def test_wherever_a_card_names_a_file_it_is_looked_at(configs: Any) -> None:
    with pytest.raises(InvalidInput, match="not one of its own files"):
        check_card("a/b", {"configs": configs})


@pytest.mark.parametrize("configs", [None, [], "x", [None], [{"data_files": ["a/b.csv", "**/*.x", "a..b", ".x"]}]])
def test_names_within_a_dataset_are_taken(configs: Any) -> None:
    check_card("a/b", {"configs": configs})


@pytest.mark.parametrize(
    "reference",
    [
        "../etc",
        "../../etc/passwd",
        "/etc/passwd",
        "etc/../passwd",
        "file:///etc/passwd",
        "https://host/name",
        "json",
        "./data",
        "owner/..",
        "~/x",
        "owner/name/../../x",
        "owner/name//x",
        "owner\\name",
        "s3://a/b",
        " a/b",
        "a/b ",
    ],
)
def test_a_hub_reference_is_never_a_path_or_a_url(reference: str) -> None:
    with pytest.raises(InvalidInput, match="no dataset of the hub"):
        list(hub_rows(reference, ["text"]))


def test_a_folder_that_is_called_like_a_dataset_is_not_opened() -> None:
    folder = Path("owner/repo")  # in the folder where the worker was started
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"text": "secret", "label": "a"}\n')
    with pytest.raises(InvalidInput, match="a folder on the worker's machine"):
        list(hub_rows("owner/repo/en", ["text"]))
