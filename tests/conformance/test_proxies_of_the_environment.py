"""Both clients ask Mistral through the proxy that the environment names, and an emulator of this machine directly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from emulator_thread import EmulatorThread

from labelmill.contracts.errors import LabelmillError
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.ports import free_port
from labelmill_worker.mistral.hot import HotClient
from labelmill_worker.mistral.sdk import SdkControlPlane

ELSEWHERE = "http://mistral.invalid"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmulatorThread(EmulatorConfig(port=0)) as running:
        yield running.url


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def embed(url: str) -> int:
    async def once() -> int:
        client = HotClient(url, "any", timeout_s=5)
        try:
            return (await client.embed("mistral-embed", ["a text"]))[1]
        finally:
            await client.close()

    return asyncio.run(once())


def models(url: str) -> list[str]:
    control = SdkControlPlane("any", url, timeout_s=5, read_attempts=1)
    try:
        return [model.id for model in control.list_models()]
    finally:
        control.close()


def test_what_is_elsewhere_is_asked_through_the_proxy(url: str, proxy: pytest.MonkeyPatch) -> None:
    proxy.setenv("http_proxy", url)  # a server that takes whole addresses will do for one
    assert embed(ELSEWHERE) > 0
    assert models(ELSEWHERE)


def test_hosts_that_are_excepted_are_asked_directly(url: str, proxy: pytest.MonkeyPatch) -> None:
    proxy.setenv("http_proxy", url)
    proxy.setenv("no_proxy", "mistral.invalid")
    for ask in (embed, models):
        with pytest.raises(LabelmillError, match="cannot be reached"):
            ask(ELSEWHERE)


def test_an_emulator_of_this_machine_is_asked_directly(url: str, proxy: pytest.MonkeyPatch) -> None:
    proxy.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert embed(url) > 0
    assert models(url)
