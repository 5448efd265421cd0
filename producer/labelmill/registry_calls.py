"""What both Python clients can do with models: each call is one of `services.models.registry`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labelmill.contracts.argument_types import check_arguments
from labelmill.contracts.documents.models import (
    ChangedModelDocument,
    ModelDocument,
    ModelEntry,
    ModelThresholdsDocument,
    RegisteredModelDocument,
    RemovedAliasDocument,
)

if TYPE_CHECKING:
    from labelmill.services.context import ServiceContext


class RegistryCalls(ABC):
    """The calls about models. `ref` is `intents` (the promoted version), `intents@2` or `intents@ALIAS`."""

    @property
    @abstractmethod
    def context(self) -> ServiceContext:
        """The connections for the next call."""

    def models(self, *, archived: bool = False) -> list[ModelEntry]:
        """All models, by name and version; with `archived` also archived ones.

        >>> [model["model"] for model in client.models() if model["name"] == "requests"]
        ['requests@1']
        """
        from labelmill.services.models.registry import ModelsRequest, list_models

        return list_models(self.context, ModelsRequest(archived))

    def model(self, ref: str) -> ModelDocument:
        """Everything about a version: its labels, dataset, training, evaluations and batches. Raises NotFound,
        InvalidInput.

        >>> client.model("requests")["model"]
        'requests@1'
        """
        check_arguments(RegistryCalls.model, locals())
        from labelmill.services.models.registry import ModelRequest, show_model

        return show_model(self.context, ModelRequest(ref))

    def promote(self, ref: str) -> ChangedModelDocument:
        """Make a version the one that the model's bare name means; an archived one is restored. Raises NotFound,
        InvalidInput.

        >>> client.promote("requests@1")["promoted"]
        True
        """
        check_arguments(RegistryCalls.promote, locals())
        from labelmill.services.models.registry import ModelRequest, promote

        return promote(self.context, ModelRequest(ref)).document

    def rollback(self, name: str) -> ChangedModelDocument:
        """Promote the version of a model that was promoted before. Raises NotFound, InvalidInput."""
        check_arguments(RegistryCalls.rollback, locals())
        from labelmill.services.models.registry import ModelRequest, rollback

        return rollback(self.context, ModelRequest(name)).document

    def register(
        self, name: str, remote_id: str, *, multi: Sequence[str] = (), chats: bool = False
    ) -> RegisteredModelDocument:
        """Give a classifier that was fine-tuned before a name; its labels are learnt from its first answer. `multi`:
        its multi-label targets; `chats`: it was trained on chats. Raises InvalidInput."""
        check_arguments(RegistryCalls.register, locals())
        from labelmill.services.models.registry import RegisterRequest, register

        return register(self.context, RegisterRequest(name, remote_id, multi, chats))

    def alias(self, ref: str, alias: str) -> ChangedModelDocument:
        """Give a version a second name, or move that name to it. Raises NotFound, InvalidInput.

        >>> client.alias("requests@1", "champion")["model"], client.model("requests@champion")["aliases"]
        ('requests@1', ['champion'])
        """
        check_arguments(RegistryCalls.alias, locals())
        from labelmill.services.models.registry import AliasRequest, set_alias

        return set_alias(self.context, AliasRequest(ref, alias)).document

    def remove_alias(self, ref: str) -> RemovedAliasDocument:
        """Remove the alias that `ref`, `NAME@ALIAS`, names. Raises NotFound."""
        check_arguments(RegistryCalls.remove_alias, locals())
        from labelmill.services.models.registry import ModelRequest, remove_alias

        remove_alias(self.context, ModelRequest(ref))
        return {"alias": ref, "removed": True}

    def note(self, ref: str, text: str) -> ChangedModelDocument:
        """Write a note on a version; an empty text removes it. Raises NotFound, InvalidInput."""
        check_arguments(RegistryCalls.note, locals())
        from labelmill.services.models.registry import NoteRequest, set_note

        return set_note(self.context, NoteRequest(ref, text)).document

    def threshold(self, ref: str, thresholds: Mapping[str, float] | None = None) -> ModelThresholdsDocument:
        """Set some thresholds of a version: target, TARGET.LABEL of a multi-label one, or `*` for all → the minimum of
        a score. None: they stay as they are. Returns all of them. Raises NotFound, InvalidInput.

        >>> client.threshold("requests", {"intent": 0.25})["thresholds"], client.clear_thresholds("requests")["model"]
        ({'intent': 0.25}, 'requests@1')
        """
        check_arguments(RegistryCalls.threshold, locals())
        from labelmill.services.models.registry import (
            ModelRequest,
            ThresholdsRequest,
            set_thresholds,
        )
        from labelmill.services.models.registry import thresholds as thresholds_of

        if not thresholds:
            return thresholds_of(self.context, ModelRequest(ref))
        items = [str(value) if where == "*" else f"{where}={value}" for where, value in thresholds.items()]
        return set_thresholds(self.context, ThresholdsRequest(ref, items))

    def clear_thresholds(self, ref: str) -> ModelThresholdsDocument:
        """Remove all thresholds of a version. Raises NotFound."""
        check_arguments(RegistryCalls.clear_thresholds, locals())
        from labelmill.services.models.registry import ModelRequest, clear_thresholds

        return clear_thresholds(self.context, ModelRequest(ref))

    def archive(self, ref: str, *, here_only: bool = False) -> ChangedModelDocument:
        """Archive a version: no new job can use it until it is promoted. A fine-tuned one is archived at Mistral too,
        unless `here_only`. Raises NotFound, InvalidInput."""
        check_arguments(RegistryCalls.archive, locals())
        from labelmill.services.models.registry import RetireRequest, archive

        return archive(self.context, RetireRequest(ref, at_mistral=not here_only)).document

    def delete(self, ref: str, *, here_only: bool = False) -> ChangedModelDocument:
        """Delete a version permanently, at Mistral too unless `here_only`; its predictions stay. Raises NotFound,
        InvalidInput."""
        check_arguments(RegistryCalls.delete, locals())
        from labelmill.services.models.registry import RetireRequest, delete

        return delete(self.context, RetireRequest(ref, at_mistral=not here_only)).document
