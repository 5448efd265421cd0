"""Which rows of train a prompt shows as examples. Pure: the same rows give the same choice, in one pass."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from typing import Any

from labelmill.contracts.label_schema import LabelSchema

Row = tuple[str, dict[str, Any]]
NO_LABEL = ""  #: Stands for an empty list of labels; no label is blank.


def sample_per_label(rows: Iterable[Row], schema: LabelSchema, per_label: int, max_rows: int) -> list[dict[str, Any]]:
    """At least `per_label` rows of every label of every target, where there are so many; `max_rows` in all.

    Returns `{"text", "labels"}`. A row serves all labels it has; that a multi-label target has none is sampled like one
    more label. Which rows are taken depends on their texts alone.
    """
    heaps: dict[tuple[str, str], list[tuple[bytes, str]]] = {
        (target.name, label): []
        for target in schema.targets
        for label in (*target.labels, *([NO_LABEL] if target.multi else []))
    }
    kept: dict[str, dict[str, Any]] = {}
    for text, labels in rows:
        rank = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        entry = (bytes(255 - byte for byte in rank), text)  # a heap drops its smallest: rows of the lowest rank stay
        for key in _keys(labels, heaps):
            heap = heaps[key]
            if any(text == other for _, other in heap):
                continue
            if len(heap) < per_label:
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)
            else:
                continue
            kept[text] = labels
        if len(kept) > 4 * max_rows + 4 * per_label * len(heaps):
            kept = _still_wanted(kept, heaps)
    return _cover(_still_wanted(kept, heaps), heaps, per_label, max_rows)


def _keys(labels: dict[str, Any], known: dict[tuple[str, str], Any]) -> list[tuple[str, str]]:
    keys = [
        (target, label)
        for target, value in labels.items()
        for label in ((value or [NO_LABEL]) if isinstance(value, list) else [value])
    ]
    return [key for key in keys if key in known]


def _still_wanted(kept: dict[str, dict[str, Any]], heaps: dict[Any, list[tuple[bytes, str]]]) -> dict[str, Any]:
    wanted = {text for heap in heaps.values() for _, text in heap}
    return {text: labels for text, labels in kept.items() if text in wanted}


def _cover(
    kept: dict[str, dict[str, Any]],
    heaps: dict[tuple[str, str], list[tuple[bytes, str]]],
    per_label: int,
    max_rows: int,
) -> list[dict[str, Any]]:
    """Go through the labels, the rarest first, and take rows only for those that do not have enough yet."""
    chosen: dict[str, int] = {}
    have = dict.fromkeys(heaps, 0)
    for key in sorted(heaps, key=lambda key: (len(heaps[key]), key)):
        for _, text in sorted(heaps[key], reverse=True):
            if have[key] >= per_label or len(chosen) >= max_rows:
                break
            if text not in chosen:
                chosen[text] = len(chosen)
                for other in _keys(kept[text], heaps):
                    have[other] += 1
    ranked = sorted(chosen, key=lambda text: hashlib.blake2b(text.encode("utf-8", "surrogatepass")).digest())
    return [{"text": text, "labels": kept[text]} for text in ranked]
