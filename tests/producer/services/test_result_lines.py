"""Lines of results, put together from columns, say what the columns hold: whatever the texts, ids and labels are."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from labelmill.contracts.label_schema import Target
from labelmill.core.chunks.codec import QuotedInput, decode_quoted, encode_chunk
from labelmill.services.results.lines import ChunkResults, TargetAnswers
from labelmill.services.results.reading import Only
from labelmill.services.results.scores import ALL, NONE, ScoreChoice

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['","', '\\","', "a\\", '"', 'said "no",', '\\",', "%b %d", "\n", "\u2028"]
)
LABELS = st.lists(TEXTS, min_size=1, max_size=4, unique=True).map(tuple)


def _held(texts: list[str], ids: list[str] | None) -> QuotedInput:
    return decode_quoted(encode_chunk(orjson.dumps(texts), orjson.dumps(ids), {}))


def _scores(count: int, labels: tuple[str, ...]) -> list[bytes]:
    return [np.full(len(labels), 1 / (row + 2), np.float32).tobytes() for row in range(count)]


def _lines(results: ChunkResults) -> list[bytes]:
    return b"".join(results.lines()).splitlines()


@given(st.lists(TEXTS, max_size=20))
def test_texts_are_quoted_one_by_one(texts: list[str]) -> None:
    held = _held(texts, texts[::-1])
    assert [json.loads(b'"%b"' % quoted) for quoted in held.texts] == texts
    assert held.ids is not None
    assert [json.loads(b'"%b"' % quoted) for quoted in held.ids] == texts[::-1]


@given(st.lists(TEXTS, min_size=1, max_size=8), LABELS, st.booleans())
def test_a_chunk_whose_rows_are_all_answered(texts: list[str], labels: tuple[str, ...], named: bool) -> None:
    target = Target("topic%s", labels)
    answers = [(7 + row, labels[0], None, 1 / (row + 2), raw) for row, raw in enumerate(_scores(len(texts), labels))]
    ids = texts[::-1] if named else None
    lines = _lines(ChunkResults(7, _held(texts, ids), [(target, TargetAnswers.of_rows(target, answers[::-1]))]))
    assert len(lines) == len(texts)
    for index, line in enumerate(lines):
        score = float(str(np.float32(1 / (index + 2))))
        assert json.loads(line) == {
            "row": 7 + index,
            "id": (ids[index] or None) if ids else str(7 + index),
            "text": texts[index],
            "predictions": {"topic%s": {"label": labels[0], "score": score, "scores": dict.fromkeys(labels, score)}},
            "error": None,
        }


def test_targets_side_by_side_abstentions_and_errors() -> None:
    single, multi = Target("one", ("a", "b")), Target("many", ("x", "y", "z"), multi=True)
    half = np.full(3, 0.5, np.float32).tobytes()
    results = ChunkResults(
        0,
        _held(["t0", "t1", "t2", "t3"], None),
        [
            (single, TargetAnswers.of_rows(single, [(0, "a", None, 0.5, half[:8]), (2, None, None, 0.5, half[:8])])),
            (multi, TargetAnswers.of_rows(multi, [(0, None, '["x","z"]', 0.5, half), (2, None, "[]", 0.5, half)])),
        ],
        {1: ("empty_text", "the text is empty")},
    )
    rows = [json.loads(line) for line in _lines(results)]
    assert [row["row"] for row in rows] == [0, 1, 2]  # the fourth has no answer yet
    assert rows[0]["predictions"]["many"] == {
        "labels": ["x", "z"],
        "score": 0.5,
        "scores": {"x": 0.5, "y": 0.5, "z": 0.5},
    }
    assert rows[1]["predictions"] == {}
    assert rows[1]["error"] == {"code": "empty_text", "message": "the text is empty"}
    assert rows[2]["predictions"]["one"] == {
        "label": None,
        "abstained": True,
        "best": "a",
        "score": 0.5,
        "scores": {"a": 0.5, "b": 0.5},
    }
    for only, numbers in ((Only.FAILED, [1]), (Only.ABSTAINED, [2])):
        results.only = only
        assert [json.loads(line)["row"] for line in _lines(results)] == numbers


@given(st.data(), LABELS, st.booleans(), st.integers(1, 5))
def test_chosen_scores_are_those_of_all_and_the_rest_stays(
    data: st.DataObject, labels: tuple[str, ...], is_multi: bool, count: int
) -> None:
    target = Target('"%s"', labels, multi=is_multi)
    few = st.lists(st.integers(0, 3).map(lambda number: number / 4), min_size=len(labels), max_size=len(labels))
    rows = data.draw(st.lists(st.tuples(few, st.booleans()), min_size=1, max_size=8))

    def lines(choice: ScoreChoice) -> list[dict[str, Any]]:
        answers = []
        for row, (scores, abstains) in enumerate(rows):
            label = None if is_multi or abstains else labels[scores.index(max(scores))]
            listed = json.dumps(labels[:1]) if is_multi and not abstains else None
            kept = np.array(scores, np.float32).tobytes() if choice != NONE or abstains else None
            answers.append((row, label, listed, max(scores), kept))
        chunk = ChunkResults(
            0, _held(["t"] * len(rows), None), [(target, TargetAnswers.of_rows(target, answers, choice))], choice=choice
        )
        return [json.loads(line)["predictions"]['"%s"'] for line in _lines(chunk)]

    for (scores, abstains), all_, none, top in zip(
        rows, lines(ALL), lines(NONE), lines(ScoreChoice(count)), strict=True
    ):
        by_label = dict(zip(labels, scores, strict=True))
        assert (list(all_["scores"]), all_["scores"]) == (list(labels), by_label)
        best = sorted(labels, key=lambda label: -by_label[label])
        assert list(top["scores"].items()) == [(label, by_label[label]) for label in best[:count]]
        assert all_.get("best") == (best[0] if abstains else None)
        assert none == {name: value for name, value in all_.items() if name != "scores"}
        assert none == {name: value for name, value in top.items() if name != "scores"}
