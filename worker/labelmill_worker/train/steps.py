"""Which function takes the next step of a training: by its method and its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from labelmill.contracts.errors import WorkerUnable
from labelmill.contracts.states import TrainingState
from labelmill_worker.train import embedding, prompt
from labelmill_worker.train.factory import steps as factory
from labelmill_worker.train.poll import Look, NextLook

_Step = Callable[[Look], NextLook]

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


def take_step(look: Look) -> NextLook:
    """Do what the training's state asks for. Raises LeaseLost, and what the port raises."""
    method = look.row.method
    if method not in _STEPS:
        raise WorkerUnable(f"this worker knows no method {method!r}")
    if look.row.cancel_requested:
        return _CANCEL[method](look)
    return _STEPS[method][look.state](look)
