"""The report of a dataset, and the part of a training's page about its dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Connection

from labelmill.core.database.analysis_codec import load_analysis
from labelmill.report.parts import Dots, Grid, Heading, Note, Part, facts

_LABELS_SHOWN = 40
_BAD_ROWS_SHOWN = 20


def parts_of(connection: Connection, document: dict[str, Any]) -> list[Part]:
    """The contents of a dataset's page."""
    return [facts(facts_of(document)), *contents(connection, document)]


def facts_of(document: Mapping[str, Any]) -> dict[str, str | float | None]:
    """The numbers of a dataset."""
    report = document["report"] or {}
    version = f"{document['name']}@{document['version']}" if document["version"] else document["name"]
    return {
        "dataset": version,
        "fingerprint": document["fingerprint"],
        "rows read": report.get("rows_read"),
        **{f"rows in {split}": rows for split, rows in (document["splits"] or {}).items()},
        "rows dropped": sum((document["dropped"] or {}).values()) if document["dropped"] is not None else None,
        "the same as": document["repeats"],
    }


def contents(connection: Connection, document: Mapping[str, Any]) -> list[Part]:
    """Dropped rows, label distributions and leakage."""
    parts: list[Part] = []
    if dropped := document["dropped"]:
        rows = sorted(((reason.replace("_", " "), count) for reason, count in dropped.items()), key=lambda row: -row[1])
        parts.append(Grid(("dropped because of", "rows"), rows, "Dropped rows"))
    report = document["report"] or {}
    parts += [Note(warning) for warning in report.get("warnings", ())]
    if bad := report.get("bad_rows"):
        listed = [(_bad_row(bad_row),) for bad_row in bad[:_BAD_ROWS_SHOWN]]
        parts.append(Grid(("bad rows",), listed, "", frozenset({0})))
    for target, splits in (document["labels"] or {}).items():
        parts += [Heading(f"Labels of {target}"), *_labels(target, splits)]
    if likeness := load_analysis(connection, document["id"]).get("likeness"):
        parts += [Heading("Repeated texts and leakage"), *_likeness(likeness)]
    return parts


def _bad_row(bad_row: Any) -> str:
    return ", ".join(f"{key}: {value}" for key, value in bad_row.items()) if isinstance(bad_row, dict) else str(bad_row)


def _labels(target: str, splits: dict[str, dict[str, int]]) -> list[Part]:
    totals: dict[str, int] = {}
    for counts in splits.values():
        for label, count in counts.items():
            totals[label] = totals.get(label, 0) + count
    ranked = sorted(totals, key=lambda label: -totals[label])
    sums = {split: max(1, sum(counts.values())) for split, counts in splits.items()}
    shown = ranked[:_LABELS_SHOWN]
    series = {
        split: [counts.get(label, 0) / sums[split] for label in shown] for split, counts in splits.items() if counts
    }
    note = f" (the {_LABELS_SHOWN} most frequent of {len(ranked)})" if len(ranked) > _LABELS_SHOWN else ""
    figure = Dots(f"{target}-labels", f"Share of each label{note}", shown, series, "share of the split's labels")
    rows: list[tuple[str | float | None, ...]] = [
        (label, *(counts.get(label, 0) for counts in splits.values())) for label in shown
    ]
    parts: list[Part] = [figure, Grid(("label", *splits), rows, f"Rows by label{note}")]
    trained = splits.get("train", {})
    if absent := [label for label in ranked if trained and not trained.get(label)]:
        parts.append(Note(f"Labels without any row in train: {', '.join(absent)}.", "warning"))
    return parts


def _likeness(likeness: dict[str, Any]) -> list[Part]:
    leaked = {name: count for name, count in likeness["leaked"].items() if count}
    near = {name: count for name, count in likeness["near"]["leaked"].items() if count}
    sentences: list[str] = []
    if leaked:
        sentences.append("Texts of one split stand in another: what is measured on them is too good.")
        sentences.append("Preparing with --dedupe removes texts that are the same to the letter.")
    elif near:
        sentences.append("Texts of one split nearly stand in another: what is measured on them may be too good.")
    else:
        sentences.append("No text of one split was found in another.")
    parts: list[Part] = [Note(" ".join([*sentences, _looked_for(likeness)]), "warning" if leaked or near else "good")]
    rows: list[tuple[str, int]] = [(f"the same text: {name}", count) for name, count in likeness["leaked"].items()]
    rows += [(f"nearly the same text: {name} (of a sample)", count) for name, count in near.items()]
    rows += [(f"repeated within {split}", count) for split, count in likeness["repeated"].items()]
    rows.append(("texts with several different labels", likeness["conflicting"]))
    parts.append(Grid(("what", "rows"), rows))
    pairs: list[tuple[str | float | None, ...]] = [
        (pair["likeness"], _place(one), _place(other), one["text"], other["text"])
        for pair in likeness["pairs"]
        for one, other in (pair["rows"],)
    ]
    if pairs:
        headings = ("likeness", "row", "other row", "text", "other text")
        parts.append(Grid(headings, pairs, "Most alike", frozenset({3, 4})))
    return parts


def _looked_for(likeness: dict[str, Any]) -> str:
    """What the comparison can find, and how many rows it covered."""
    near = likeness["near"]
    at_least, piece_bytes = near.get("at_least", 0.8), near.get("piece_bytes", 5)  # earlier ones did not say so
    exact, sample = (
        ", ".join(f"{rows:,} of {split}" for split, rows in comparison["checked"].items())
        for comparison in (likeness, near)
    )
    return (
        f"Looked for: the same text, but for case, spaces and punctuation, among {exact}; texts that share "
        f"{at_least:.0%} of their {piece_bytes}-byte pieces, among {sample}. A text that was put into other words is "
        "not found, nor always one changed letter of a text of fewer than 20."
    )


def _place(row: dict[str, Any]) -> str:
    labels = ", ".join(" + ".join(value) if isinstance(value, list) else str(value) for value in row["labels"].values())
    return f"{row['split']} {row['row']}: {labels}"
