"""The database's address, converted from the forms that people and hosting providers write to SQLAlchemy's form."""

from __future__ import annotations

from labelmill.core.addresses.parts import location_of, parameters_of, query_of, split_url

_WRITE = "write sqlite:///file.db or postgresql://user:password@host:5432/name"
_POSTGRES = ("postgres", "postgresql")
_LIBPQ = """
    application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation
    gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname
    load_balance_hosts max_protocol_version min_protocol_version oauth_client_id oauth_client_secret oauth_issuer
    oauth_scope options passfile password port replication require_auth requirepeer scram_client_key
    scram_server_key service ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression
    sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert sslsni target_session_attrs
    tcp_user_timeout user
"""
#: The parameters that libpq knows; it refuses others, but only when it connects.
LIBPQ_PARAMETERS = frozenset(_LIBPQ.split())
#: Hosting providers add these for other clients and for their own consoles. They are ignored: none concerns the server.
_OF_OTHER_CLIENTS = {
    "connection_limit",
    "pgbouncer",
    "pool_timeout",
    "prepared_statement_cache_size",
    "statement_cache_size",
    "supa",
    "workaround",
}
#: As JDBC, asyncpg and Node write it; the last one means TLS without a check of the certificate.
_TRANSLATED = dict.fromkeys(
    [("ssl", "true"), ("ssl", "1"), ("ssl", "require"), ("sslmode", "no-verify")], ("sslmode", "require")
)
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def read_database_url(url: str) -> str:
    """`url` as SQLAlchemy reads it. Raises ValueError unless it is one of SQLite or PostgreSQL."""
    scheme, separator, rest = url.partition("://")
    backend = scheme.lower().partition("+")[0]
    if not separator or not backend.isalnum():
        raise ValueError(f"it is not a URL; {_WRITE}")
    if backend == "sqlite":
        return f"sqlite://{rest}"
    if backend not in _POSTGRES:
        raise ValueError(f"the database must be SQLite or PostgreSQL, not {backend}; {_WRITE}")
    parts = split_url(f"postgresql://{rest}")
    parameters = [_TRANSLATED.get(pair, pair) for pair in parameters_of(parts, _OF_OTHER_CLIENTS)]
    for name, value in parameters:
        if name not in LIBPQ_PARAMETERS:
            raise ValueError(f"its parameter {name!r} is not one that PostgreSQL's libpq knows")
        if name == "sslmode" and value not in _SSL_MODES:
            raise ValueError(f"its sslmode is not one of {', '.join(_SSL_MODES)}")
    return f"postgresql://{location_of(parts)}{parts.path}{query_of(parameters)}"
