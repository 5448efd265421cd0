"""Addresses as people, tools and hosting providers write them: read, or refused without showing a password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg.pq import Conninfo
from sqlalchemy import make_url

from labelmill.core.addresses.broker import celery_broker, read_broker_url, redis_arguments
from labelmill.core.addresses.database import LIBPQ_PARAMETERS, read_database_url
from labelmill.core.addresses.mistral import read_mistral_url
from labelmill.core.addresses.parts import hide_password
from labelmill.core.database import connect

SECRET = "hunter2"
CHECKED = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
UNCHECKED = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


@pytest.mark.parametrize(
    ("url", "canonical", "tls"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0", None),
        ("redis://red-c1:6379", "redis://red-c1:6379/0", None),
        ("redis://", "redis://127.0.0.1:6379/0", None),
        ("redis://[::1]:6380/2", "redis://[::1]:6380/2", None),
        ("redis://:p%40ss%2Fw@h/1", "redis://:p%40ss%2Fw@h:6379/1", None),
        ("redis://default:a;b,c@h:25061?db=3&family=0", "redis://default:a%3Bb%2Cc@h:25061/3", None),
        ("REDISS://user%40x:p%25w@h:6380", "rediss://user%40x:p%25w@h:6380/0", CHECKED),
        ("rediss://h?ssl_cert_reqs=required", "rediss://h:6379/0", CHECKED),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", "rediss://h:6379/0", CHECKED),
        ("rediss://h?ssl_cert_reqs=CERT_OPTIONAL", "rediss://h:6379/0", CHECKED | {"ssl_cert_reqs": "optional"}),
        ("rediss://h?ssl_cert_reqs=none", "rediss://h:6379/0", UNCHECKED),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "rediss://h:6379/0", UNCHECKED),
        ("rediss://h?ssl_cert_reqs=None", "rediss://h:6379/0", UNCHECKED),
        ("rediss://h?ssl_cert_reqs=ssl.CERT_REQUIRED", "rediss://h:6379/0", CHECKED),
        ("rediss://h?ssl_check_hostname=false", "rediss://h:6379/0", CHECKED | {"ssl_check_hostname": False}),
    ],
)
def test_redis_addresses_are_understood_alike_by_every_client(
    url: str, canonical: str, tls: dict[str, Any] | None
) -> None:
    assert redis_arguments(url) == {"url": canonical, **(tls or {})}
    assert celery_broker(url) == {"broker_url": canonical, "broker_use_ssl": tls}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sentinel://h:26379", "sentinel:// is not supported"),
        ("redis+socket:///run/redis.sock", "redis\\+socket:// is not supported"),
        ("unix:///run/redis.sock", "unix:// is not supported"),
        ("amqp://guest:hunter2@h", "amqp:// is not supported"),
        ("h:6380,password=hunter2,ssl=True", "not a URL"),
        ("hunter2@redis://h", "not a Redis URL"),
        ("redis://:hun/ter2@h:6379", "percent-encoded"),
        ("redis://u:hunter2?x=1@h", "percent-encoded"),
        ("redis://u:hunter2#a@h", "percent-encoded"),
        ("redis://u:hunter2@h:70000", "host or port"),
        ("redis://u:hunter2@h:0", "port 0"),
        ("redis://u:hunter2@[h", "host or port"),
        ("redis://u:hunter2@h/jobs", "database is not a number"),
        ("redis://u:hunter2@h/-1", "database is not a number"),
        ("redis://u:hunter2@h?tls=true", "parameter 'tls' is not known"),
        ("redis://u:hunter2@h?ssl_cert_reqs=required", "write rediss://"),
        ("rediss://u:hunter2@h?ssl_cert_reqs=maybe", "ssl_cert_reqs is one of"),
        ("rediss://u:hunter2@h?ssl_check_hostname=maybe", "ssl_check_hostname is true or false"),
        ("rediss://u:hunter2@h?ssl_ca_certs=missing.pem", "missing.pem: No such file"),
        ("rediss://u:hunter2@h?ssl_ca_certs=broken.pem", "holds no certificates in PEM"),
        ("rediss://u:hunter2@h?ssl_keyfile=broken.pem", "ssl_keyfile needs ssl_certfile"),
        ("rediss://u:hunter2@h?ssl_certfile=broken.pem", "not a certificate and its key"),
    ],
)
def test_other_brokers_are_refused_in_a_sentence_that_says_why(url: str, why: str) -> None:
    Path("broken.pem").write_text("no certificate")
    with pytest.raises(ValueError, match=why) as refused:
        read_broker_url(url)
    assert not {SECRET, "ter2"} & set(str(refused.value).replace("'", " ").split())
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("postgres://u:p@h:5432/db", "postgresql://u:p@h:5432/db"),
        (
            "postgresql://u:p@h/db?sslmode=require&channel_binding=require",
            "postgresql://u:p@h/db?sslmode=require&channel_binding=require",
        ),
        ("postgresql+psycopg2://u:p@h/db", "postgresql://u:p@h/db"),
        ("postgresql+asyncpg://u:p@h/db?ssl=require", "postgresql://u:p@h/db?sslmode=require"),
        ("postgres://u:p@h/db?sslmode=no-verify", "postgresql://u:p@h/db?sslmode=require"),
        (
            "postgres://u:p@h:6543/db?sslmode=require&supa=base-pooler.x&pgbouncer=true",
            "postgresql://u:p@h:6543/db?sslmode=require",
        ),
        ("postgres://u:p@h/db?options=endpoint%3Dep-cool", "postgresql://u:p@h/db?options=endpoint%3Dep-cool"),
        ("postgres://u.ref:p%40w%2F%23@h/db", "postgresql://u.ref:p%40w%2F%23@h/db"),
        ("postgres://u:p@w@h/db", "postgresql://u:p%40w@h/db"),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///db?host=%2Frun%2Fpostgresql"),
        ("postgresql://u@/db?host=a:5432&host=b:5432", "postgresql://u@/db?host=a%3A5432&host=b%3A5432"),
        ("sqlite:///jobs.db", "sqlite:///jobs.db"),
        ("sqlite:////data/with blank/jobs.db", "sqlite:////data/with blank/jobs.db"),
        ("sqlite+pysqlite:///jobs.db", "sqlite:///jobs.db"),
    ],
)
def test_database_addresses_are_read_as_providers_print_them(url: str, read: str) -> None:
    assert read_database_url(url) == read
    assert read_database_url(read) == read
    assert connect(read).url.database == make_url(read).database


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://u:hunter2@h/db", "SQLite or PostgreSQL, not mysql"),
        ("u:hunter2@h/db", "not a URL"),
        ("jobs.db", "not a URL"),
        ("postgres://u:hun/ter2@h/db", "percent-encoded"),
        ("postgres://u:hunter2@h:port/db", "host or port"),
        ("postgres://u:hunter2#x@h/db", "percent-encoded"),
        ("postgres://u:hunter2@h/db?schema=public", "parameter 'schema' is not one that"),
        ("postgres://u:hunter2@h/db?sslmode=on", "sslmode is not one of"),
        ("prisma+postgres://h/?api_key=hunter2", "not a URL|not prisma"),
    ],
)
def test_other_databases_are_refused_in_a_sentence_that_says_why(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        read_database_url(url)
    assert SECRET not in str(refused.value)
    assert "ter2" not in str(refused.value)


def test_every_parameter_of_the_installed_libpq_is_known() -> None:
    assert {option.keyword.decode() for option in Conninfo.get_defaults()} <= LIBPQ_PARAMETERS


@pytest.mark.parametrize("url", ["http://10.0.0.5:8000", "http://mistral.internal", "http://[2001:db8::1]/"])
def test_plain_http_to_another_machine_must_be_allowed(url: str) -> None:
    with pytest.raises(ValueError, match="LABELMILL_ALLOW_HTTP=true"):
        read_mistral_url(url, allow_http=False)
    assert read_mistral_url(url, allow_http=True) == url.rstrip("/")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:8377", "http://[::1]:1", "https://proxy.org"])
def test_loopback_and_https_need_no_leave(url: str) -> None:
    assert read_mistral_url(url, allow_http=False) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@h:1/0", "redis://:***@h:1/0"),
        ("rediss://u:hunter2@h?ssl_cert_reqs=none", "rediss://u:***@h?ssl_cert_reqs=none"),
        ("redis://u:hun/te@r2@h", "redis://u:***@h"),
        ("postgresql://u:hunter2@h/db", "postgresql://u:***@h/db"),
        ("postgresql://h/db?user=u&password=hunter2", "postgresql://h/db?user=u&password=***"),
        ("sqlite:///jobs.db", "sqlite:///jobs.db"),
        ("https://api.mistral.ai", "https://api.mistral.ai"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_shown_address_has_no_password(url: str, shown: str) -> None:
    assert hide_password(url) == shown
