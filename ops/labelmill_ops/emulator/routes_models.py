"""`/v1/models` and `/v1/fine_tuning/models`: list, get, delete, update, archive, unarchive."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from labelmill_ops.emulator.jobs import WORKSPACE
from labelmill_ops.emulator.replies import invalid_model, json_body, json_reply, refusal
from labelmill_ops.emulator.store import STORE, StoredModel

DEPRECATED: web.AppKey[Mapping[str, str]] = web.AppKey("deprecated models", Mapping)
_CAPABILITIES: dict[str, dict[str, bool]] = {
    "ministral-3b-2512": {"completion_chat": True, "function_calling": True, "fine_tuning": True},
    "ministral-8b-2512": {"completion_chat": True, "function_calling": True, "fine_tuning": True},
    "mistral-small-2603": {"completion_chat": True, "function_calling": True, "reasoning": True},
    "mistral-embed-2312": {},
    "mistral-moderation-2603": {"moderation": True},
}
_ALIASES = {
    "ministral-3b-latest": "ministral-3b-2512",
    "ministral-8b-latest": "ministral-8b-2512",
    "mistral-small-latest": "mistral-small-2603",
    "mistral-embed": "mistral-embed-2312",
    "mistral-moderation-latest": "mistral-moderation-2603",
}
#: Every name of the base models there are, with what each can do.
BASE_MODELS = {**_CAPABILITIES, **{alias: _CAPABILITIES[name] for alias, name in _ALIASES.items()}}


def model_routes() -> list[web.RouteDef]:
    """Return the routes of models."""
    return [
        web.get("/v1/models", _list_models),
        web.get("/v1/models/{model_id}", _retrieve),
        web.delete("/v1/models/{model_id}", _delete),
        web.patch("/v1/fine_tuning/models/{model_id}", _update),
        web.post("/v1/fine_tuning/models/{model_id}/archive", _archive),
        web.delete("/v1/fine_tuning/models/{model_id}/archive", _unarchive),
    ]


async def _list_models(request: web.Request) -> web.Response:
    cards = [_base_card(request, name) for name in BASE_MODELS]
    cards += [_card(model) for model in request.app[STORE].models.values()]
    return json_reply({"object": "list", "data": cards})


async def _retrieve(request: web.Request) -> web.Response:
    model_id = request.match_info["model_id"]
    return json_reply(_base_card(request, model_id) if model_id in BASE_MODELS else _card(_found(request)))


async def _delete(request: web.Request) -> web.Response:
    if request.match_info["model_id"] in BASE_MODELS:
        raise refusal(403, "Base models cannot be deleted")
    model = _found(request)
    request.app[STORE].delete_model(model.id)
    return json_reply({"id": model.id, "object": "model", "deleted": True})


async def _update(request: web.Request) -> web.Response:
    model = _found(request)
    body = await json_body(request)
    for field in ("name", "description"):
        if field in body:
            setattr(model, field, body[field])
    request.app[STORE].save_model(model)
    return json_reply(_fine_tuned(model))


async def _archive(request: web.Request) -> web.Response:
    return _archived(request, archived=True)


async def _unarchive(request: web.Request) -> web.Response:
    return _archived(request, archived=False)


def _archived(request: web.Request, *, archived: bool) -> web.Response:
    model = _found(request)
    model.archived = archived
    request.app[STORE].save_model(model)
    return json_reply({"id": model.id, "object": "model", "archived": archived})


def _found(request: web.Request) -> StoredModel:
    model_id = request.match_info["model_id"]
    try:
        return request.app[STORE].models[model_id]
    except KeyError as error:
        raise invalid_model(model_id) from error


def _base_card(request: web.Request, name: str) -> dict[str, Any]:
    dated = _ALIASES.get(name, name)
    names = [dated, *(alias for alias, meant in _ALIASES.items() if meant == dated)]
    replacement = request.app[DEPRECATED].get(dated)
    return {
        "id": name,
        "object": "model",
        "type": "base",
        "owned_by": "mistralai",
        "capabilities": BASE_MODELS[name],
        "aliases": [other for other in names if other != name],
        "deprecation": "2027-01-31T00:00:00Z" if replacement else None,
        "deprecation_replacement_model": replacement,
    }


def _card(model: StoredModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "type": "fine-tuned",
        "created": model.created,
        "owned_by": WORKSPACE,
        "capabilities": {"completion_chat": False, "classification": True},
        "name": model.name,
        "description": model.description,
        "job": model.job,
        "root": model.root,
        "archived": model.archived,
    }


def _fine_tuned(model: StoredModel) -> dict[str, Any]:
    return {
        **{key: value for key, value in _card(model).items() if key != "type"},
        "model_type": "classifier",
        "workspace_id": WORKSPACE,
        "root_version": "latest",
        "classifier_targets": model.targets,
    }
