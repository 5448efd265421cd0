"""The main job as its users run it: `labelmill up --emulator`, then every command as a process of its own."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from local_stack import clean_environment

from labelmill.core.running_stack import running_stack
from labelmill_ops.sample import SAMPLE_PATH

pytestmark = [pytest.mark.acceptance]

_MASSIVE = Path(__file__).parents[3] / "shared" / "data" / "massive_intent_en" / "train.jsonl"


def _run(folder: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "labelmill", "--data-dir", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=clean_environment(),
    )
    assert ended.returncode == code, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout) if ended.stdout.strip() else {}
    return document


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _read_back(path: Path) -> list[tuple[int, str, str, str]]:
    """`(row, id, text, label)` of a results file of any format."""
    if path.suffix == ".jsonl":
        return [(one["row"], one["id"], one["text"], one["predictions"]["intent"]["label"]) for one in _rows(path)]
    if path.suffix == ".csv":
        with path.open(newline="") as lines:
            found: list[dict[str, Any]] = list(csv.DictReader(lines))
    else:
        found = pq.read_table(path).to_pylist()
    return [(int(one["row"]), one["id"], one["text"], one["intent"]) for one in found]


def test_the_sample_is_prepared_trained_evaluated_and_classified(stack: Path, tmp_path: Path) -> None:
    dataset = _run(stack, "prepare", "sample", str(SAMPLE_PATH), "--target", "intent=intent", "--wait")
    assert (dataset["state"], sum(dataset["splits"].values())) == ("ready", len(_rows(SAMPLE_PATH)))

    training = _run(stack, "train", "words", "--dataset", "sample", "--method", "factory", "--wait", code=4)
    assert training["state"] == "awaiting_approval"
    assert training["estimate"]["amount"] > 0
    training = _run(stack, "approve", training["id"], "--wait")
    assert (training["state"], training["model"]) == ("succeeded", "words@1")
    assert training["checkpoints"]

    evaluation = _run(stack, "evaluate", "words", "--dataset", "sample", "--wait")
    assert evaluation["metrics"]["intent"]["accuracy"] >= 0.8

    given = _rows(SAMPLE_PATH)[:700]
    given += [given[5] | {"id": "again"}, given[6]]  # a repeated text, and a repeated row with its id
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in given))
    first = tmp_path / "rows.jsonl"
    batch = _run(stack, "classify", str(source), "--model", "words", "--id", "id", "--wait", "-o", str(first))
    assert batch["rows"] == {
        "submitted": 702,
        "labelled": 702,
        "abstained": 0,
        "failed": 0,
        "cancelled": 0,
        "pending": 0,
    }
    for path in (first, tmp_path / "rows.csv", tmp_path / "rows.parquet"):
        if path is not first:
            _run(stack, "results", batch["id"], "-o", str(path))
        found = _read_back(path)
        expected = [(number, row["id"], row["text"]) for number, row in enumerate(given)]
        assert [one[:3] for one in found] == expected, path.suffix
        right = sum(one[3] == row["intent"] for one, row in zip(found, given, strict=True))
        assert right / len(given) >= 0.8, path.suffix


def test_without_a_method_a_head_is_trained_on_vectors_once_somebody_allows_it(stack: Path) -> None:
    _run(stack, "prepare", "heads", str(SAMPLE_PATH), "--target", "intent=intent", "--seed", "7", "--wait")
    waiting = _run(stack, "train", "heads", "--dataset", "heads", "--wait", code=4)
    assert (waiting["method"], waiting["state"]) == ("embedding", "awaiting_approval")
    assert waiting["estimate"]["amount"] > 0
    training = _run(stack, "approve", waiting["id"], "--wait")
    assert (training["state"], training["model"]) == ("succeeded", "heads@1")
    assert training["cost"]["tokens"] > 0
    evaluation = _run(stack, "evaluate", "heads", "--dataset", "heads", "--wait")
    assert evaluation["metrics"]["intent"]["accuracy"] >= 0.8
    again = _run(stack, "train", "heads", "--dataset", "heads", "--wait")
    assert (again["model"], again["cost"]["amount"]) == ("heads@2", 0.0)


def test_a_prompt_answers_one_text_a_request(stack: Path, tmp_path: Path) -> None:
    _run(stack, "prepare", "prompts", str(SAMPLE_PATH), "--target", "intent=intent", "--wait")
    described = tmp_path / "labels.json"
    described.write_text(json.dumps({"play_music": "start a song"}))
    training = _run(
        stack,
        "train",
        "prompts",
        "--dataset",
        "prompts",
        "--method",
        "prompt",
        "--shots",
        "2",
        "--describe",
        str(described),
        "--wait",
    )
    assert (training["state"], training["estimate"]["amount"]) == ("succeeded", 0.0)
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in _rows(SAMPLE_PATH)[:20]))
    batch = _run(stack, "classify", str(source), "--model", "prompts", "--wait")
    assert (batch["rows"]["labelled"], batch["requests"]) == (20, 20)
    assert batch["tokens"] > 0


def test_flower_answers(stack: Path) -> None:
    running = running_stack(stack)
    assert running is not None
    with urllib.request.urlopen(f"{running['flower_url']}/healthcheck", timeout=20) as answer:
        assert answer.status == 200


def test_bad_rows_and_blank_labels_are_counted_with_their_lines(stack: Path, tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in _rows(SAMPLE_PATH)[:400]]
    lines[4], lines[20] = '{"text": "cut', "[1, 2]"
    source = tmp_path / "broken.jsonl"
    source.write_text("\n".join([*lines, '{"text": "no label", "intent": " "}']) + "\n")
    arguments = ("prepare", "broken", str(source), "--target", "intent=intent", "--wait")
    refused = _run(stack, *arguments, code=1)
    assert "2 bad rows in broken.jsonl, line 5, 21" in refused["error"]
    assert "--on-bad-row skip" in refused["error"]
    done = _run(stack, *arguments, "--on-bad-row", "skip")
    assert done["dropped"] == {"bad_row": 2, "blank_label": 1}
    assert sum(done["splits"].values()) == 398

    lonely = tmp_path / "lonely.jsonl"
    lonely.write_text("\n".join([*lines[30:], '{"text": "alone", "intent": "lonely"}']) + "\n")
    refused = _run(stack, "prepare", "lonely", str(lonely), "--target", "intent=intent", "--wait", code=1)
    assert "'lonely' (1)" in refused["error"]
    assert "--min-per-label 3" in refused["error"]


def test_a_model_that_mistral_does_not_know_fails_the_batch_with_the_reason(stack: Path, tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text('{"text": "hello"}\n')
    batch = _run(stack, "classify", str(source), "--model", "ft:classifier:nobody", "--wait", code=1)
    assert "no such thing" in batch["error"]
    shown = _run(stack, "status", batch["id"], "--json")
    assert shown["error"] == batch["error"]


@pytest.mark.skipif(not _MASSIVE.exists(), reason="the cookbook's rows are not beside this checkout")
def test_the_cookbooks_own_rows_give_its_counts_and_accuracy(stack: Path) -> None:
    dataset = _run(
        stack,
        "prepare",
        "intents",
        str(_MASSIVE),
        "--text",
        "text",
        "--target",
        "intent=label_text",
        "--where",
        "lang=en",
        "--min-per-label",
        "200",
        "--max-per-label",
        "600",
        "--split",
        "80/10/10",
        "--seed",
        "42",
        "--wait",
    )
    assert dataset["splits"] == {"train": 5313, "validation": 664, "test": 665}
    assert len(dataset["labels"]["intent"]["train"]) == 16
    training = _run(stack, "train", "intents", "--dataset", "intents", "--method", "factory", "--yes", "--wait")
    assert training["model"] == "intents@1"
    evaluation = _run(stack, "evaluate", "intents", "--dataset", "intents", "--wait")
    assert evaluation["metrics"]["intent"]["accuracy"] >= 0.85


def test_thresholds_of_a_fine_tuned_multi_label_model_are_tuned_and_used(stack: Path, tmp_path: Path) -> None:
    words = {"food": ("bread", "soup"), "drink": ("tea", "juice"), "toy": ("ball", "doll")}
    rows = []
    for number in range(480):
        labels = [label for at, label in enumerate(words) if number % 7 >> at & 1] or ["toy"]
        text = " and ".join(words[label][number % 2] for label in labels)
        rows.append({"text": f"{text} {number}", "labels": {"goods": labels}})
    source = tmp_path / "goods.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared = _run(stack, "prepare", "goods", str(source), "--format", "factory", "--split", "50/25/25", "--wait")
    assert prepared["splits"]["validation"] == 120
    trained = _run(stack, "train", "goods", "--dataset", "goods", "--method", "factory", "--yes", "--wait")
    assert trained["model"] == "goods@1"
    thresholds = _run(stack, "models", "show", "goods", "--json")["thresholds"]["goods"]
    assert set(thresholds) == set(words)
    assert any(threshold != 0.5 for threshold in thresholds.values())
    output = tmp_path / "answers.jsonl"
    _run(stack, "classify", str(source), "--model", "goods", "--wait", "-o", str(output))
    for row in _rows(output):
        answer = row["predictions"]["goods"]
        assert sorted(answer["labels"]) == sorted(
            label for label, score in answer["scores"].items() if score >= thresholds[label]
        )


def test_the_python_of_the_readme_runs(stack: Path) -> None:
    root = Path(__file__).parents[2]
    blocks = re.findall(r"^```python\n(.*?)^```", (root / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=clean_environment() | {"LABELMILL_DATA_DIR": str(stack)},
    )
    assert ended.returncode == 0, ended.stderr
    assert "tickets@1" in ended.stdout
    assert "'accuracy'" in ended.stdout
