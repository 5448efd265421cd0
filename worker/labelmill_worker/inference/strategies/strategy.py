"""What every strategy does: rows become calls, and replies become answers. Pure: it sends and writes nothing.

What a strategy needs beforehand it declares here, and the sender provides it: the texts' vectors (`vector_call`),
and the labels of a model that is known by its id alone (`schema`, `learn`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import LabelSchema
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.ports.inference import Call, Reply

Vectors = NDArray[np.float32]
"""One for each text of a request: float32 (texts, dimensions)."""


class Strategy(ABC):
    """One way to ask a model."""

    model: str
    """Mistral's id of the model that is asked."""
    vector_model: str | None = None
    """That of the model which is asked for vectors beforehand. None: no vector is needed."""
    schema: LabelSchema | None
    """Targets and labels of the model. None: they are learnt from the first good reply (`learn`)."""

    @abstractmethod
    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        """Cut rows into requests that this kind of call takes."""

    def vector_call(self, request: Request) -> Call | None:
        """The call whose reply holds the vectors that `call` needs, a request of its own. None: it needs none."""
        del request
        return None

    def read_vectors(self, request: Request, reply: Reply) -> Vectors:
        """The vectors that `call` takes, from the reply to `vector_call`. Raises MalformedAnswer."""
        raise NotImplementedError

    @abstractmethod
    def call(self, request: Request, vectors: Vectors | None) -> Call:
        """What is sent for a request. `vectors`: None unless the strategy asked for some."""

    def learn(self, request: Request, reply: Reply) -> LabelSchema:
        """Targets and labels, from a good reply to `call`. Raises MalformedAnswer, InvalidInput."""
        raise NotImplementedError

    @abstractmethod
    def read(self, request: Request, reply: Reply, schema: LabelSchema) -> Answer:
        """Check a reply to `call` and turn it into scores for `schema`. Raises MalformedAnswer."""
