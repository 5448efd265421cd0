"""Result rows as lines of JSON, put together from columns: a dictionary a row would take twice the time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill.contracts.chunks.codec import ChunkInput
from labelmill.contracts.label_schema import Target

Answer = tuple[int, str | None, str | None, float, bytes]  #: row, label, list of labels as JSON, score, scores


@dataclass(frozen=True, slots=True)
class Answers:
    """One target's answers, column by column, in the order of the rows."""

    rows: NDArray[np.int64]
    heads: list[bytes]  #: `"label":…` or `"labels":…`
    abstained: NDArray[np.bool_]
    best: NDArray[np.float32]
    scores: NDArray[np.float32]  #: (rows, labels), in label order.

    @classmethod
    def of_rows(cls, target: Target, found: Sequence[Answer]) -> Answers:
        """From a tuple for each row, in any order."""
        found = sorted(found)
        pairs = [(answer[1], answer[2]) for answer in found]
        heads = {pair: _head(*pair) for pair in set(pairs)}
        return cls(
            np.fromiter((answer[0] for answer in found), np.int64, len(found)),
            list(map(heads.__getitem__, pairs)),
            np.fromiter((pair == (None, None) for pair in pairs), np.bool_, len(pairs)),
            np.array([answer[3] for answer in found], np.float32),
            np.frombuffer(b"".join([answer[4] for answer in found]), "<f4").reshape(-1, len(target.labels)),
        )

    @classmethod
    def of_packed(cls, target: Target, data: bytes) -> Answers:
        """From a single-label target's rows in any order, each 64 bits of row number, 32 of its label's number in the
        schema from 1 on (0: abstained) and 32 of score, big-endian, and its scores: no object a row."""
        width = len(target.labels)
        table = np.frombuffer(data, [("row", ">i8"), ("label", ">i4"), ("best", ">f4"), ("scores", "<f4", (width,))])
        order = np.argsort(table["row"])
        heads = [_head(label, None) for label in (None, *target.labels)]
        numbers = table["label"][order]
        return cls(
            table["row"][order].astype(np.int64), list(map(heads.__getitem__, numbers.tolist())), numbers == 0,
            table["best"][order].astype(np.float32), table["scores"][order],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.heads)

    def shown(self) -> list[Sequence[bytes]]:
        """What a template takes of each answer: label or labels, score, then a column for each label."""
        width = self.scores.shape[1]
        scores = json_numbers(self.scores.reshape(-1))
        return [self.heads, json_numbers(self.best), *(scores[label::width] for label in range(width))]


@dataclass
class ChunkResults:
    """What is known of the rows of a chunk: a target's answers and the errors, each by row number."""

    first_row: int
    input: ChunkInput
    answers: list[tuple[Target, Answers]]
    errors: dict[int, tuple[str, str]] = field(default_factory=dict)  #: row → code, message

    def lines(self, *, failed_only: bool = False, abstained_only: bool = False) -> bytes:
        """A line for every row that has an answer or an error, in input order, all in one piece."""
        if len(self.answers) == 1 and not self.errors and not (failed_only or abstained_only):
            target, answers = self.answers[0]
            if len(answers) == len(self.input.texts):
                return self._plain_lines(target, answers)
        found, silent = self._predictions()
        lines = []
        named = zip(self._names(), json_texts(self.input.texts), found, strict=True)
        for row, (name, text, parts) in enumerate(named, self.first_row):
            error = self.errors.get(row)
            if not parts and error is None:
                continue
            if (failed_only and error is None) or (abstained_only and row not in silent):
                continue
            shown = b"null" if error is None else orjson.dumps({"code": error[0], "message": error[1]})
            lines.append(_LINE % (row, name, text, parts, shown))
        return b"".join(lines)

    def _plain_lines(self, target: Target, answers: Answers) -> bytes:
        """What nearly every chunk is, one target and every row answered: one template for all of its lines."""
        count, width = len(answers), len(target.labels)
        template = _LINE_START + _template(target) + b'},"error":null}\n'
        columns = [
            range(self.first_row, self.first_row + count), self._names(), json_texts(self.input.texts),
            *answers.shown(),
        ]  # fmt: skip
        values: list[object] = [None] * (count * len(columns))
        for number, column in enumerate(columns):
            values[number :: 5 + width] = column
        return template * count % tuple(values)

    def _names(self) -> list[bytes]:
        if self.input.ids is not None:
            return json_texts(self.input.ids)
        return [b"%d" % row for row in range(self.first_row, self.first_row + len(self.input.texts))]

    def _predictions(self) -> tuple[list[bytes], set[int]]:
        """For each row the members of its `predictions`, and the rows that abstained."""
        parts = [b""] * len(self.input.texts)
        silent: set[int] = set()
        for target, answers in self.answers:
            template = _template(target)
            silent.update(answers.rows[answers.abstained].tolist())
            for row, values in zip(answers.rows.tolist(), zip(*answers.shown(), strict=True), strict=True):
                index = row - self.first_row
                shown = template % values
                parts[index] = shown if not parts[index] else parts[index] + b"," + shown
        return parts, silent


_LINE_START = b'{"row":%d,"id":"%b","text":"%b","predictions":{'
_LINE = _LINE_START + b'%b},"error":%b}\n'


def json_texts(texts: Sequence[str]) -> list[bytes]:
    """Each text as it stands between the quotes of a JSON string."""
    # within a JSON string every quote has a backslash before it, so that `","` stands between two strings alone
    return orjson.dumps(texts)[2:-2].split(b'","') if texts else []


def json_numbers(values: NDArray[np.float32]) -> list[bytes]:
    """Each number in the fewest digits that tell it from every other float32."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") if values.size else []


def _template(target: Target) -> bytes:
    def escaped(name: str) -> bytes:
        return orjson.dumps(name).replace(b"%", b"%%")

    scores = b",".join(escaped(label) + b":%b" for label in target.labels)
    return escaped(target.name) + b':{%b,"score":%b,"scores":{' + scores + b"}}"


def _head(label: str | None, labels: str | None) -> bytes:
    if labels is not None:
        return b'"labels":' + labels.encode()
    return b'"label":null,"abstained":true' if label is None else b'"label":' + orjson.dumps(label)
