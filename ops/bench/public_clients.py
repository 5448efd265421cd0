"""The best public clients for bulk calls, doing what they are made for: one chat request a text, 100 at a time.

    FLEXLLM/bin/python ops/bench/public_clients.py flexllm rows.jsonl http://127.0.0.1:9000
    CURATOR/bin/python ops/bench/public_clients.py curator rows.jsonl http://127.0.0.1:9000

Each runs in an environment of its own, where nothing of Labelmill is. Prints one JSON line: seconds from the first call
of the library to the last answer in hand, and how many answers there are.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

_CONCURRENCY = 100
_QUESTION = "Which label fits this text? Answer in JSON. "


def flexllm(prompts: list[str], server: str) -> tuple[int, float]:
    """Returns the number of answers, and after how many seconds they were there."""
    from flexllm import LLMClient  # type: ignore[import-not-found]  # noqa: PLC0415 - in an environment of its own

    start = time.perf_counter()
    client = LLMClient(
        provider="openai", base_url=f"{server}/v1", api_key="bench", model="bench", concurrency_limit=_CONCURRENCY
    )
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    answers = asyncio.run(client.chat_completions_batch(messages, show_progress=False))
    seconds = time.perf_counter() - start
    return sum(isinstance(answer, str) and "label" in answer for answer in answers), seconds


def curator(prompts: list[str], server: str) -> tuple[int, float]:
    """Returns the number of answers, and after how many seconds they were there."""
    folder = tempfile.mkdtemp(prefix="curator-")
    # it counts tokens by a table that it would fetch from elsewhere; a package that it needs brings the table along
    litellm = find_spec("litellm")
    tables = Path(litellm.origin or "").parent / "litellm_core_utils" / "tokenizers" if litellm else Path()
    os.environ |= {
        "CURATOR_CACHE_DIR": folder,
        "CURATOR_DISABLE_CACHE": "1",
        "TELEMETRY_ENABLED": "0",
        "CURATOR_VIEWER": "0",
        "OPENAI_API_KEY": "bench",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "HF_HOME": folder,
        "TIKTOKEN_CACHE_DIR": str(tables),
    }
    from bespokelabs.curator import LLM  # type: ignore[import-not-found]  # noqa: PLC0415 - as above

    start = time.perf_counter()
    parameters = {
        "base_url": f"{server}/v1",
        "max_requests_per_minute": 10_000_000,
        "max_tokens_per_minute": 10_000_000_000,
        "max_concurrent_requests": _CONCURRENCY,
    }
    found = LLM(model_name="gpt-4o-mini", backend="openai", backend_params=parameters)(prompts)
    seconds = time.perf_counter() - start
    return sum("label" in str(row) for row in getattr(found, "dataset", found)), seconds


def main() -> None:
    """Run by its arguments and print what it took."""
    name, file, server = sys.argv[1:]
    acts: dict[str, Callable[[list[str], str], tuple[int, float]]] = {"flexllm": flexllm, "curator": curator}
    prompts = [_QUESTION + json.loads(line)["text"] for line in Path(file).read_text().splitlines()]
    rows, seconds = acts[name](prompts, server)
    print(json.dumps({"seconds": seconds, "rows": rows}))


if __name__ == "__main__":
    main()
