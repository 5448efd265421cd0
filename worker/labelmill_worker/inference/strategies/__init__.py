"""How rows become a request and an answer becomes scores: all that differs between kinds of call, a file for each.

`strategy_for` picks by the model's method. A strategy never retries or writes: it asks once and checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmill.contracts.errors import WorkerUnable
from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.database.tables import ModelRow
from labelmill.core.storage.data_folder import MODELS, DataFolder
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.head import Head
from labelmill_worker.inference.strategies.chat_classification import ChatClassification
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.inference.strategies.embedding import Embedding
from labelmill_worker.inference.strategies.embedding_head import EmbeddingHead
from labelmill_worker.inference.strategies.list_classification import ListClassification
from labelmill_worker.store.vectors import VECTORS

if TYPE_CHECKING:
    from labelmill_worker.inference.runtime import ClassifyEngine
    from labelmill_worker.inference.sender import Strategy


def strategy_for(shared: ClassifyEngine, model: ModelRow, options: dict[str, Any]) -> Strategy:
    """The way to ask `model`; `options` are the batch's (a `ClassifySpec`).

    Raises WorkerUnable for a method or a file that this worker does not know, Permanent for a file that is broken.
    """
    recipe: dict[str, Any] = model.recipe or {}
    name = f"{model.name}@{model.version}"
    schema = LabelSchema.from_json(model.label_schema or [])
    temperatures: dict[str, float] = options.get("temperatures") or {}
    if model.method == "embedding":
        head = Head.load(_own_file(shared, recipe), recipe["sha256"], name, schema).at_temperatures(temperatures)
        return EmbeddingHead(shared, model, head)
    if model.method == "prompt":
        pool = None
        if "file" in recipe:
            pool = ExamplePool.load(_own_file(shared, recipe), recipe["sha256"], name, schema)
        return ChatPrompt(shared, model, pool)
    if model.method == VECTORS:
        return Embedding(shared, model)
    if model.method != "factory":
        raise WorkerUnable(f"model {name} was made by the method {model.method!r}, which this worker does not know")
    multi = (*options.get("multi", ()), *recipe.get("multi", ()))
    kind = ChatClassification if options.get("chats") or recipe.get("chats") else ListClassification
    named = (*options.get("multi", ()), *options.get("thresholds", {}))
    return kind(shared, model, multi, named, temperatures)


def _own_file(shared: ClassifyEngine, recipe: dict[str, Any]) -> Path:
    return DataFolder.of(shared.settings.data_dir).file(recipe["file"], MODELS)
