"""`/v1/classifications` with a list of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labelmill.contracts.label_schema import LabelSchema
from labelmill_worker.inference.answers import Scores, check_scores, learn_schema, require_targets
from labelmill_worker.inference.models.temperature import at_temperatures
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request, plan_requests
from labelmill_worker.inference.score_decoding import decoder_of, read_scores
from labelmill_worker.inference.strategies.strategy import Strategy, Vectors
from labelmill_worker.ports.inference import Call, Decode, Endpoint, Reply


class ListClassification(Strategy):
    """Asks a fine-tuned classifier. The labels of a model known by its id alone are those of its first good answer."""

    def __init__(
        self,
        model: ModelVersion,
        texts_per_request: int,
        multi: tuple[str, ...] = (),
        named: tuple[str, ...] = (),
        temperatures: Mapping[str, float] | None = None,
    ) -> None:
        """`multi`: targets of which several labels may hold; `named`: targets that the batch's options name;
        `temperatures`: those at which the batch is answered."""
        self.model = model.remote_model
        self._texts_per_request = texts_per_request
        self._multi = multi
        self._named = named
        self._temperatures = temperatures or {}
        self.schema = model.schema

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        return plan_requests(rows, texts, self._texts_per_request)

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        del vectors
        return Call(Endpoint.CLASSIFICATIONS, {"model": self.model, "input": request.texts}, self._decode())

    def _decode(self) -> Decode | None:
        return None if self.schema is None else decoder_of(self.schema)

    def learn(self, request: Request, reply: Reply) -> LabelSchema:
        results = reply.document.get("results")
        schema = learn_schema(results, self._multi)
        check_scores(results, len(request), schema)  # labels are learnt from a good answer only
        require_targets(schema, self._named)
        return schema

    def read(self, request: Request, reply: Reply, schema: LabelSchema) -> Answer:
        scores = read_scores(reply.document.get("results"), len(request), schema)
        return Answer(request, schema, self._at_temperatures(scores, schema), reply.tokens)

    def _at_temperatures(self, scores: Scores, schema: LabelSchema) -> Scores:
        return at_temperatures(scores, schema, self._temperatures) if self._temperatures else scores
