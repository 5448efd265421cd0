"""One evaluation: the split becomes a batch of the bulk engine; when that has ended, its answers meet the truth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from labelmill.contracts.batch_writer import BatchWriter
from labelmill.contracts.chats import text_of_row
from labelmill.contracts.dispatch import dispatch_batch
from labelmill.contracts.errors import BrokerUnavailable, Permanent
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import ENDED, BatchState
from labelmill_worker.bootstrap import Services
from labelmill_worker.evaluate.metrics import multi_label_metrics, single_label_metrics
from labelmill_worker.store import evaluations

_ENDED = {state.value for state in ENDED}
_BLOCK = 4096


def begin(services: Services, evaluation_id: str, token: str, split: Path) -> None:
    """Submit the split as a batch, once: a later attempt finds the batch that an earlier one opened."""
    batch = evaluations.open_batch(services.engine, evaluation_id, token, str(split))
    if batch.state == BatchState.SUBMITTING.value:
        evaluations.clear_submission(services.engine, batch.no)
        rows = map(text_of_row, read_split(split))
        with BatchWriter(services.engine, batch.no, batch.id) as writer:
            while block := list(islice(rows, _BLOCK)):
                writer.add(block)
            writer.finish()
    try:
        dispatch_batch(services.engine, services.sender, batch.id)
    except BrokerUnavailable:
        pass  # the sweeper sends what is owed


def read_split(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a prepared split: `{"text", "labels"}`. Raises Permanent when it is gone."""
    try:
        with path.open("rb") as lines:
            yield from map(orjson.loads, lines)
    except (OSError, ValueError) as error:
        raise Permanent(f"the prepared split {path.name} cannot be read: prepare the dataset again") from error


def measure(services: Services, batch_no: int, schema: LabelSchema, split: Path) -> dict[str, Any]:
    """Metrics of every target that the split has labels for."""
    truth = [row["labels"] for row in read_split(split)]
    answers = evaluations.read_answers(services.engine, batch_no, len(truth))
    metrics: dict[str, Any] = {}
    for number, target in enumerate(schema.targets):
        numbers = [row for row, labels in enumerate(truth) if labels.get(target.name) is not None]
        if not numbers:
            continue
        given = [answers[row].get(number) for row in numbers]
        if target.multi:
            real = [_as_list(truth[row][target.name]) for row in numbers]
            sets = [answer[1] if answer else None for answer in given]
            metrics[target.name] = multi_label_metrics(real, sets, target.labels)
        else:
            single = [_as_list(truth[row][target.name])[0] for row in numbers]
            metrics[target.name] = single_label_metrics(single, [answer[0] if answer else None for answer in given])
    if not metrics:
        raise Permanent("the dataset has no labels for any target of the model")
    return metrics


def _as_list(value: Any) -> list[str]:
    return list(value) if isinstance(value, list) else [value]


def has_ended(state: str) -> bool:
    """Whether a batch in that state goes no further by itself."""
    return state in _ENDED
