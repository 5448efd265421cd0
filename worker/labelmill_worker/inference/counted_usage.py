"""What a call is taken to have used where the server does not say: it reports no usage, or never answered. Pure."""

from __future__ import annotations

from labelmill.contracts.usage import Usage
from labelmill.core.money.token_counts import BYTES_PER_TOKEN
from labelmill_worker.inference.planning import Request
from labelmill_worker.ports.inference import Call, Endpoint


def counted_usage(call: Call, request: Request, mode: str = "realtime", held: int = 0) -> Usage:
    """An estimate that errs on the high side: a chat model is taken to have written all that it was allowed to."""
    # all texts in one piece: a look at each of them would take as long as cutting them into requests
    size = len("".join(request.texts).encode("utf-8", "surrogatepass"))
    tokens, written = size // BYTES_PER_TOKEN + 2 * len(request), 0
    if call.endpoint is Endpoint.CHAT_COMPLETIONS:
        tokens += request.overhead_tokens * len(request) + request.shared_tokens
        written = int(call.body.get("max_tokens") or 0)
    return Usage(call.model, tokens, written, is_estimated=True, mode=mode, held=held)
