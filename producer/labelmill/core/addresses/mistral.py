"""Mistral's address: every request to it carries the key."""

from __future__ import annotations

from urllib.parse import urlsplit

from labelmill.core.addresses.loopback import is_loopback


def read_mistral_url(url: str, *, allow_http: bool) -> str:
    """The address without a slash at its end. Raises ValueError unless it can be one, and when it is a plain `http://`
    address of another machine without `allow_http`."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of a bracket without another
        usable = False
    if not usable:
        raise ValueError("it is not an http:// or https:// address")
    if parts.scheme == "http" and not (allow_http or is_loopback(parts.hostname)):
        raise ValueError(
            "http:// would send the Mistral key through the network unencrypted; use https://, or set "
            "LABELMILL_ALLOW_HTTP=true where that network is trusted"
        )
    return url
