"""What Labelmill needs of a database beyond the SQL that both dialects speak alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sqlalchemy import URL, Executable
from sqlalchemy.engine import Connection, Engine

S = TypeVar("S")


@dataclass(frozen=True)
class ServerFacts:
    """The server's version and state, for `doctor`. `remedy`: what to do about a problem; None: there is none."""

    summary: str
    remedy: str | None = None


@dataclass(frozen=True)
class ServerConnections:
    """Connections in use, and how many this user may open. `pooled`: clients connect to a pooler, whose own limits
    apply."""

    used: int
    allowed: int
    pooled: bool


class Dialect(ABC):
    """One kind of database. Has no state: an instance serves every engine of its kind."""

    name: ClassVar[str]  #: As SQLAlchemy and URLs name it.
    locks_rows: ClassVar[
        bool
    ]  #: Transactions write concurrently, so a row must be locked before it is read for a decision.
    copies_binary: ClassVar[bool]  #: `copy_binary` works.
    aggregates_bytes: ClassVar[bool]  #: `string_agg` puts binary values of many rows into one.
    serves_one_machine: ClassVar[bool]  #: Processes of other machines must not open the same database.

    @abstractmethod
    def open(self, url: URL, *, max_connections: int, create_folder: bool) -> Engine:
        """An engine for `url`; opens no connection yet. Raises DatabaseUnsuitable."""

    def file_of(self, url: URL) -> Path | None:
        """The file that the database is; None: it is a server, or in memory."""
        del url
        return None

    @abstractmethod
    def choose(self, *, sqlite: S, postgres: S) -> S:
        """The value, usually a statement, for this dialect."""

    # many rows

    @abstractmethod
    def bulk_insert(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Insert `rows` (tuples in the order of `columns`) within the connection's transaction."""

    @abstractmethod
    def copy_binary(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Iterable[bytes], count: int
    ) -> None:
        """Insert `count` rows that are already in PostgreSQL's binary COPY format, several in each piece of bytes,
        within the connection's transaction. Only where `copies_binary`."""

    @abstractmethod
    def rows_at_once(
        self, connection: Connection, statement: Executable, each_values: Sequence[dict[str, Any]]
    ) -> list[Any]:
        """Execute a statement that returns one row or none with each of several parameter sets; None: no row."""

    @abstractmethod
    def execute_raw(self, connection: Connection, statement: str, values: Mapping[str, Any]) -> list[Any]:
        """Run a statement with parameters like `%(name)s` within the connection's transaction. Returns the driver's
        rows: one of SQLAlchemy's for every row of a million takes as long as reading it."""

    @abstractmethod
    def insert_or_ignore(self, table: type[Any], *, index: Sequence[str] | None = None) -> Any:
        """An INSERT that does nothing where the row exists already. `index`: the columns by which it is recognised."""

    # locks

    @abstractmethod
    def lock_name(self, connection: Connection, name: str) -> None:
        """Lock a name until the end of this transaction; waits while another transaction holds the lock."""

    @abstractmethod
    def may_upgrade(self, connection: Connection) -> bool:
        """Whether no other process upgrades the tables now. Raises DatabaseUnavailable when this user may not."""

    def oldest_transaction(self, connection: Connection) -> str | None:
        """A description of the longest open transaction of other connections; None: there is none."""
        del connection
        return None

    # a commit whose confirmation was lost

    @abstractmethod
    def was_committed(self, connection: Connection, transaction: str) -> bool:
        """Whether a transaction went through, by the id that the database gave it. Raises DatabaseUnavailable while the
        server is not done with it."""

    # upkeep

    def shorten_log(self, engine: Engine, *, max_bytes: int | None = None) -> None:
        """Truncate a write-ahead log that the database does not truncate in time."""
        del engine, max_bytes

    # what `doctor` asks

    @abstractmethod
    def server_facts(self, connection: Connection) -> ServerFacts:
        """The server's version, and what is wrong with it."""

    def is_locked(self, engine: Engine, patience_s: float) -> bool:
        """Whether another process has blocked writes for `patience_s`."""
        del engine, patience_s
        return False

    def connections(self, connection: Connection) -> ServerConnections | None:
        """Connections in use and allowed; None: there is no limit."""
        del connection
        return None


def driver_of(connection: Connection) -> Any:
    """The driver's own connection."""
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - a checked-out connection has one
    return driver


def quoted(columns: Sequence[str]) -> str:
    """Column names for a statement."""
    return ", ".join(f'"{column}"' for column in columns)
