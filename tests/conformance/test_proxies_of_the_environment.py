"""Both clients reach Mistral as the environment says: through its proxies, past those that it excepts, trusting its
authorities; and an emulator of this machine directly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from connect_proxy import ConnectProxy
from emulator_thread import EmulatorThread
from tls import Certificates, make_certificates, openssl_is_there, tls_in_front_of

from labelmill.contracts.errors import LabelmillError
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.ports import free_port
from labelmill_worker.inference.vectors import embedding_call
from labelmill_worker.mistral.client_config import UnusableConnection
from labelmill_worker.mistral.control_plane import SdkControlPlane
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.mistral.sdk_requests import SdkRequests

ELSEWHERE = "http://mistral.invalid"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmulatorThread(EmulatorConfig(port=0)) as running:
        yield running.url


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def embed(url: str) -> int:
    async def once() -> int:
        client = RealtimeInference(url, "any", timeout_s=20)
        try:
            return (await client.send(embedding_call("mistral-embed", ["a text"]))).tokens
        finally:
            await client.close()

    return asyncio.run(once())


def models(url: str) -> list[str]:
    control = SdkControlPlane(SdkRequests("any", url, timeout_s=20, read_attempts=1))
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


Ask = Callable[[str], object]
BOTH = pytest.mark.parametrize("ask", [embed, models])
PASSWORD = "p:a@ss/w%rd"
QUOTED = "p%3Aa%40ss%2Fw%25rd"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if not openssl_is_there():
        pytest.skip("there is no openssl to make certificates with")
    names = "DNS:mistral.invalid,DNS:localhost,IP:127.0.0.1"
    return make_certificates(tmp_path_factory.mktemp("certificates") / "made", names)


@pytest.fixture(scope="module")
def tls_port(url: str, certificates: Certificates) -> Iterator[int]:
    with tls_in_front_of(urlsplit(url).port or 0, certificates) as port:
        yield port


@BOTH
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("proxy_scheme", ["", "http://", "https://"])
def test_a_tunnel_with_credentials(
    ask: Ask, variable: str, proxy_scheme: str, tls_port: int, certificates: Certificates, proxy: pytest.MonkeyPatch
) -> None:
    proxy.setenv("SSL_CERT_FILE", str(certificates.ca))
    tls = certificates if proxy_scheme == "https://" else None
    with ConnectProxy(tls_port, credentials=f"user:{PASSWORD}", certificates=tls) as tunnel:
        proxy.setenv(variable, f"{proxy_scheme}user:{QUOTED}@localhost:{tunnel.port}")
        assert ask("https://mistral.invalid")
        assert tunnel.asked == ["mistral.invalid:443"]


@BOTH
def test_a_proxy_that_wants_other_credentials_is_named(
    ask: Ask, tls_port: int, certificates: Certificates, proxy: pytest.MonkeyPatch
) -> None:
    proxy.setenv("SSL_CERT_FILE", str(certificates.ca))
    with ConnectProxy(tls_port, credentials="user:right") as tunnel:
        proxy.setenv("HTTPS_PROXY", f"http://user:wrong@127.0.0.1:{tunnel.port}")
        with pytest.raises(UnusableConnection, match="the proxy refuses the worker's credentials") as refused:
            ask("https://mistral.invalid")
    assert "wrong" not in str(refused.value)


@BOTH
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_an_authority_of_ones_own(
    ask: Ask, variable: str, tls_port: int, certificates: Certificates, proxy: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ours.crt").write_text("made by hand\n" + certificates.ca.read_text())
    proxy.setenv(variable, str(tmp_path if variable == "SSL_CERT_DIR" else tmp_path / "ours.crt"))
    assert ask(f"https://localhost:{tls_port}")


@BOTH
def test_an_authority_that_nobody_knows_is_a_fault_of_the_worker(
    ask: Ask, tls_port: int, proxy: pytest.MonkeyPatch
) -> None:
    del proxy
    with pytest.raises(UnusableConnection, match="unknown authority; name that authority's PEM file in SSL_CERT_FILE"):
        ask(f"https://localhost:{tls_port}")


@BOTH
def test_what_cannot_work_is_refused_before_anything_is_asked(ask: Ask, proxy: pytest.MonkeyPatch) -> None:
    proxy.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:1")
    with pytest.raises(UnusableConnection, match="ALL_PROXY: SOCKS proxies are not supported") as refused:
        ask("https://mistral.invalid")
    assert "secret" not in str(refused.value)
