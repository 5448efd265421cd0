"""Whether a prompted model's scores can be probabilities: its server is asked once, by a batch of one short text.

Nobody has to allow so small a cost, but a cap below it is kept. A server that cannot be asked now is asked by the next
training: a version is made without probabilities meanwhile.
"""

from __future__ import annotations

from labelmill.core.database import writing
from labelmill_worker.inference.strategies.logprobs_check import CHECK_SCHEMA, CHECK_TEXT, CHECK_TOKENS
from labelmill_worker.store.inner_batches import InnerBatch, first_row_error, read_scores
from labelmill_worker.store.inner_models import logprobs_model, remember_logprobs, tells_logprobs
from labelmill_worker.train.inner_batch import require_completed, run_named_batch
from labelmill_worker.train.pinning import meant_model
from labelmill_worker.train.step_context import NextPoll, StepContext

_NAME = "log-probabilities"  #: Of the batch, among those of the training; progress says `trying log-probabilities`.
_FIELD = "logprobs"  #: In the words of a refusal that is about it, and not about the text, the model or the plan.
_NOT_TOLD = "{} tells no log-probabilities, so labels score 1 and 0"


def find_out(step: StepContext) -> bool | NextPoll:
    """Whether log-probabilities are told, or when to poll again for it."""
    model = meant_model(step)
    if (known := tells_logprobs(step.engine, model)) is not None:
        return known
    if not _may_ask(step, model):
        return False
    with writing(step.engine) as connection:
        model_no = logprobs_model(connection, model, CHECK_SCHEMA)
    batch = run_named_batch(step, _NAME, model_no, model, lambda: [[CHECK_TEXT]])
    if not isinstance(batch, InnerBatch):
        return batch
    told = _answer(step, batch)
    if told is None:
        if step.spec.target_precision:
            require_completed(batch)  # without the answer nothing can be certified
        step.note(f"{model} could not be asked for log-probabilities, so labels score 1 and 0 ({batch.id})")
        return False
    remember_logprobs(step.engine, batch.no, told=told)
    step.note(f"{model} tells log-probabilities: scores are probabilities" if told else _NOT_TOLD.format(model))
    return told


def _may_ask(step: StepContext, model: str) -> bool:
    cap = step.row.max_cost
    price = step.prices.cost_of(model, CHECK_TOKENS)
    return step.row.approved or cap is None or (price is not None and price["amount"] <= cap)


def _answer(step: StepContext, batch: InnerBatch) -> bool | None:
    """None: it was neither answered, nor refused for being asked for log-probabilities."""
    if batch.failed:
        return False if _FIELD in (first_row_error(step.engine, batch.no) or "") else None
    for _, scores in read_scores(step.engine, batch.no, 0, batch.rows):
        return bool(scores[0])
    return None
