"""Services that tests run against: a real Redis, SQLite, and PostgreSQL where its programs are found.

A missing service skips the tests that need it on a user's machine; with CI=true it fails them.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hypothesis
import pytest
from compiled_statements import share_compiled_statements
from modules_at_once import ModulesAtOnce
from pgbouncer import PgBouncer, find_pgbouncer
from postgres_databases import PostgresDatabases, create_database
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BrokerUnavailable, DatabaseUnavailable
from labelmill.core.database import connect, upgrade
from labelmill_ops.embedded_postgres import EmbeddedPostgres
from labelmill_ops.embedded_redis import EmbeddedRedis

if TYPE_CHECKING:
    from s3_server import S3Server
    from xdist.remote import Producer

_TEMPLATE = "labelmill_template"
_KEYS = {"MISTRAL_API_KEY", "WANDB_API_KEY"}

# Imports and collection make much and drop nothing: `pytest_collection_finish` ends this.
gc.disable()

# Each process of pytest, and each that a test starts, would have a BLAS thread for every core. On a busy machine these
# wait for each other: a fit of 1 s took 45 s. The processes of pytest-xdist start after this line.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# an example that takes long says that the machine is busy
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")

share_compiled_statements()


def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: a process that waits for a worker or a clock leaves its core to another."""
    return (os.cpu_count() or 1) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ModulesAtOnce:
    config.option.loadscopereorder = False  # it would start with the modules that have the most tests
    return ModulesAtOnce(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: to look through it again and again took a seventh of the CPU time."""
    gc.freeze()
    gc.enable()


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's keys, addresses, `.env` and running stack are not the tests' to use."""
    for name in list(os.environ):
        if name.startswith(("LABELMILL_", "FLOWER_", "CELERY_", "AWS_")) or name in {
            "MISTRAL_API_KEY",
            "WANDB_API_KEY",
        }:
            monkeypatch.delenv(name)
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this test process, shared by its tests: use queues and keys of your own, or flush it."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
    except BrokerUnavailable as error:
        _missing(error.message)
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def s3_of_this_process() -> Iterator[S3Server]:
    """A server of S3's protocol in this test process."""
    from s3_server import S3Server  # noqa: PLC0415 - takes seconds to import

    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3_server(s3_of_this_process: S3Server) -> S3Server:
    """The same, with an empty bucket."""
    s3_of_this_process.empty()
    return s3_of_this_process


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this test process, with a template that holds the migrated tables."""
    server = EmbeddedPostgres()
    try:
        server.start()
    except DatabaseUnavailable as error:
        _missing(error.message)
    try:
        server.execute(f"CREATE DATABASE {_TEMPLATE}")
        _migrate(server.url(_TEMPLATE))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: EmbeddedPostgres) -> PostgresDatabases:
    """Databases with all tables, each for one test at a time."""
    return PostgresDatabases(postgres_server, _TEMPLATE)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the migrated tables."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


def _migrate(url: str) -> None:
    engine = connect(url)
    upgrade(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database with all tables: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        path = tmp_path / "labelmill.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        server: EmbeddedPostgres = request.getfixturevalue("postgres_server")
        databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
        with databases.lent() as name:
            yield server.url(name)


@pytest.fixture
def postgres_url(postgres_server: EmbeddedPostgres, postgres_databases: PostgresDatabases) -> Iterator[str]:
    """An empty PostgreSQL database with all tables."""
    with postgres_databases.lent() as name:
        yield postgres_server.url(name)


@pytest.fixture
def pgbouncer(postgres_server: EmbeddedPostgres) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode in front of the tests' PostgreSQL."""
    if find_pgbouncer() is None:
        _missing("pgbouncer was not found")
    pooler = PgBouncer(postgres_server.port)
    pooler.start()
    yield pooler
    pooler.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        server: EmbeddedPostgres = request.getfixturevalue("postgres_server")
        create_database(server, "without_tables", "template0")
        yield server.url("without_tables")
        server.execute("DROP DATABASE without_tables WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a fresh database with all tables."""
    made = connect(database_url)
    yield made
    made.dispose()
