"""Preparing a dataset from files, without a database."""

from __future__ import annotations

import csv
import errno
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.specs import PrepareSpec, TargetSpec
from labelmill_worker.prepare import dataset
from labelmill_worker.prepare.dataset import PreparedDataset, prepare_dataset

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
INTENT = (TargetSpec(name="intent", column="label"),)


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def prepare(tmp_path: Path, *files: Path, into: str = "out", **options: Any) -> PreparedDataset:
    options = {"name": "x", "source": "x", "targets": INTENT} | options
    return prepare_dataset(PrepareSpec(**options), files, tmp_path / into, on_progress=lambda _: None)


def lines(prepared: PreparedDataset, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in prepared.files[split].read_text().splitlines()]


def everything(prepared: PreparedDataset) -> list[dict[str, Any]]:
    return [row for split in prepared.files for row in lines(prepared, split)]


def labelled(**counts: int) -> list[Any]:
    return [{"text": f"{label} {n}", "label": label} for label, count in counts.items() for n in range(count)]


def test_rows_are_split_with_each_labels_share_and_none_is_lost(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", labelled(play=100, stop=50)))
    assert prepared.splits == {"train": 120, "validation": 15, "test": 15}
    assert prepared.labels["intent"]["train"] == {"play": 80, "stop": 40}
    assert sorted(row["text"] for row in everything(prepared)) == sorted(
        row["text"] for row in labelled(play=100, stop=50)
    )
    assert lines(prepared, "test")[0].keys() == {"text", "labels"}
    assert prepared.label_schema == [{"name": "intent", "labels": ["play", "stop"], "multi": False}]


def test_the_same_rows_and_options_give_the_same_bytes_and_fingerprint(tmp_path: Path) -> None:
    one, two = (jsonl(tmp_path / name, labelled(play=40, stop=30)) for name in ("a.jsonl", "b.jsonl"))
    first = prepare(tmp_path, one, into="one")
    again = prepare(tmp_path, two, into="two", name="other", source="elsewhere")
    other_seed = prepare(tmp_path, one, into="three", seed=7)
    assert first.fingerprint == again.fingerprint != other_seed.fingerprint
    assert [first.files[s].read_bytes() for s in first.files] == [again.files[s].read_bytes() for s in again.files]


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ((100, 0, 0), {"train": 70}),
        ((80, 20, 0), {"train": 56, "validation": 14}),
        ((50, 0, 50), {"train": 35, "test": 35}),
    ],
)
def test_a_part_of_a_split_may_be_nothing(
    tmp_path: Path, split: tuple[float, float, float], sizes: dict[str, int]
) -> None:
    prepared = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", labelled(play=40, stop=30)), split=split)
    assert prepared.splits == sizes
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(f"{split}.jsonl" for split in sizes)


def test_each_dropped_row_is_counted_under_its_reason(tmp_path: Path) -> None:
    rows = [
        *labelled(play=20, stop=10, rare=2),
        {"text": " ", "label": "play"},
        {"text": "x", "label": ""},
        {"text": "y"},
        {"text": "play 0", "label": "play"},
    ]
    rows = [row | {"lang": "en"} for row in rows] + [{"text": "nein", "label": "play", "lang": "de"}]
    prepared = prepare(
        tmp_path,
        jsonl(tmp_path / "a.jsonl", rows),
        where=(("lang", "en"),),
        min_per_label=5,
        max_per_label=15,
        dedupe=True,
    )
    assert prepared.dropped == {
        "above_max_per_label": 5,
        "below_min_per_label": 2,
        "blank_label": 2,
        "blank_text": 1,
        "duplicate_text": 1,
        "not_where": 1,
    }
    assert sum(prepared.splits.values()) + sum(prepared.dropped.values()) == len(rows)


def test_bad_rows_fail_the_job_with_file_lines_and_count(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "a.jsonl", [*labelled(play=10), "{broken", {"text": "x", "label": ["a"]}, *labelled(stop=10)]
    )
    with pytest.raises(InvalidInput, match=r"2 bad rows in a\.jsonl, line 1[12], 1[12] \(.+--on-bad-row skip"):
        prepare(tmp_path, file)
    assert not list(tmp_path.glob("out*")), "a failed preparation leaves nothing behind"


def test_bad_rows_are_skipped_counted_and_listed_by_line(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "a.jsonl", [*labelled(play=10), "{broken", {"text": "x", "label": ["a"]}, *labelled(stop=10)]
    )
    prepared = prepare(tmp_path, file, on_bad_row="skip")
    assert prepared.dropped == {"bad_row": 2}
    assert [(bad["file"], bad["line"]) for bad in prepared.report["bad_rows"]] == [("a.jsonl", 11), ("a.jsonl", 12)]


def test_labels_with_too_few_rows_are_named_and_a_floor_suggested(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", labelled(play=40, odd=2, lone=1))
    with pytest.raises(InvalidInput, match=r"'lone' \(1\), 'odd' \(2\).*--min-per-label 3"):
        prepare(tmp_path, file)
    assert prepare(tmp_path, file, min_per_label=3).splits["train"] == 32


def test_a_split_too_small_for_every_label_is_refused(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", labelled(**{f"l{n}": 3 for n in range(10)}))
    with pytest.raises(InvalidInput, match=r"the (validation|test) split would have [1-3] rows? and none of 'l"):
        prepare(tmp_path, file, split=(90, 5, 5))


def test_a_rare_label_reaches_every_split_without_changing_their_sizes(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", labelled(play=200, stop=97, rare=3)))
    assert prepared.splits == {"train": 240, "validation": 30, "test": 30}
    assert [prepared.labels["intent"][split]["rare"] for split in prepared.splits] == [1, 1, 1]


def test_nothing_left_says_where_the_rows_went(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no row is left.*20 below min per label"):
        prepare(tmp_path, jsonl(tmp_path / "a.jsonl", labelled(play=20)), min_per_label=50)


def test_several_labels_come_as_a_list_a_json_list_or_parted_by_bars(tmp_path: Path) -> None:
    cells = [["joy", "pride"], '["joy", "pride"]', "joy|pride", "joy, pride", "pride"] * 6
    file = jsonl(tmp_path / "a.jsonl", [{"text": f"t{n}", "label": cell} for n, cell in enumerate(cells)])
    prepared = prepare(tmp_path, file, targets=(TargetSpec(name="mood", column="label", multi=True),))
    found = Counter(tuple(row["labels"]["mood"]) for row in everything(prepared))
    assert found == {("joy", "pride"): 24, ("pride",): 6}


def test_a_rare_one_of_several_labels_leaves_its_rows_with_the_others(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": ["joy", "rare"] if n < 2 else ["joy"]} for n in range(30)]
    prepared = prepare(
        tmp_path,
        jsonl(tmp_path / "a.jsonl", rows),
        targets=(TargetSpec(name="mood", column="label", multi=True),),
        min_per_label=5,
    )
    assert sum(prepared.splits.values()) == 30
    assert {tuple(row["labels"]["mood"]) for row in everything(prepared)} == {("joy",)}


def test_a_floor_holds_after_what_it_dropped_itself(tmp_path: Path) -> None:
    """`loud` is rare and takes rows of `stop` with it: then `stop` is rare too, and goes."""
    rows = [{"text": f"p{n}", "label": "play", "tone": "calm"} for n in range(40)]
    rows += [{"text": f"s{n}", "label": "stop", "tone": "loud" if n < 4 else "calm"} for n in range(11)]
    prepared = prepare(
        tmp_path,
        jsonl(tmp_path / "a.jsonl", rows),
        min_per_label=10,
        targets=(*INTENT, TargetSpec(name="tone", column="tone")),
    )
    assert prepared.dropped == {"below_min_per_label": 11}
    assert [target["labels"] for target in prepared.label_schema] == [["play"], ["calm"]]


def test_factory_rows_name_their_own_targets(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [{"role": "user", "content": f"hi {n}"}],
            "labels": {"topic": "ab"[n % 2], "flags": ["x", "y"][: 1 + n % 2]},
        }
        for n in range(40)
    ]
    prepared = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", rows), targets=(), format="factory")
    assert prepared.label_schema == [
        {"name": "topic", "labels": ["a", "b"], "multi": False},
        {"name": "flags", "labels": ["x", "y"], "multi": True},
    ]
    assert sorted(map(json.dumps, everything(prepared))) == sorted(map(json.dumps, rows))


def test_csv_and_several_files_are_one_source(tmp_path: Path) -> None:
    with (tmp_path / "b.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *[[f"line\nbreak {n}", "play"] for n in range(20)]])
    prepared = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", labelled(stop=10)), tmp_path / "b.csv")
    assert sum("line\nbreak" in row["text"] for row in everything(prepared)) == 20


def test_a_full_disk_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dataset, "write_splits", full)
    with pytest.raises(Permanent, match="its disk is full"):
        prepare(tmp_path, jsonl(tmp_path / "a.jsonl", labelled(play=20)))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public sample is not here")
def test_the_cookbooks_preparation_comes_out_row_by_row(tmp_path: Path) -> None:
    prepared = prepare(
        tmp_path,
        SHARED / "massive_intent_en" / "train.jsonl",
        targets=(TargetSpec(name="intent", column="label_text"),),
        where=(("lang", "en"),),
        min_per_label=200,
        max_per_label=600,
    )
    assert prepared.splits == {"train": 5313, "validation": 664, "test": 665}
    for split in prepared.splits:
        expected = (SHARED / "massive_intent_cookbook" / f"{split}.jsonl").read_text().splitlines()
        assert lines(prepared, split) == [json.loads(line) for line in expected]


MOOD = (TargetSpec(name="mood", column="label", multi=True),)


def without_labels(**counts: int) -> list[Any]:
    return [
        {"text": row["text"], "label": [] if row["label"] == "none" else [row["label"]]} for row in labelled(**counts)
    ]


def test_an_empty_list_of_labels_is_an_answer_and_a_missing_one_is_none(tmp_path: Path) -> None:
    rows = [
        *without_labels(joy=20, none=60),
        {"text": "a", "label": None},
        {"text": "b"},
        {"text": "c", "label": ""},
        {"text": "d", "label": [""]},
        {"text": "e", "label": [None]},
    ]
    prepared = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", rows), targets=MOOD)
    assert prepared.dropped == {"blank_label": 5}
    assert Counter(tuple(row["labels"]["mood"]) for row in everything(prepared)) == {("joy",): 20, (): 60}
    shares = {split: Counter(len(row["labels"]["mood"]) for row in lines(prepared, split)) for split in prepared.splits}
    assert shares == {"train": {0: 48, 1: 16}, "validation": {0: 6, 1: 2}, "test": {0: 6, 1: 2}}
    assert prepared.label_schema == [{"name": "mood", "labels": ["joy"], "multi": True}]


def test_an_empty_list_in_a_cell_of_csv_is_an_answer_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        rows = [[f"t{n}", ("[]", '["joy"]', "")[n % 3]] for n in range(60)]
        csv.writer(file).writerows([["text", "label"], *rows])
    prepared = prepare(tmp_path, tmp_path / "a.csv", targets=MOOD)
    assert prepared.dropped == {"blank_label": 20}
    assert Counter(tuple(row["labels"]["mood"]) for row in everything(prepared)) == {("joy",): 20, (): 20}


def test_rows_of_the_factory_format_may_have_no_label_wherever_they_stand(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "labels": {"mood": ["joy"] if n % 4 == 3 else []}} for n in range(40)]
    prepared = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", rows), targets=(), format="factory")
    assert prepared.dropped == {}
    assert sorted(map(json.dumps, everything(prepared))) == sorted(map(json.dumps, rows))


def test_a_row_whose_labels_all_fall_to_the_floor_is_dropped_and_one_without_labels_stays(tmp_path: Path) -> None:
    prepared = prepare(
        tmp_path, jsonl(tmp_path / "a.jsonl", without_labels(joy=20, rare=2, none=30)), targets=MOOD, min_per_label=5
    )
    assert prepared.dropped == {"below_min_per_label": 2}
    assert Counter(tuple(row["labels"]["mood"]) for row in everything(prepared)) == {("joy",): 20, (): 30}


def test_the_cap_counts_rows_without_labels_as_one_more_label(tmp_path: Path) -> None:
    prepared = prepare(
        tmp_path, jsonl(tmp_path / "a.jsonl", without_labels(joy=30, none=200)), targets=MOOD, max_per_label=20
    )
    assert prepared.dropped == {"above_max_per_label": 190}
    assert Counter(tuple(row["labels"]["mood"]) for row in everything(prepared)) == {("joy",): 20, (): 20}


def test_a_target_without_a_label_in_any_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no row has a label for the target mood"):
        prepare(tmp_path, jsonl(tmp_path / "a.jsonl", without_labels(none=20)), targets=MOOD)


def test_labels_in_one_cell_may_be_written_as_python_does_or_with_a_separator_of_ones_own(tmp_path: Path) -> None:
    cells = ["['billing', 'open']", '["billing", "open"]', "billing; open"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "tags"], *([f"text {n}", cells[n % 3]] for n in range(30))])
    targets = (TargetSpec(name="tags", column="tags", multi=True),)
    prepared = prepare(tmp_path, tmp_path / "a.csv", targets=targets, separator=";")
    assert prepared.label_schema == [{"name": "tags", "labels": ["billing", "open"], "multi": True}]


def test_texts_and_labels_may_be_bytes_that_hold_utf_8(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = [f"caf\u00e9 {n}".encode() for n in range(30)] + [b"caf\xe9"]
    labels = [b"a|b"] * 31
    parquet.write_table(arrow.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    targets = (TargetSpec(name="intent", column="label", multi=True),)
    prepared = prepare(tmp_path, tmp_path / "a.parquet", targets=targets, on_bad_row="skip")
    assert prepared.dropped == {"bad_row": 1}
    assert prepared.report["bad_rows"][0]["reason"] == "'text' is binary data that is not UTF-8, not a text"
    assert {row["text"][:4] for row in everything(prepared)} == {"caf\u00e9"}


def test_labels_that_look_alike_are_in_the_report(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", labelled(play=20, Play=20, stop=20)))
    (warning,) = prepared.report["warnings"]
    assert "'Play' and 'play'" in warning
    assert prepare(tmp_path, jsonl(tmp_path / "b.jsonl", labelled(play=20)), into="b").report["warnings"] == []
