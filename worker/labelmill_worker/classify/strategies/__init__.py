"""How rows become a request and an answer becomes scores: all that differs between kinds of call, a file for each.

`strategy_for` picks by the model's method. A strategy never retries, waits or writes: it asks once and checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labelmill.contracts.tables import ModelRow
from labelmill_worker.classify.strategies.list_classification import ListClassification

if TYPE_CHECKING:
    from labelmill_worker.classify.engine import ClassifyEngine
    from labelmill_worker.classify.sending import Strategy


def strategy_for(shared: ClassifyEngine, model: ModelRow, options: dict[str, Any]) -> Strategy:
    """The way to ask `model`; `options` are the batch's (a `ClassifySpec`)."""
    return ListClassification(shared, model, tuple(options.get("multi", ())))
