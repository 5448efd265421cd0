"""What can come of a request: an answer, rows that fail, rows left for later, or the end of the batch. Values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.usage import Usage
from labelmill_worker.inference.planning import Request


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that was checked. `scores` are for the targets of `schema`, in its order."""

    request: Request
    schema: LabelSchema
    scores: Sequence[NDArray[np.float32]]
    tokens: int
    is_cached: bool = False  #: An earlier batch's; nothing was sent.
    vectors: Sequence[tuple[bytes, bytes]] = ()  #: `(digest, data)` of texts that were embedded to be kept.


@dataclass(frozen=True, slots=True)
class RowFailed:
    """One row that Mistral refuses or cannot answer."""

    row: int
    error: LabelmillError


@dataclass(frozen=True, slots=True)
class Unforeseen:
    """A fault of ours in one request. Its rows are left for a later claim; the other requests go on."""

    fault: Exception


@dataclass(frozen=True, slots=True)
class Stop:
    """The whole batch must stop: a fault that will not pass."""

    error: LabelmillError


@dataclass(frozen=True, slots=True)
class Deferred:
    """Rows left for a later task: the time was up, the limit held back, or Mistral is out of order."""

    error: LabelmillError | None
    wait_s: float

    def or_worse(self, other: Deferred | None) -> Deferred:
        """Both in one: a fault is not forgotten for a request that merely came too late."""
        return self if other is None else Deferred(self.error or other.error, max(self.wait_s, other.wait_s))


Outcome = Answer | RowFailed | Unforeseen | Stop | Deferred


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a chunk's requests brought since the last delivery."""

    outcomes: Sequence[Outcome]
    slots: int = 0  #: Given back once the outcomes are committed, or lost for good.
    requests: int = 0  #: That were sent.
    tokens: int = 0  #: That were reported, but by no answer: of malformed replies, and of calls for vectors.
    usages: Sequence[Usage] = ()  #: What is to be paid for, whatever came of it.
    is_last: bool = False  #: Nothing more will come of this claim.
