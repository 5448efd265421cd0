"""The calls of a remote batch: for each request its line, made anew from SQL whenever it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from sqlalchemy.engine import Engine

from labelmill.contracts.inner_methods import VECTORS
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import Mode
from labelmill.contracts.text_digests import digest_of
from labelmill.contracts.usage import Usage
from labelmill.core.database import writing
from labelmill.core.storage.base import Storage
from labelmill_worker.inference.batch_mode.custom_ids import Place, custom_id
from labelmill_worker.inference.chunk_run import version_of
from labelmill_worker.inference.counted_usage import counted_usage
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies import strategy_for
from labelmill_worker.inference.strategies.embedding import Embedding
from labelmill_worker.inference.strategies.strategy import Strategy, Vectors
from labelmill_worker.mistral.refused_fields import RefusedFields
from labelmill_worker.ports.batch_jobs import NumberedCall
from labelmill_worker.ports.inference import Call
from labelmill_worker.store.chunks import read_chunk_input
from labelmill_worker.store.inner_models import embedding_model
from labelmill_worker.store.refused_fields import StoredRefusedFields
from labelmill_worker.store.remote_batches import BatchOfRemote, decode_requests
from labelmill_worker.store.vectors import read_vectors

_TEXTS_PER_VECTOR_REQUEST = 100


class CallMaker:
    """Makes the calls of a batch. `embeds`: those for the vectors that its other calls need."""

    def __init__(self, engine: Engine, batch: BatchOfRemote, strategy: Strategy, *, embeds: bool) -> None:
        self._engine, self._batch = engine, batch
        self.answering = strategy
        self.refused_fields = RefusedFields(StoredRefusedFields(engine))
        self.embeds = embeds

    @classmethod
    def of(
        cls, engine: Engine, batch: BatchOfRemote, storage: Storage, texts_per_request: int, *, embeds: bool = False
    ) -> CallMaker:
        """Raises WorkerUnable, Permanent."""
        version = version_of(batch.model)
        strategy = strategy_for(version, batch.options, storage=storage, texts_per_request=texts_per_request)
        return cls(engine, batch, strategy, embeds=embeds)

    @property
    def asking(self) -> Strategy:
        """The strategy whose calls are made."""
        return self.embedding if self.embeds else self.answering

    @cached_property
    def embedding(self) -> Strategy:
        """Of the vectors that other calls need."""
        name = self.answering.vector_model or ""
        return Embedding(ModelVersion(name, VECTORS, name, LabelSchema(()), {}), _TEXTS_PER_VECTOR_REQUEST)

    @cached_property
    def vector_model_no(self) -> int:
        """The key of the model whose vectors the calls need."""
        with writing(self._engine) as connection:
            return embedding_model(connection, self.answering.vector_model or "")

    def calls_of(self, chunk: int, requests: Sequence[Request]) -> list[NumberedCall]:
        """The calls of a chunk's requests."""
        vectors: Mapping[bytes, bytes] = {}
        if not self.embeds and self.answering.vector_model is not None:
            digests = [digest_of(text) for request in requests for text in request.texts]
            vectors = read_vectors(self._engine, self.vector_model_no, digests)
        return [
            NumberedCall(custom_id(Place(chunk, number)), self.call(request, _vectors_of(request, vectors)))
            for number, request in enumerate(requests)
        ]

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        """The call of one request."""
        call = self.asking.call(request, vectors)
        if self._left_out.isdisjoint(call.body):
            return _alone(request, call)
        body = {name: value for name, value in call.body.items() if name not in self._left_out}
        return _alone(request, replace(call, body=body))

    @cached_property
    def _left_out(self) -> frozenset[str]:
        """Optional fields that a line goes without: what the model's server refuses, and the key of a cache that nobody
        promises for batch jobs."""
        return self.refused_fields.of(self.asking.model) | {"prompt_cache_key"}

    def held_calls(self, held: Mapping[int, bytes]) -> Iterator[NumberedCall]:
        """The calls of all rows that a remote batch holds: chunk → its requests, compressed."""
        for chunk, data in held.items():
            yield from self.calls_of(chunk, self._held_requests(chunk, data))

    def _held_requests(self, chunk: int, data: bytes) -> list[Request]:
        first_row, texts = read_chunk_input(self._engine, self._batch.no, chunk)
        return [Request(rows, [texts[row - first_row] for row in rows]) for rows in decode_requests(data)]

    def estimated_usage(self, held: Mapping[int, bytes]) -> Usage:
        """What all of these calls may have used together, where no answer says it."""
        requests = asked = written = 0
        for chunk, data in held.items():
            for request in self._held_requests(chunk, data):
                usage = counted_usage(self.call(request, None), request)
                requests, asked = requests + 1, asked + usage.input_tokens
                written += usage.output_tokens
        model, mode = self.asking.model, Mode.BATCH.value
        return Usage(model, asked, written, requests=requests, is_estimated=True, mode=mode)


def _alone(request: Request, call: Call) -> Call:
    """A call for one text names it as it is, not in a list: an endpoint may refuse lists of any length."""
    inputs = call.body.get("input")
    if len(request) > 1 or not isinstance(inputs, Sequence) or isinstance(inputs, str) or len(inputs) != 1:
        return call
    return replace(call, body={**call.body, "input": inputs[0]})


def _vectors_of(request: Request, stored: Mapping[bytes, bytes]) -> Vectors | None:
    if not stored:
        return None
    return np.stack([np.frombuffer(stored[digest_of(text)], "<f2").astype(np.float32) for text in request.texts])
