"""The context of every service: the caller, the database, the sender of messages, the storage of files."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.engine import Engine

from labelmill.core.database import check_tables, connect_to_existing, require_only_this_machine
from labelmill.core.money.prices import LISTED, PriceList
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.core.storage.base import Storage
from labelmill.core.storage.local import LocalStorage
from labelmill.core.storage.opening import open_storage, remote_files
from labelmill.core.storage.remote import RemoteFiles

_TABLES_S = 10.0  #: How often a long-lived process checks whether the tables were upgraded.


@dataclass(frozen=True)
class Principal:
    """The caller. There is one so far: every user of the command line or the client."""

    name: str


LOCAL = Principal("local")


class KnownTables:
    """Checks from time to time whether the tables are still of this version."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._checked_at = engine, time.monotonic()

    def require(self) -> None:
        """Raises DatabaseOutdated once the tables were upgraded beyond this process' version."""
        if time.monotonic() >= self._checked_at + _TABLES_S:
            check_tables(self._engine)
            self._checked_at = time.monotonic()


@dataclass(frozen=True)
class ServiceContext:
    """Everything that a service uses besides its request. Close it, or use it as a context manager."""

    engine: Engine
    sender: MessageSender
    storage: Storage = field(default_factory=lambda: LocalStorage(Path(".labelmill")))
    prices: PriceList = LISTED
    principal: Principal = LOCAL
    remote: RemoteFiles = field(default_factory=RemoteFiles)  #: Files behind URLs.
    tables: KnownTables | None = field(default=None, compare=False)  #: None: they are not checked again.

    def require_tables(self) -> None:
        """Call before a submission. Raises DatabaseOutdated."""
        if self.tables is not None:
            self.tables.require()

    def close(self) -> None:
        """Close the connections to the database and to Redis. Jobs go on."""
        self.engine.dispose()
        self.sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_context(settings: Settings) -> ServiceContext:
    """A context on the configured database. Raises DatabaseUnavailable, DatabaseOutdated, DatabaseUnsuitable,
    InvalidInput."""
    remote = remote_files(settings)
    storage = open_storage(settings, remote)
    engine = connect_to_existing(settings)
    sender = MessageSender.connect(settings)
    context = ServiceContext(engine, sender, storage, PriceList.of(settings), remote=remote, tables=KnownTables(engine))
    try:
        check_tables(engine)
        require_only_this_machine(engine)
    except BaseException:
        context.close()
        raise
    return context
