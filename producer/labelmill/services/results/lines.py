"""A chunk's results in columns, and as lines of JSON built from them: a dictionary for each row would take twice the
time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter, not_

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill.contracts.label_schema import Target
from labelmill.core.chunks.codec import QuotedInput
from labelmill.services.results.reading import Only
from labelmill.services.results.scores import ALL, ScoreChoice

#: Small enough to stay in the processor's cache and to reuse memory: allocating new memory takes as long as building
#: the lines.
_ROWS_AT_ONCE = 500
#: Row numbers (64 bits, big-endian), labels ("" abstained), best scores (32 bits, big-endian), scores.
Columns = tuple[bytes, list[str], bytes, bytes]
#: Row, label, list of labels as JSON, score, scores (None where they are not needed).
Answer = tuple[int, str | None, str | None, float, bytes | None]


@dataclass(frozen=True, slots=True)
class TargetAnswers:
    """One target's answers, column by column, in the order of the rows.

    With `ScoreChoice` NONE they are made of the scores of those rows alone that abstained, and `scores` is empty.
    """

    rows: NDArray[np.int64]
    heads: list[bytes]  #: `"label":…` or `"labels":…`
    abstained: NDArray[np.bool_]
    best: NDArray[np.float32]
    scores: NDArray[np.float32]  #: (rows, labels), in label order.

    @classmethod
    def of_rows(cls, target: Target, answers: Sequence[Answer], choice: ScoreChoice = ALL) -> TargetAnswers:
        """From a tuple for each row, in any order."""
        answers = sorted(answers, key=itemgetter(0))
        pairs = [(answer[1], answer[2]) for answer in answers]
        heads = {pair: _head(*pair) for pair in set(pairs)}
        return cls._made(
            target,
            np.fromiter((answer[0] for answer in answers), np.int64, len(answers)),
            list(map(heads.__getitem__, pairs)),
            np.fromiter((pair == (None, None) for pair in pairs), np.bool_, len(pairs)),
            np.array([answer[3] for answer in answers], np.float32),
            b"".join([answer[4] for answer in answers if answer[4] is not None]),
            choice,
        )

    @classmethod
    def of_columns(cls, target: Target, columns: Columns, choice: ScoreChoice = ALL) -> TargetAnswers:
        """From a single-label target's columns, of rows in any order: no tuple a row."""
        numbers, labels, best, scores = columns
        heads_of = {label: _head(label, None) for label in target.labels} | {"": b""}
        rows = np.frombuffer(numbers, ">i8").astype(np.int64)
        heads = list(map(heads_of.__getitem__, labels))
        abstained = np.fromiter(map(not_, labels), np.bool_, len(labels))
        best_scores = np.frombuffer(best, ">f4").astype(np.float32)
        answers = cls._made(target, rows, heads, abstained, best_scores, scores, choice)
        return answers if bool((rows[1:] > rows[:-1]).all()) else answers.at(np.argsort(rows))

    @classmethod
    def _made(
        cls,
        target: Target,
        rows: NDArray[np.int64],
        heads: list[bytes],
        abstained: NDArray[np.bool_],
        best: NDArray[np.float32],
        scores: bytes,
        choice: ScoreChoice,
    ) -> TargetAnswers:
        """From columns; for rows that abstained the best label is found."""
        width = len(target.labels)
        silent = np.flatnonzero(abstained)
        has_scores = choice.at_most != 0
        table = np.frombuffer(scores, "<f4").reshape(len(rows) if has_scores else len(silent), width)
        if len(silent):
            quoted = [_head(None, None) + b',"best":' + orjson.dumps(label) for label in target.labels]
            of_silent = table[silent] if has_scores else table
            for index, label in zip(silent.tolist(), of_silent.argmax(axis=1).tolist(), strict=True):
                heads[index] = quoted[label]
        return cls(rows, heads, abstained, best, table if has_scores else np.empty((len(rows), 0), np.float32))

    def at(self, places: NDArray[np.intp]) -> TargetAnswers:
        """Those at some places, in this order."""
        heads = [self.heads[place] for place in places.tolist()]
        return TargetAnswers(self.rows[places], heads, self.abstained[places], self.best[places], self.scores[places])

    def within(self, first_row: int, end: int) -> TargetAnswers:
        """Those of some rows."""
        rows = slice(*np.searchsorted(self.rows, [first_row, end]).tolist())
        return TargetAnswers(
            self.rows[rows], self.heads[rows], self.abstained[rows], self.best[rows], self.scores[rows]
        )

    def __len__(self) -> int:
        return len(self.heads)

    def shown(self, target: Target, choice: ScoreChoice) -> list[Sequence[bytes]]:
        """What a template takes of each answer: label or labels, score, then the scores that are chosen."""
        columns: list[Sequence[bytes]] = [self.heads, json_numbers(self.best)]
        if choice.at_most is None:
            scores = json_numbers(self.scores.reshape(-1))
            return columns + [scores[label :: len(target.labels)] for label in range(len(target.labels))]
        count = min(choice.at_most, len(target.labels))
        if count:
            order = best_first(self.scores, count)
            names = [orjson.dumps(label) for label in target.labels]
            scores = json_numbers(np.take_along_axis(self.scores, order, axis=1).reshape(-1))
            for rank in range(count):
                columns += [list(map(names.__getitem__, order[:, rank].tolist())), scores[rank::count]]
        return columns


@dataclass
class ChunkResults:
    """The results of a chunk's rows: each target's answers and the errors, by row number."""

    first_row: int
    input: QuotedInput
    answers: list[tuple[Target, TargetAnswers]]  #: Made with the same `choice`.
    errors: dict[int, tuple[str, str]] = field(default_factory=dict)  #: row → code, message
    choice: ScoreChoice = ALL
    only: Only | None = None

    def rows(self) -> NDArray[np.int64]:
        """The numbers of the rows to show, in order: those with an answer or an error, and of these `only` some."""
        failed = np.fromiter(self.errors, np.int64, len(self.errors))
        if self.only is Only.FAILED:
            return np.sort(failed)
        if self.only is Only.ABSTAINED:
            parts = [answers.rows[answers.abstained] for _, answers in self.answers]
        else:
            parts = [failed, *(answers.rows for _, answers in self.answers)]
        return np.unique(np.concatenate(parts)) if parts else failed[:0]

    def scores_a_row(self) -> int:
        """How many scores are shown of a row with an answer for each target."""
        widths = [answers.scores.shape[1] for _, answers in self.answers]
        return sum(widths if self.choice.at_most is None else [min(self.choice.at_most, width) for width in widths])

    def lines(self) -> Iterator[bytes]:
        """A line for every row to show, in input order, many in one piece."""
        pieces = self._pieces()
        if self.input.ids is None or b"" not in self.input.ids:
            yield from pieces
            return
        for lines in pieces:
            # within a text or a label these quotes would be escaped
            yield lines.replace(b',"id":"","text":', b',"id":null,"text":')

    def _pieces(self) -> Iterator[bytes]:
        for start in range(0, len(self.input.texts), _ROWS_AT_ONCE):
            piece = self._some(start, start + _ROWS_AT_ONCE)
            if len(piece.answers) == 1 and not piece.errors and self.only is None:
                target, answers = piece.answers[0]
                if len(answers) == len(piece.input.texts):
                    yield piece._plain_lines(target, answers)
                    continue
            if lines := piece._lines():
                yield lines

    def _some(self, start: int, end: int) -> ChunkResults:
        """A part of the chunk."""
        first, last = self.first_row + start, self.first_row + end
        quoted = self.input
        return ChunkResults(
            first,
            QuotedInput(quoted.texts[start:end], quoted.ids and quoted.ids[start:end], quoted.has_repeats),
            [(target, answers.within(first, last)) for target, answers in self.answers],
            {row: error for row, error in self.errors.items() if first <= row < last},
            self.choice,
            self.only,
        )

    def _lines(self) -> bytes:
        names, predictions = self._names(), self._predictions()
        lines = []
        for row in self.rows().tolist():
            index, error = row - self.first_row, self.errors.get(row)
            shown = b"null" if error is None else orjson.dumps({"code": error[0], "message": error[1]})
            lines.append(_LINE % (row, names[index], self.input.texts[index], predictions[index], shown))
        return b"".join(lines)

    def _plain_lines(self, target: Target, answers: TargetAnswers) -> bytes:
        """The common case of one target and every row answered: one template for all lines."""
        count = len(answers)
        template = _LINE_START + _template(target, self.choice) + b'},"error":null}\n'
        numbers = range(self.first_row, self.first_row + count)
        columns = [numbers, self._names(), self.input.texts, *answers.shown(target, self.choice)]
        values: list[object] = [None] * (count * len(columns))
        for number, column in enumerate(columns):
            values[number :: len(columns)] = column
        return template * count % tuple(values)

    def _names(self) -> Sequence[bytes]:
        if self.input.ids is not None:
            return self.input.ids
        return [b"%d" % row for row in range(self.first_row, self.first_row + len(self.input.texts))]

    def _predictions(self) -> list[bytes]:
        """For each row the members of its `predictions`."""
        parts = [b""] * len(self.input.texts)
        for target, answers in self.answers:
            template = _template(target, self.choice)
            columns = answers.shown(target, self.choice)
            for row, values in zip(answers.rows.tolist(), zip(*columns, strict=True), strict=True):
                index = row - self.first_row
                shown = template % values
                parts[index] = shown if not parts[index] else parts[index] + b"," + shown
        return parts


_LINE_START = b'{"row":%d,"id":"%b","text":"%b","predictions":{'
_LINE = _LINE_START + b'%b},"error":%b}\n'


def json_numbers(values: NDArray[np.float32]) -> list[bytes]:
    """Each number in the fewest digits that identify it among float32 values."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") if values.size else []


def best_first(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The labels of the `count` best scores of each row, (rows, count); of equal ones in label order."""
    if count == 1:  # a sort takes three times as long
        order: NDArray[np.intp] = np.argmax(scores, axis=1, keepdims=True)
        return order
    order = np.argsort(-scores, axis=1, kind="stable")
    return order[:, :count]


def _template(target: Target, choice: ScoreChoice) -> bytes:
    def escaped(name: str) -> bytes:
        return orjson.dumps(name).replace(b"%", b"%%")

    start = escaped(target.name) + b':{%b,"score":%b'
    if choice.at_most == 0:
        return start + b"}"
    if choice.at_most is None:
        scores = [escaped(label) + b":%b" for label in target.labels]
    else:
        scores = [b"%b:%b"] * min(choice.at_most, len(target.labels))
    return start + b',"scores":{' + b",".join(scores) + b"}}"


def _head(label: str | None, labels: str | None) -> bytes:
    if labels is not None:
        return b'"labels":' + labels.encode()
    return b'"label":null,"abstained":true' if label is None else b'"label":' + orjson.dumps(label)
