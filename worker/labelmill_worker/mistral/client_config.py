"""How Mistral is reached: one configuration for the calls that carry texts and for the control plane, read from the
environment once and checked at the start of a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from labelmill.contracts.errors import InvalidInput, WorkerUnable
from labelmill.core.settings import Settings
from labelmill_worker.mistral.certificates import Authorities, read_authorities
from labelmill_worker.mistral.proxies import Proxy, proxy_for

_CONNECT_S = 10.0


class UnusableConnection(InvalidInput, WorkerUnable):
    """This worker cannot reach Mistral as its environment says: another one may."""

    is_about_mistral = True


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What both HTTP clients are made with. Neither reads the environment itself."""

    proxy: Proxy | None
    authorities: Authorities
    timeout_s: float  #: Of a whole request.
    connect_timeout_s: float
    user_agent: str


def read_client_config(url: str, timeout_s: float, environment: Mapping[str, str] | None = None) -> ClientConfig:
    """For requests to Mistral at `url`. Raises UnusableConnection, naming the variable that is wrong."""
    environment = os.environ if environment is None else environment
    try:
        proxy = proxy_for(url, environment)
        is_tls = url.startswith("https:") or (proxy is not None and proxy.url.startswith("https:"))
        authorities = read_authorities(environment) if is_tls else Authorities()
    except ValueError as error:
        raise UnusableConnection(f"the environment variable {error}") from error
    return ClientConfig(proxy, authorities, timeout_s, min(_CONNECT_S, timeout_s), f"labelmill/{version('labelmill')}")


def unknown_authority(words: str) -> UnusableConnection:
    """Mistral's certificate, or a proxy's, is of an authority that this machine does not know."""
    return UnusableConnection(
        "the certificate of Mistral, or of a proxy on the way, comes from an unknown authority; name that authority's "
        f"PEM file in SSL_CERT_FILE in the worker's environment ({words[:200]})"
    )


def proxy_refuses_credentials() -> UnusableConnection:
    """The proxy refuses the credentials."""
    return UnusableConnection(
        "the proxy refuses the worker's credentials (407); write them as http://user:password@host:port in HTTPS_PROXY"
    )


def check_connection_at_start(settings: Settings) -> None:
    """End a worker whose environment allows no connection to Mistral, with one sentence."""
    try:
        read_client_config(settings.mistral_url, settings.request_timeout_s)
    except UnusableConnection as error:
        sys.stderr.write(f"error: {error.message}\n")
        raise SystemExit(error.exit_code) from error
