"""A training file beyond Mistral's size becomes several, at row boundaries."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill_worker.train.factory.upload_parts import part_ranges, write_part


def test_parts_hold_whole_rows_and_together_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"".join(b'{"row": %d}\n' % number for number in range(100)))
    parts = part_ranges(path, 300)
    assert len(parts) > 3
    found = []
    for number, part in enumerate(parts):
        cut = tmp_path / f"{number}"
        write_part(path, part, cut)
        found.append(cut.read_bytes())
    assert b"".join(found) == path.read_bytes()
    assert all(len(one) <= 300 and one.endswith(b"\n") for one in found)


def test_a_small_file_is_sent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"{}\n" * 10)
    assert part_ranges(path) == [(0, 30)]


def test_a_row_that_alone_is_too_large_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"x" * 50 + b"\n")
    with pytest.raises(InvalidInput, match=r"a row of train\.jsonl"):
        part_ranges(path, 20)
