"""Answers and refusals in Mistral's JSON."""

import datetime as dt
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

INVALID_MODEL = ("invalid_model", "1500")
INVALID_REQUEST = ("invalid_request_error", "3000")
PROMPT_TOO_LONG = ("invalid_request_prompt", "3051")
RATE_LIMITED = ("rate_limited", "1300")


class RefusedError(Exception):
    """A request is answered with an error: `status`, a JSON `body`, and `headers`."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Keep what to answer."""
        super().__init__(body)
        self.status, self.body, self.headers = status, body, headers or {}


def json_reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return body as a JSON response."""
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def refusal(
    status: int, message: str, kind: tuple[str, str] = INVALID_REQUEST, headers: dict[str, str] | None = None
) -> RefusedError:
    """Return the refusal with Mistral's error object."""
    name, code = kind
    body = {"object": "error", "message": message, "type": name, "param": None, "code": code, "raw_status_code": status}
    return RefusedError(status, body, headers)


def unprocessable(field: str, message: str, kind: str = "value_error") -> RefusedError:
    """Return the 422 that the SDK decodes as `HTTPValidationError`."""
    return RefusedError(422, {"detail": [{"type": kind, "loc": ["body", field], "msg": message}]})


def invalid_model(name: str, status: int = 404) -> RefusedError:
    """Return the refusal of a model that is not there, or that cannot do what is asked."""
    return refusal(status, f"Invalid model: {name}", INVALID_MODEL)


def timestamp(text: str | None) -> float | None:
    """Read a time in a query, as seconds since 1970, or refuse the request."""
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise unprocessable("created_after", "Input should be a valid datetime", "datetime_parsing") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


async def json_body(request: web.Request) -> dict[str, Any]:
    """Read the request's JSON object, or refuse it with 422."""
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise unprocessable("", "JSON decode error", "json_invalid") from error
    if not isinstance(body, dict):
        raise unprocessable("", "Input should be a valid dictionary", "dict_type")
    return body


@web.middleware
async def refusals_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer refusals, and aiohttp's own (unknown path, wrong method, body too large), as JSON."""
    try:
        return await handler(request)
    except RefusedError as refused:
        return json_reply(refused.body, refused.status, refused.headers)
    except web.HTTPException as error:
        return json_reply({"detail": error.reason}, error.status)
    except (ConnectionError, web.RequestPayloadError):
        # the client went before its body was read, as a worker's do that is killed: nobody reads the answer
        return json_reply({"detail": "the connection was closed"}, 400)
