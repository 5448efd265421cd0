"""Limits of models in the emulator, as Mistral has them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from emulator_thread import EmulatorThread

from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.limit_option import ModelLimit, parse_limit
from labelmill_ops.emulator.model_limits import WINDOW_S, ModelWindows
from labelmill_ops.emulator.replies import RefusedError

KEY = {"Authorization": "Bearer any"}
EMBED = {"model": "mistral-embed", "input": ["a text"]}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    limits = {"mistral-embed": ModelLimit(2, 1000, 5000), "ministral-8b-latest": ModelLimit(0)}
    with EmulatorThread(EmulatorConfig(port=0, model_limits=limits)) as emulator:
        yield emulator.url


def test_each_answer_tells_limits_and_what_is_left_and_a_429_comes_without_retry_after(url: str) -> None:
    first, _, refused = (httpx2.post(f"{url}/v1/embeddings", headers=KEY, json=EMBED) for _ in range(3))
    tokens = first.json()["usage"]["total_tokens"]
    assert first.headers["x-ratelimit-limit-req-minute"] == "2"
    assert first.headers["x-ratelimit-remaining-req-minute"] == "1"
    assert first.headers["x-ratelimit-remaining-tokens-minute"] == str(1000 - tokens)
    assert first.headers["x-ratelimit-remaining-tokens-month"] == str(5000 - tokens)
    assert first.headers["x-ratelimit-tokens-query-cost"] == str(tokens)
    assert refused.status_code == 429
    assert refused.headers["x-ratelimit-remaining-req-minute"] == "0"
    assert "retry-after" not in refused.headers
    assert refused.json()["code"] == "1300"


def test_a_limit_of_0_refuses_everything(url: str) -> None:
    body = {"model": "ministral-8b-latest", "messages": [{"role": "user", "content": "hello"}]}
    refused = httpx2.post(f"{url}/v1/chat/completions", headers=KEY, json=body)
    assert (refused.status_code, refused.headers["x-ratelimit-limit-req-minute"]) == (429, "0")


def test_the_window_slides() -> None:
    now = 0.0
    windows = ModelWindows({"*": ModelLimit(2)}, clock=lambda: now)
    windows.admit("m")
    now = 30.0
    windows.admit("m")
    now = WINDOW_S - 0.1
    with pytest.raises(RefusedError):
        windows.admit("m")
    now = WINDOW_S
    windows.admit("m")
    with pytest.raises(RefusedError):
        windows.admit("m")


def test_limits_are_written_by_model() -> None:
    assert parse_limit("mistral-embed=60/1000000") == ("mistral-embed", ModelLimit(60, 1_000_000))
    assert parse_limit("*=-/20/900") == ("*", ModelLimit(None, 20, 900))
    for wrong in ("mistral-embed", "=3", "m=many", "m=1/2/3/4", "m="):
        with pytest.raises(ValueError, match="is not MODEL=REQUESTS"):
            parse_limit(wrong)
