"""Which function takes the next step of a training: by its method and its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from labelmill.contracts.errors import WorkerUnable
from labelmill.contracts.states import TrainingState
from labelmill_worker.train import embedding, prompt
from labelmill_worker.train.factory import steps as factory
from labelmill_worker.train.step_context import NextPoll, StepContext

_Step = Callable[[StepContext], NextPoll]

_STEPS: Mapping[str, Mapping[TrainingState, _Step]] = {
    "factory": factory.STEPS,
    "embedding": embedding.STEPS,
    "prompt": prompt.STEPS,
}
_CANCEL: Mapping[str, _Step] = {
    "factory": factory.cancel,
    "embedding": embedding.cancel,
    "prompt": embedding.cancel,
}


def take_step(step: StepContext) -> NextPoll:
    """Do what the training's state asks for. Raises LeaseLost, and what the port raises."""
    method = step.row.method
    if method not in _STEPS:
        raise WorkerUnable(f"this worker knows no method {method!r}")
    if step.row.cancel_requested:
        return _CANCEL[method](step)
    return _STEPS[method][step.state](step)
