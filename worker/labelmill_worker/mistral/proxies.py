"""Which proxy leads to a host, by the variables that every HTTP client knows.

`HTTPS_PROXY` or `HTTP_PROXY` by the address's scheme, else `ALL_PROXY`; `NO_PROXY` excepts names with all below them,
addresses and ranges of addresses, each with a port or without. A name in small letters comes first. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from labelmill.core.addresses.loopback import is_loopback

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: its address without credentials, and those."""

    url: str
    user: str | None = None
    password: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"


def proxy_for(url: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy to ask for `url`; None: there is none. Raises ValueError, naming the variable and never its value."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS.get(parts.scheme, 0)
    if is_loopback(host) or _is_excepted(host, port, _value_of(environment, "NO_PROXY")[1]):
        return None
    for name in (f"{parts.scheme.upper()}_PROXY", "ALL_PROXY"):
        name, value = _value_of(environment, name)  # noqa: PLW2901 - as it is spelled
        if value:
            try:
                return _read_proxy(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None  # the cause may show a password
    return None


def _value_of(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    """The spelling that is set, and its value; an empty one counts as not set."""
    for spelled in (name.lower(), name):
        if value := environment.get(spelled, "").strip():
            return spelled, value
    return name, ""


def _read_proxy(value: str) -> Proxy:
    value = value if "://" in value else f"http://{value}"
    scheme = value.partition("://")[0].lower()
    if scheme.startswith("socks"):
        raise ValueError(
            "SOCKS proxies are not supported; name an http:// or https:// proxy, or except Mistral's host by NO_PROXY"
        )
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if scheme not in _PORTS or not host or port == 0 or re.search(r"[\s\\]", host) or parts.path not in ("", "/"):
        raise ValueError("it is not the address of a proxy, such as http://user:password@proxy.example:3128")
    shown = f"[{host}]" if ":" in host else host
    address = f"{scheme}://{shown}:{port or _PORTS[scheme]}"
    if parts.username is None:
        return Proxy(address)
    return Proxy(address, unquote(parts.username), unquote(parts.password or ""))


def _is_excepted(host: str, port: int, listed: str) -> bool:
    return any(
        _matches(host.rstrip(".").lower(), port, entry.lower()) for entry in re.split(r"[,\s]+", listed) if entry
    )


def _matches(host: str, port: int, entry: str) -> bool:
    if entry == "*":
        return True
    address = _address_of(host)
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        return address is not None and address in network
    named, _, its_port = entry.rpartition(":")
    if named and its_port.isdigit():
        return int(its_port) == port and _matches(host, port, named)
    name = entry.removeprefix("*").lstrip(".").rstrip(".")
    return bool(name) and (host == name or (address is None and host.endswith(f".{name}")))


def _address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
