"""How a model is asked: all that differs between kinds of call, a file for each. `strategy.py` says what a strategy is,
`strategy_for` picks one by the model's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelmill.contracts.errors import WorkerUnable
from labelmill.contracts.inner_methods import LOGPROBS, VECTORS
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.moderation import MODERATION
from labelmill.core.storage.base import Storage
from labelmill.core.storage.references import MODELS
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.head import Head
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.strategies.chat_classification import ChatClassification
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.inference.strategies.embedding import Embedding
from labelmill_worker.inference.strategies.embedding_head import EmbeddingHead
from labelmill_worker.inference.strategies.list_classification import ListClassification
from labelmill_worker.inference.strategies.logprobs_check import LogprobsCheck
from labelmill_worker.inference.strategies.moderation import ChatModeration, Moderation
from labelmill_worker.inference.strategies.strategy import Strategy


def strategy_for(
    model: ModelVersion, options: Mapping[str, Any], *, storage: Storage, texts_per_request: int
) -> Strategy:
    """The way to ask `model`; `options` are the batch's (a `ClassifySpec`), `storage` holds the files of models.

    Raises WorkerUnable for a method or a file that this worker does not know, Permanent for a file that is broken.
    """
    recipe, schema = model.recipe, model.schema or LabelSchema(())
    temperatures: dict[str, float] = options.get("temperatures") or {}
    if model.method == "embedding":
        file = storage.file(recipe["file"], MODELS, sha256=recipe["sha256"])
        head = Head.load(file, recipe["sha256"], model.name, schema).at_temperatures(temperatures)
        return EmbeddingHead(model, texts_per_request, head)
    if model.method == "prompt":
        pool = None
        if "file" in recipe:
            file = storage.file(recipe["file"], MODELS, sha256=recipe["sha256"])
            pool = ExamplePool.load(file, recipe["sha256"], model.name, schema)
        return ChatPrompt(model, pool, temperatures, options.get("texts_per_prompt"))
    if model.method == VECTORS:
        return Embedding(model, texts_per_request)
    if model.method == LOGPROBS:
        return LogprobsCheck(model)
    if model.method not in ("factory", MODERATION):
        raise WorkerUnable(
            f"model {model.name} was made by the method {model.method!r}, which this worker does not know"
        )
    multi = (*options.get("multi", ()), *recipe.get("multi", ()))
    are_chats = bool(options.get("chats") or recipe.get("chats"))
    kind = _OF_LISTS[model.method, are_chats]
    named = (*options.get("multi", ()), *options.get("thresholds", {}))
    return kind(model, texts_per_request, multi, named, temperatures)


_OF_LISTS: dict[tuple[str, bool], type[ListClassification]] = {
    ("factory", False): ListClassification,
    ("factory", True): ChatClassification,
    (MODERATION, False): Moderation,
    (MODERATION, True): ChatModeration,
}
