"""Redis' address: parsed once here, then passed to Celery, redis-py and Flower in the form that each understands.

`redis://` speaks plain text, `rediss://` TLS. Certificates and host names are checked unless the URL says otherwise:

    rediss://user:password@host:6380/0?ssl_ca_certs=/etc/ssl/redis-ca.pem
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from labelmill.core.addresses.parts import location, parameters_of, split_url

_DEFAULT_PORT = 6379
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = ("ssl_cert_reqs", "ssl_check_hostname", *_FILES)
#: Tuning parameters of other clients. They are ignored: Labelmill sets its own values, and none of them changes the
#: server or the security of the connection.
_OF_OTHER_CLIENTS = {
    "client_name",
    "family",
    "health_check_interval",
    "max_connections",
    "protocol",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
}
_CERTIFICATES = ("required", "optional", "none")
_YES, _NO = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}


@dataclass(frozen=True)
class BrokerAddress:
    """Redis' host, port and database, the credentials, and the TLS settings."""

    host: str
    port: int
    database: int
    username: str | None
    password: str | None = field(repr=False)
    tls: Mapping[str, Any] | None  #: redis-py's `ssl_…` arguments; None: plain text.

    @property
    def url(self) -> str:
        """The URL without parameters: clients read those in different ways, so they are handed over as arguments."""
        where = location(username=self.username, password=self.password, host=self.host, port=self.port)
        return f"{'redis' if self.tls is None else 'rediss'}://{where}/{self.database}"


def read_broker_url(url: str) -> BrokerAddress:
    """Read a `redis://` or `rediss://` URL. Raises ValueError."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ValueError("it is not a URL; write redis://host:6379/0 or rediss://host:6380/0")
    if scheme.lower() not in ("redis", "rediss"):
        raise ValueError(
            f"{scheme}:// is not supported; Labelmill speaks to one Redis server: write redis://host:6379/0, or "
            "rediss://host:6380/0 for TLS"
            if scheme.replace("+", "").isalnum()
            else "it is not a Redis URL; write redis://host:6379/0 or rediss://host:6380/0"
        )
    parts = split_url(url)
    parameters = dict(parameters_of(parts, _OF_OTHER_CLIENTS))
    database = parameters.pop("db", "") or parts.path.strip("/") or "0"
    if not database.isascii() or not database.isdecimal():
        raise ValueError("its database is not a number; write redis://host:6379/0")
    for name in parameters:
        if name not in _TLS:
            raise ValueError(f"its parameter {name!r} is not known; known are db, {', '.join(_TLS)}")
    is_tls = parts.scheme == "rediss"
    if parameters and not is_tls:
        raise ValueError(f"{next(iter(parameters))} is for TLS: write rediss:// in place of redis://")
    return BrokerAddress(
        host=unquote(parts.hostname or "127.0.0.1"),
        port=parts.port or _DEFAULT_PORT,
        database=int(database),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=_read_tls(parameters) if is_tls else None,
    )


def redis_arguments(url: str) -> dict[str, Any]:
    """Arguments for redis-py's `Redis.from_url`, synchronous or not. Raises ValueError."""
    address = read_broker_url(url)
    return {"url": address.url, **(address.tls or {})}


def celery_broker(url: str) -> dict[str, Any]:
    """Celery's settings for this Redis; Flower reads the same. Raises ValueError."""
    address = read_broker_url(url)
    # without `broker_use_ssl` Celery speaks TLS to a rediss:// URL and checks no certificate
    return {"broker_url": address.url, "broker_use_ssl": dict(address.tls) if address.tls is not None else None}


def _read_tls(parameters: Mapping[str, str]) -> dict[str, Any]:
    certificates = _certificates(parameters.get("ssl_cert_reqs", "required"))
    checks_name = parameters.get("ssl_check_hostname", "true").lower()
    if checks_name not in _YES | _NO:
        raise ValueError("ssl_check_hostname is true or false")
    files = {name: parameters[name] for name in _FILES if parameters.get(name)}
    for name, file in files.items():
        try:
            with Path(file).open("rb"):
                pass
        except OSError as error:
            raise ValueError(f"the file that {name} names cannot be read: {file}: {error.strerror}") from error
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    if files:
        _load(files)
    return {
        "ssl_cert_reqs": certificates,
        "ssl_check_hostname": certificates != "none" and checks_name in _YES,
        **files,
    }


def _certificates(value: str) -> str:
    # redis-py writes `required`, Celery `CERT_REQUIRED`, and people copy `ssl.CERT_REQUIRED` from Python
    word = value.lower().removeprefix("ssl.").removeprefix("cert_")
    if word not in _CERTIFICATES:
        raise ValueError("ssl_cert_reqs is one of required, optional and none")
    return word


def _load(files: Mapping[str, str]) -> None:
    import ssl  # noqa: PLC0415 - most addresses need none

    context = ssl.create_default_context()
    try:
        if "ssl_ca_certs" in files:
            context.load_verify_locations(files["ssl_ca_certs"])
    except ssl.SSLError:
        raise ValueError("the file that ssl_ca_certs names holds no certificates in PEM") from None
    try:
        if "ssl_certfile" in files:
            context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"), password="")
    except (ssl.SSLError, ValueError):
        raise ValueError("ssl_certfile and ssl_keyfile are not a certificate and its key in PEM") from None
