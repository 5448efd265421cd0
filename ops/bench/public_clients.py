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
from pathlib import Path

_CONCURRENCY = 100
_QUESTION = "Which label fits this text? Answer in JSON. "


def flexllm(prompts: list[str], server: str) -> int:
    """Returns the number of answers."""
    from flexllm import LLMClient  # type: ignore[import-not-found]  # noqa: PLC0415 - in an environment of its own

    client = LLMClient(
        provider="openai", base_url=f"{server}/v1", api_key="bench", model="bench", concurrency_limit=_CONCURRENCY
    )
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    answers = asyncio.run(client.chat_completions_batch(messages, show_progress=False))
    return sum(isinstance(answer, str) and "label" in answer for answer in answers)


def curator(prompts: list[str], server: str) -> int:
    """Returns the number of answers."""
    folder = tempfile.mkdtemp(prefix="curator-")
    os.environ |= {
        "CURATOR_CACHE_DIR": folder, "CURATOR_DISABLE_CACHE": "1", "TELEMETRY_ENABLED": "0", "CURATOR_VIEWER": "0",
        "OPENAI_API_KEY": "bench", "CURATOR_DISABLE_RICH_DISPLAY": "1", "HF_HOME": folder,
    }  # fmt: skip
    from bespokelabs.curator import LLM  # type: ignore[import-not-found]  # noqa: PLC0415 - as above

    parameters = {
        "base_url": f"{server}/v1", "max_requests_per_minute": 10_000_000, "max_tokens_per_minute": 10_000_000_000,
        "max_concurrent_requests": _CONCURRENCY,
    }  # fmt: skip
    found = LLM(model_name="gpt-4o-mini", backend="openai", backend_params=parameters)(prompts)
    return len(getattr(found, "dataset", found))


def main() -> None:
    """Run by its arguments and print what it took."""
    name, file, server = sys.argv[1:]
    acts: dict[str, Callable[[list[str], str], int]] = {"flexllm": flexllm, "curator": curator}
    prompts = [_QUESTION + json.loads(line)["text"] for line in Path(file).read_text().splitlines()]
    start = time.perf_counter()
    rows = acts[name](prompts, server)
    print(json.dumps({"seconds": time.perf_counter() - start, "rows": rows}))


if __name__ == "__main__":
    main()
