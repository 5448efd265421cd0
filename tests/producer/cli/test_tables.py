"""Tables and status documents on a terminal: nothing that a person wants to copy is cut off, whatever the width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from labelmill.cli.tables import print_details, print_rows

ID = "batch_01a20e2e3ec4170f8a20ab98"
HEADINGS = ("id", "state", "created", "error")
WHY = "Mistral refused the key: set MISTRAL_API_KEY where the workers run, and retry"


def shown(width: int, rows: list[list[str]], *, terminal: bool = True) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None, markup=False)
    print_rows(console, HEADINGS, rows, flowing=("error",))
    return file.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_no_id_and_no_word_is_cut_off_at_any_width(width: int) -> None:
    said = shown(width, [[ID, "failed", "2026-11-24 15:30:41", WHY]])
    assert ID in said.replace("\n", "") if width < len(ID) + 2 else ID in said
    assert "…" not in said
    assert all(word in said.split() for word in WHY.split())
    assert max(map(len, said.splitlines())) <= width


def test_a_wide_terminal_has_a_line_for_each_row_and_a_narrow_one_some_lines() -> None:
    rows = [[ID, "completed", "2026-11-24 15:30:41", "none"]] * 3
    assert len(shown(120, rows).splitlines()) == 1 + 3
    assert len(shown(50, rows).splitlines()) == 3 * 4


def test_a_column_that_no_row_fills_is_left_out() -> None:
    assert "error" not in shown(80, [[ID, "completed", "2026-11-24", ""]])
    assert "error" in shown(80, [])


def test_without_a_terminal_no_line_ends_in_spaces() -> None:
    said = shown(240, [[ID, "failed", "2026-11-24", "x"], ["a", "b", "c", ""]], terminal=False)
    assert all(line == line.rstrip() for line in said.splitlines())


def test_a_status_document_is_read_at_a_glance() -> None:
    file = io.StringIO()
    print_details(
        Console(file=file, width=100, markup=False),
        {
            "id": ID,
            "created_at": "2026-11-24T15:30:41.477+00:00",
            "error": None,
            "rows": {"submitted": 5, "failed": 0},
            "cost": {"amount": 0.00040012345, "currency": "USD", "estimated": True},
            "metrics": {"my_target": {"accuracy": 0.8225563909774436, "per_label": {"a": {}}, "coverage": [{"at": 1}]}},
            "labels": {"intent": {"train": dict.fromkeys(map(str, range(16)), 3)}},
            "files": ["train.jsonl", "test.jsonl"],
        },
    )
    assert [" ".join(line.split()) for line in file.getvalue().splitlines()] == [
        f"id {ID}",
        "created_at 2026-11-24 15:30:41 UTC",
        "rows submitted 5, failed 0",
        "cost 0.0004001 USD (estimated yes)",
        "metrics my_target: accuracy 0.8226",
        "labels intent: train (16)",
        "files train.jsonl, test.jsonl",
    ]
