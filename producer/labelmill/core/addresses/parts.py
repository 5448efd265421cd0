"""Shared by the readers of addresses: splitting a URL, building one, and hiding its password."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

_SPECIAL = "write special characters of a user name or password percent-encoded (@ as %40, / as %2F, # as %23)"
_HIDDEN = "***"
_SECRET_PARAMETERS = {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}


def split_url(url: str) -> SplitResult:
    """The parts of `url`. Raises ValueError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its message quotes the supposed port, which may be a part of a password
        raise ValueError(f"its host or port cannot be read; {_SPECIAL}") from None
    if parts.fragment or any("@" in part for part in (parts.path, parts.query)):
        raise ValueError(f"it cannot be read; {_SPECIAL}")
    if port == 0:
        raise ValueError("no server listens on port 0")
    return parts


def location(*, username: str | None, password: str | None, host: str | None, port: int | None) -> str:
    """The part of a URL between `//` and the path, from decoded parts."""
    userinfo = quote(username or "", safe="") + (f":{quote(password, safe='')}" if password else "")
    where = f"[{host}]" if host and ":" in host else host or ""
    return f"{f'{userinfo}@' if userinfo else ''}{where}{f':{port}' if port else ''}"


def location_of(parts: SplitResult) -> str:
    """As `location`, of a URL whose parts may be encoded in another way."""
    username, password = (unquote(part) if part else None for part in (parts.username, parts.password))
    return location(username=username, password=password, host=parts.hostname, port=parts.port)


def parameters_of(parts: SplitResult, ignored: Iterable[str]) -> list[tuple[str, str]]:
    """The parameters behind the question mark, but for the ignored ones; a name may come more than once."""
    return [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in ignored]


def query_of(parameters: Iterable[tuple[str, str]]) -> str:
    """`parameters` as the query part of a URL."""
    query = urlencode(list(parameters), quote_via=quote)
    return f"?{query}" if query else ""


def hide_password(url: str) -> str:
    """`url` without its password, for display; works for malformed URLs too."""
    scheme, separator, rest = url.partition("://")
    userinfo, at, where = rest.rpartition("@")  # the last one: an unencoded one belongs to the password
    user, colon, _ = userinfo.partition(":")
    where, question_mark, query = where.partition("?")
    shown = "&".join(
        f"{name}={_HIDDEN}" if name in _SECRET_PARAMETERS else f"{name}{equals}{value}"
        for name, equals, value in (parameter.partition("=") for parameter in query.split("&"))
    )
    return f"{scheme}{separator}{user}{colon and f':{_HIDDEN}'}{at}{where}{question_mark}{shown}"
