"""`/v1/files`: upload, list, retrieve, download, delete."""

import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web

from labelmill_ops.emulator.auth import owner_of
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.replies import json_reply, refusal, unprocessable
from labelmill_ops.emulator.stats import STATS
from labelmill_ops.emulator.store import STORE, StoredFile

_PURPOSES = ("fine-tune", "batch", "ocr")
_VISIBILITIES = ("workspace", "user")
_CHUNK_BYTES = 1 << 20


def file_routes(config: EmulatorConfig) -> list[web.RouteDef]:
    """Return the routes of files."""

    async def upload(request: web.Request) -> web.Response:
        form = await _read_form(request, config.max_file_bytes)
        if form.filename is None:
            raise unprocessable("file", "Field required", "missing")
        purpose = form.fields.get("purpose") or "fine-tune"
        if purpose not in _PURPOSES:
            raise unprocessable("purpose", f"Input should be one of {', '.join(_PURPOSES)}", "enum")
        visibility = form.fields.get("visibility") or "workspace"
        if visibility not in _VISIBILITIES:
            raise unprocessable("visibility", f"Input should be one of {', '.join(_VISIBILITIES)}", "enum")
        request.app[STATS].files += 1
        file = request.app[STORE].add_file(
            form.filename,
            purpose,
            form.content,
            visibility=visibility,
            owner=owner_of(request),
            sample_type="batch_request" if purpose == "batch" else "instruct",
            expires_at=_expiry(form.fields.get("expiry")),
        )
        return json_reply(_described(file))

    return [
        web.post("/v1/files", upload),
        web.get("/v1/files", _list_files),
        web.get("/v1/files/{file_id}", _retrieve),
        web.get("/v1/files/{file_id}/content", _download),
        web.delete("/v1/files/{file_id}", _delete),
    ]


@dataclass
class _Form:
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    content: bytes = b""


async def _read_form(request: web.Request, max_file_bytes: int) -> _Form:
    form = _Form()
    if not request.content_type.startswith("multipart/"):
        return form
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        if part.name == "file":
            form.filename, form.content = part.filename or "upload", await _content(part, max_file_bytes)
        elif part.name:
            form.fields[part.name] = await part.text()
    return form


async def _content(part: BodyPartReader, max_bytes: int) -> bytes:
    received = bytearray()
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        received += chunk
        if len(received) > max_bytes:
            raise refusal(413, f"The file is larger than {max_bytes} bytes")
    return bytes(received)


def _expiry(hours: str | None) -> int | None:
    if not hours:
        return None
    if not hours.isdecimal() or int(hours) < 1:
        raise unprocessable("expiry", "Input should be a valid integer of at least 1", "int_parsing")
    return int(time.time()) + 3600 * int(hours)


async def _list_files(request: web.Request) -> web.Response:
    page, size = page_of(request)
    request.app[STORE].drop_expired_files()
    purpose, search = request.query.get("purpose"), request.query.get("search", "")
    files = [
        file
        for file in reversed(request.app[STORE].files.values())
        if _may_read(request, file) and purpose in (None, file.purpose) and search in file.filename
    ]
    shown = files[page * size : (page + 1) * size]
    return json_reply({"data": [_described(file) for file in shown], "object": "list", "total": len(files)})


async def _retrieve(request: web.Request) -> web.Response:
    return json_reply({**_described(_found(request)), "deleted": False})


async def _download(request: web.Request) -> web.Response:
    file = _found(request)
    content = request.app[STORE].content_of(file.id)
    return web.Response(body=content, content_type="application/octet-stream")


async def _delete(request: web.Request) -> web.Response:
    file = _found(request)
    request.app[STORE].delete_file(file.id)
    return json_reply({"id": file.id, "object": "file", "deleted": True})


def page_of(request: web.Request) -> tuple[int, int]:
    """Return the page asked for and its size, or refuse the request."""
    try:
        page, size = int(request.query.get("page", "0")), int(request.query.get("page_size", "100"))
    except ValueError as error:
        raise unprocessable("page", "Input should be a valid integer", "int_parsing") from error
    if page < 0 or size < 1:
        raise unprocessable("page", "Input should be greater than or equal to 0", "greater_than_equal")
    return page, size


def _found(request: web.Request) -> StoredFile:
    return readable_file(request, request.match_info["file_id"])


def readable_file(request: web.Request, file_id: str) -> StoredFile:
    """Return a file that who asks may read, or refuse the request."""
    store = request.app[STORE]
    store.drop_expired_files()
    file = store.files.get(file_id)
    if file is None or not _may_read(request, file):
        raise refusal(404, f"No file matches the given query: {file_id}")
    return file


def _may_read(request: web.Request, file: StoredFile) -> bool:
    return file.visibility != "user" or file.owner == owner_of(request)


def _described(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "sample_type": file.sample_type,
        "num_lines": file.num_lines,
        "mimetype": file.mimetype,
        "source": file.source,
        "signature": file.signature,
        "visibility": file.visibility,
        "expires_at": file.expires_at,
    }
