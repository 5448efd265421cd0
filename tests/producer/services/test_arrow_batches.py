"""Results as record batches of Arrow, made from columns, hold what the lines of JSON say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.contracts.label_schema import Target
from labelmill.core.chunks.codec import decode_quoted, encode_chunk
from labelmill.services.results import arrow_batches as module
from labelmill.services.results.arrow_batches import arrow_batches, arrow_schema
from labelmill.services.results.lines import ChunkResults, TargetAnswers
from labelmill.services.results.reading import Only
from labelmill.services.results.scores import ALL, NONE, ScoreChoice
from labelmill.services.results.tables import ResultTable

_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(['","', "a\\", '"', "%b", "ü"])
_LABELS = st.lists(_WORDS, min_size=1, max_size=4, unique=True).map(tuple)
_NAMES = ["intent", "id", 'a "target"']
_SCORES = st.floats(0, 1, width=32) | st.sampled_from([0.1, 0.25, 1e-9])
_CHOICES = [ALL, NONE, ScoreChoice(1), ScoreChoice(2), ScoreChoice(9)]


@st.composite
def _targets(draw: st.DrawFn) -> list[Target]:
    names = draw(st.lists(st.sampled_from(_NAMES), max_size=3, unique=True))
    return [Target(name, draw(_LABELS), draw(st.booleans())) for name in names]


def _answer(draw: st.DrawFn, row: int, target: Target, choice: ScoreChoice) -> tuple[Any, ...]:
    scores = [draw(_SCORES) for _ in target.labels]
    abstains = draw(st.booleans())
    label = None if abstains or target.multi else draw(st.sampled_from(target.labels))
    listed = orjson.dumps(draw(st.lists(st.sampled_from(target.labels), unique=True))).decode()
    kept = np.array(scores, np.float32).tobytes() if choice != NONE or abstains else None
    return (row, label, listed if target.multi and not abstains else None, max(scores), kept)


@st.composite
def _chunks(draw: st.DrawFn, targets: list[Target], choice: ScoreChoice) -> list[ChunkResults]:
    chunks: list[ChunkResults] = []
    first, has_ids = draw(st.integers(0, 20)), draw(st.booleans())
    only = draw(st.sampled_from([None, None, *Only]))
    for _ in range(draw(st.integers(0, 3))):
        texts = draw(st.lists(_WORDS, min_size=1, max_size=8))
        ids = [draw(_WORDS) for _ in texts] if has_ids else None
        rows = range(first, first + len(texts))
        of_targets = []
        all_answered = draw(st.booleans())
        for target in targets:
            answered = [row for row in rows if all_answered or draw(st.booleans())]
            answers = [_answer(draw, row, target, choice) for row in draw(st.permutations(answered))]
            of_targets.append((target, TargetAnswers.of_rows(target, answers, choice)))  # type: ignore[arg-type]
        errors = {
            row: (draw(_WORDS), draw(_WORDS)) for row in reversed(rows) if not all_answered and draw(st.booleans())
        }
        quoted = decode_quoted(encode_chunk(orjson.dumps(texts), orjson.dumps(ids), {}))
        chunks.append(ChunkResults(first, quoted, of_targets, errors, choice, only))
        first = rows.stop
    return chunks


def _documents(chunks: list[ChunkResults]) -> Iterator[dict[str, Any]]:
    for chunk in chunks:
        for lines in chunk.lines():
            yield from map(orjson.loads, lines.splitlines())


def _of_documents(documents: list[dict[str, Any]], table: ResultTable) -> pa.Table:
    """Row by row from the lines of JSON."""
    schema = arrow_schema(table)
    cells = list(zip(*map(table.cells, documents), strict=True)) or [()] * len(schema)
    columns = [[list(cell.items()) if isinstance(cell, dict) else cell for cell in column] for column in cells]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


@given(st.data(), _targets(), st.sampled_from(_CHOICES), st.integers(1, 9), st.booleans())
def test_arrow_holds_what_the_lines_say(
    data: st.DataObject, targets: list[Target], choice: ScoreChoice, batch_rows: int, is_kept: bool
) -> None:
    chunks = data.draw(_chunks(targets, choice))
    table = ResultTable([target.name for target in targets], ["team"] * is_kept, with_scores=choice != NONE)

    def read_kept(row: int, text: str) -> dict[str, Any]:
        return {"team": [None, 7, {"of": text}, float("nan")][row % 4]}

    documents = list(_documents(chunks))
    for document in documents if is_kept else ():
        document["keep"] = orjson.loads(orjson.dumps(read_kept(document["row"], document["text"])))
    batches = list(arrow_batches(chunks, table, batch_rows, read_kept=read_kept if is_kept else None))
    for batch in batches:
        batch.validate(full=True)
    assert [batch.num_rows for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
    found = pa.Table.from_batches(batches, schema=arrow_schema(table))
    assert found.equals(_of_documents(documents, table))


@pytest.mark.parametrize("choice", [ALL, ScoreChoice(2)])
def test_batches_of_rows_with_many_scores_are_smaller(monkeypatch: pytest.MonkeyPatch, choice: ScoreChoice) -> None:
    monkeypatch.setattr(module, "_BATCH_SCORES", 6 if choice == ALL else 4)
    target = Target("t", ("a", "b", "c"))
    half = np.full(3, 0.5, np.float32).tobytes()
    quoted = decode_quoted(encode_chunk(orjson.dumps(["x"] * 5), b"null", {}))
    answers = TargetAnswers.of_rows(target, [(row, "a", None, 0.5, half) for row in range(5)], choice)
    chunks = [ChunkResults(0, quoted, [(target, answers)], choice=choice)]
    batches = list(arrow_batches(chunks, ResultTable(["t"], (), with_scores=True)))
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert batches[2].column("t_scores").to_pylist()[0][0] == ("a", 0.5)
