"""Rows of a dataset that take no part in a training, because Mistral has no vector or no answer for them: how many, and
why. Every training that succeeded says so in its details, `{"rows": 0, "reason": null}` where there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from labelmill.contracts.inner_methods import VECTORS
from labelmill.contracts.text_digests import digest_of
from labelmill.core.database import writing
from labelmill_worker.store.inner_batches import InnerBatch, first_row_error, read_inner_batch
from labelmill_worker.store.inner_models import embedding_model
from labelmill_worker.store.refused_texts import refused_texts
from labelmill_worker.train.inner_batch import named_batches
from labelmill_worker.train.step_context import StepContext

_UNKNOWN = "its request failed"


@dataclass(frozen=True)
class LeftOut:
    """So many rows, and why the first of them."""

    rows: int = 0
    reason: str | None = None

    @classmethod
    def of_details(cls, document: dict[str, Any] | None) -> Self:
        """As `details` wrote it."""
        return cls() if document is None else cls(**document)

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(self.rows + other.rows, self.reason or other.reason)

    def document(self) -> dict[str, Any]:
        """For a training's details."""
        return asdict(self)


def left_out_of_batch(step: StepContext, batch: InnerBatch) -> LeftOut:
    """The rows of a batch that have no answer."""
    if not batch.failed:
        return LeftOut()
    return LeftOut(batch.failed, first_row_error(step.engine, batch.no) or _UNKNOWN)


def left_out_of_vectors(
    step: StepContext, model: str, rows: int, blocks: Callable[[], Iterator[Iterable[str]]]
) -> LeftOut:
    """`rows` whose texts, some of `blocks`, have no vector."""
    if rows <= 0:
        return LeftOut()
    with writing(step.engine) as connection:
        refused = refused_texts(connection, embedding_model(connection, model))
    reasons = (refused.get(digest_of(text)) for block in blocks() for text in block) if refused else iter(())
    return LeftOut(rows, next(filter(None, reasons), None) or _failure_of_vectors(step) or _UNKNOWN)


def _failure_of_vectors(step: StepContext) -> str | None:
    """Why the first text that has no vector has none, by this training's own batch."""
    batch_id = named_batches(step).get(VECTORS)
    return None if batch_id is None else first_row_error(step.engine, read_inner_batch(step.engine, batch_id).no)
