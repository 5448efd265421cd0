"""Texts that are the same, or nearly, within and between the splits of a dataset. Bounded in rows and in characters.

The same: but for case, spaces and punctuation (`same_text`), of the first `EXACT_ROWS` rows of each split. Nearly: the
sets of their 3-byte pieces overlap by at least `NEAR` (Jaccard), found by MinHash over a sample and then counted
exactly. A changed letter takes 3 pieces and brings 3: the shortest text in which that is found has 19 bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from labelmill.contracts.chats import text_of_row
from labelmill_worker.prepare.same_text import Words64, digests_of, plain

EXACT_ROWS = 200_000
NEAR_ROWS = {"train": 20_000, "validation": 5_000, "test": 5_000}
NEAR = 0.7
PIECE_BYTES = 3
SHOWN = 30  #: Pairs in the report.
_CHARS = 500  #: Of a text that near ones are looked for by.
_BANDS, _ROWS = 16, 3
_BUCKET = 20  #: Earlier texts of its bucket that a text is compared with.
_CANDIDATES, _PAIRS = 2_000_000, 200_000  #: Pairs that are looked at, and counted exactly.
_AT_ONCE = 50_000
_ALIKE_HASHES = 0.5  #: Of pairs at `NEAR`, 999 in 1,000 share so many hashes.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class _Row:
    """A row in the sample."""

    split: str
    number: int
    text: str
    labels: Any


def compare_splits(
    files: Mapping[str, Path], splits: Mapping[str, int], on_progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """What of a dataset's rows is repeated or leaks from a split into another.

    `{"checked", "repeated", "leaked", "conflicting", "near": {"at_least", "piece_bytes", "checked", "rows", "leaked"},
    "pairs"}`. `repeated`: split → rows whose text stands earlier in it. `leaked`: `"test in train"` → rows.
    `conflicting`: texts that stand there with several labels. `on_progress` is called now and then, and may raise to
    stop.
    """
    found: dict[str, Any] = {"checked": {}, "repeated": {}, "leaked": {}}
    digests: dict[str, Words64] = {}
    labels: dict[str, Words64] = {}
    sample: list[_Row] = []
    for split, path in files.items():
        digests[split], labels[split] = _read(path, split, splits.get(split, 0), sample, on_progress)
        found["checked"][split] = len(digests[split])
        found["repeated"][split] = len(digests[split]) - len(np.unique(digests[split]))
    for earlier, later in combinations(files, 2):
        found["leaked"][f"{later} in {earlier}"] = int(np.isin(digests[later], digests[earlier]).sum())
    found["conflicting"] = _conflicts(np.concatenate([*digests.values()]), np.concatenate([*labels.values()]))
    on_progress()
    return found | _near(sample, on_progress)


def _read(
    path: Path, split: str, rows: int, sample: list[_Row], on_progress: Callable[[], None]
) -> tuple[Words64, Words64]:
    wanted = NEAR_ROWS.get(split, 5_000)
    step = max(1.0, min(rows, EXACT_ROWS) / wanted)  # evenly over the file
    next_row = 0.0
    digests: list[Words64] = []
    labels: list[int] = []
    with path.open("rb") as lines:
        numbered = enumerate(islice(lines, EXACT_ROWS))
        while block := list(islice(numbered, 4_096)):
            texts = []
            for number, line in block:
                row = orjson.loads(line)
                text = text_of_row(row)
                texts.append(text)
                labels.append(hash(orjson.dumps(row["labels"], option=orjson.OPT_SORT_KEYS)) & 0xFFFFFFFFFFFFFFFF)
                if number >= next_row:
                    next_row += step
                    sample.append(_Row(split, number, text, row["labels"]))
            digests.append(digests_of(texts))
            on_progress()
    none = np.empty(0, np.uint64)
    return np.concatenate([none, *digests]), np.array(labels, np.uint64)


def _conflicts(digests: Words64, labels: Words64) -> int:
    """Texts that stand there with several labels."""
    pairs = np.unique(np.stack([digests, labels], axis=1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())


def _near(sample: list[_Row], on_progress: Callable[[], None]) -> dict[str, Any]:
    texts = [plain(row.text)[:_CHARS] for row in sample]
    signatures = min_hashes([text.encode("utf-8", "replace") for text in texts])
    on_progress()
    pairs: list[tuple[float, int, int]] = []
    like: set[int] = set()
    leaked: dict[str, set[int]] = defaultdict(set)
    for number, (one, other) in enumerate(islice(_promising(signatures), _PAIRS)):
        if number % 5_000 == 0:
            on_progress()
        if texts[one] == texts[other]:
            likeness = 1.0
        elif (likeness := _jaccard(texts[one], texts[other])) < NEAR:
            continue
        if likeness < 1.0:
            like |= {one, other}
        if sample[one].split != sample[other].split:
            if likeness < 1.0:
                leaked[f"{sample[other].split} in {sample[one].split}"].add(other)
            pairs.append((likeness, one, other))
        elif sample[one].labels != sample[other].labels:
            pairs.append((likeness, one, other))
    pairs.sort(key=lambda pair: (sample[pair[1]].labels == sample[pair[2]].labels, -pair[0], pair[1:]))
    checked = {split: sum(row.split == split for row in sample) for split in {row.split: None for row in sample}}
    return {
        "near": {
            "at_least": NEAR,
            "piece_bytes": PIECE_BYTES,
            "checked": checked,
            "rows": len(like),
            "leaked": {name: len(rows) for name, rows in sorted(leaked.items())},
        },
        "pairs": [
            {"likeness": round(likeness, 3), "rows": [_shown(sample[one]), _shown(sample[other])]}
            for likeness, one, other in pairs[:SHOWN]
        ],
    }


def _shown(row: _Row) -> dict[str, Any]:
    return {"split": row.split, "row": row.number, "text": row.text[:_CHARS], "labels": row.labels}


def _pieces(text: str) -> set[bytes]:
    raw = text.encode("utf-8", "replace").ljust(PIECE_BYTES)
    return {raw[at : at + PIECE_BYTES] for at in range(len(raw) - PIECE_BYTES + 1)}


def _jaccard(one: str, other: str) -> float:
    left, right = _pieces(one), _pieces(other)
    return len(left & right) / len(left | right)


def min_hashes(texts: list[bytes]) -> Words64:
    """(texts, 48): for each of 48 orders of all pieces, the first that the text has."""
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 1 << 63, _BANDS * _ROWS, np.uint64) | np.uint64(1)
    shifts = rng.integers(1, 1 << 63, _BANDS * _ROWS, np.uint64)
    found = np.empty((len(texts), _BANDS * _ROWS), np.uint64)
    start = size = 0
    for at, text in enumerate(texts):
        size += len(text) + PIECE_BYTES
        if size >= _BLOCK_BYTES or at == len(texts) - 1:
            found[start : at + 1] = _min_hashes(texts[start : at + 1], factors, shifts)
            start, size = at + 1, 0
    return found


def _min_hashes(texts: list[bytes], factors: Words64, shifts: Words64) -> Words64:
    padded = [text.ljust(PIECE_BYTES) for text in texts]
    raw = np.frombuffer(b"".join(padded), np.uint8).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    pieces = np.zeros(len(raw) - PIECE_BYTES + 1, np.uint64)
    for offset in range(PIECE_BYTES):
        pieces = pieces * np.uint64(0x100000001B3) + raw[offset : offset + len(pieces)]
    # pieces that reach into the next text are none
    counts = lengths - PIECE_BYTES + 1
    inside = np.arange(counts.sum()) + np.repeat(ends - lengths - (np.cumsum(counts) - counts), counts)
    pieces, firsts = pieces[inside], np.cumsum(counts) - counts
    hashes = [
        np.minimum.reduceat((pieces * factor + shift) >> np.uint64(20), firsts)
        for factor, shift in zip(factors, shifts, strict=True)
    ]
    return np.stack(hashes, axis=1)


def _promising(signatures: Words64) -> Iterator[tuple[int, int]]:
    """Candidates that share so many hashes that they may be nearly the same."""
    candidates = islice(_candidates(signatures), _CANDIDATES)
    while block := list(islice(candidates, _AT_ONCE)):
        pairs = np.array(block)
        alike = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1) >= _ALIKE_HASHES
        yield from map(tuple, pairs[alike].tolist())


def _candidates(signatures: Words64) -> Iterator[tuple[int, int]]:
    """Pairs that agree in a whole band, each once, the earlier row first. In a large bucket a text is paired with some
    of those before it, evenly: those of other splits are among them."""
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        part = np.ascontiguousarray(signatures[:, band * _ROWS : (band + 1) * _ROWS])
        for at in range(len(part)):
            buckets[part[at].tobytes()].append(at)
        for rows in buckets.values():
            for number, row in enumerate(rows):
                for earlier in rows[: number : max(1, -(-number // _BUCKET))]:
                    if (earlier, row) not in seen:
                        seen.add((earlier, row))
                        yield earlier, row
