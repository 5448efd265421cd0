"""What of a dataset is repeated, leaks between splits, or nearly does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from labelmill_worker.evaluate.leakage import seen_in
from labelmill_worker.prepare import likeness
from labelmill_worker.prepare.likeness import compare_splits, min_hashes


def write(folder: Path, **splits: list[tuple[str, str]]) -> tuple[dict[str, Path], dict[str, int]]:
    files = {}
    for split, rows in splits.items():
        files[split] = folder / f"{split}.jsonl"
        lines = [json.dumps({"text": text, "labels": {"intent": label}}) + "\n" for text, label in rows]
        files[split].write_text("".join(lines))
    return files, {split: len(rows) for split, rows in splits.items()}


WORDS = [
    "please",
    "turn",
    "off",
    "the",
    "light",
    "in",
    "kitchen",
    "play",
    "music",
    "loud",
    "weather",
    "tomorrow",
    "bring",
    "coffee",
    "wake",
    "me",
    "early",
    "cancel",
    "meeting",
    "send",
    "mail",
    "boss",
    "long",
    "train",
]


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    return [(" ".join(rng.choice(WORDS, 12)), "a") for _ in range(count)]


def test_repeated_leaked_and_nearly_equal_rows_are_found(tmp_path: Path) -> None:
    train, test = sentences(300, 1), sentences(40, 2)
    train[10] = (f"  {train[3][0].upper()}!! ", "a")  # the same, within train
    test[5] = (train[7][0] + ".", "b")  # the same as one of train, with another label
    test[6] = (train[20][0] + " now", "a")  # nearly
    files, rows = write(tmp_path, train=train, test=test)
    found = compare_splits(files, rows)
    assert found["checked"] == {"train": 300, "test": 40}
    assert found["repeated"] == {"train": 1, "test": 0}
    assert found["leaked"] == {"test in train": 1}
    assert found["conflicting"] == 1
    assert found["near"] == {
        "at_least": 0.7,
        "piece_bytes": 3,
        "checked": {"train": 300, "test": 40},
        "rows": 2,
        "leaked": {"test in train": 1},
    }
    first, second = found["pairs"][:2]
    assert [(one["split"], one["row"]) for one in first["rows"]] == [("train", 7), ("test", 5)]
    assert first["rows"][1]["labels"] == {"intent": "b"}
    assert [(one["split"], one["row"]) for one in second["rows"]] == [("train", 20), ("test", 6)]
    assert 0.8 <= second["likeness"] < 1


def test_nearly_equal_texts_are_hardly_ever_missed() -> None:
    rng = np.random.default_rng(0)
    one = [" ".join(rng.choice(WORDS, 15)) for _ in range(200)]
    other = [text + " now" for text in one]
    signatures = min_hashes([text.encode() for text in one + other])
    pairs = set(likeness._candidates(signatures))
    assert sum((at, at + 200) in pairs for at in range(200)) >= 195


@pytest.mark.parametrize("length", [20, 36, 80])
def test_a_changed_letter_is_found_in_short_texts_too(tmp_path: Path, length: int) -> None:
    rng = np.random.default_rng(length)
    letters = list("abcdefghijklmnopqrstuvwxyz ")
    texts = {"".join(rng.choice(letters, length)).replace("  ", "ab").strip() for _ in range(200)}
    train = sorted(text for text in texts if len(text) > length - 2)
    test = []
    for text in train:
        at = int(rng.integers(1, len(text) - 1))
        test.append(text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :])
    files, rows = write(tmp_path, train=[(text, "a") for text in train], test=[(text, "a") for text in test])
    found = compare_splits(files, rows)["near"]["leaked"]["test in train"]
    assert found >= binom.ppf(0.001, len(train), 0.95)


def test_other_texts_of_the_same_words_are_not_called_nearly_the_same(tmp_path: Path) -> None:
    files, rows = write(tmp_path, train=sentences(400, 1), test=sentences(400, 2))
    assert compare_splits(files, rows)["near"]["rows"] <= 4


def test_one_text_of_many_like_it_is_still_found_in_another_split(tmp_path: Path) -> None:
    asked = "please remind me to call the plumber and the electrician about the broken sink, and bring bread, number"
    train = [(f"{asked} {number:04}", "a") for number in range(300)]
    files, rows = write(tmp_path, train=train, test=[(f"{asked} 9876", "a")])
    assert compare_splits(files, rows)["near"]["leaked"] == {"test in train": 1}


def test_a_signature_is_of_its_text_alone_however_many_are_hashed() -> None:
    texts = [b"", b"hi", "käse".encode(), *(text.encode() for text, _ in sentences(50, 3))]
    together = min_hashes(texts)
    assert all((min_hashes([text]) == together[at]).all() for at, text in enumerate(texts))


def test_work_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "EXACT_ROWS", 100)
    monkeypatch.setattr(likeness, "NEAR_ROWS", {"train": 20})
    files, rows = write(tmp_path, train=[("the very same text", "a")] * 500)
    found: dict[str, Any] = compare_splits(files, rows)
    assert (found["checked"], found["near"]["checked"]) == ({"train": 100}, {"train": 20})


def test_an_empty_split_and_strange_texts_are_no_trouble(tmp_path: Path) -> None:
    files, rows = write(tmp_path, train=[("!!!", "a"), ("???", "b"), ("", "a")], test=[])
    assert compare_splits(files, rows)["leaked"] == {"test in train": 0}
    files, rows = write(tmp_path, train=[], test=[])
    assert compare_splits(files, rows)["pairs"] == []


def test_rows_that_stand_in_train_were_seen(tmp_path: Path) -> None:
    files, _ = write(tmp_path, train=[("Play music", "a")], test=[("play  MUSIC!", "a"), ("play it", "a")])
    assert seen_in(files["train"], files["test"]).tolist() == [True, False]
