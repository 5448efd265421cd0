"""Bearer keys: any is accepted, unless one is required or it is refused."""

from hashlib import sha256

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.replies import RefusedError

MISTRAL_PATHS = "/v1/"


def owner_of(request: web.Request) -> str:
    """Who asks: a digest of the key."""
    return sha256(request.headers.get("Authorization", "").encode()).hexdigest()[:16]


def bearer_auth(config: EmulatorConfig) -> Middleware:
    """Return the middleware that answers 401 to requests without a good key; the control endpoint needs none."""

    @web.middleware
    async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(MISTRAL_PATHS):
            scheme, _, key = request.headers.get("Authorization", "").partition(" ")
            wrong = config.key is not None and key != config.key
            if scheme.lower() != "bearer" or not key.strip() or key in config.refused_keys or wrong:
                raise RefusedError(401, {"detail": "Unauthorized"})
        return await handler(request)

    return check_key
