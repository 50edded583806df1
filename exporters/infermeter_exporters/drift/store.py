"""Where everything is that outlives the process: a file of SQLite, or PostgreSQL.

One transaction at a time, each of which happens wholly or not at all, also where the process is killed. Both databases
understand the same statements; what is in a table is known by the module that uses it.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from infermeter_exporters.errors import ConfigError

log = logging.getLogger("infermeter.drift.store")

_SERIES = "source TEXT NOT NULL, service TEXT NOT NULL, model TEXT NOT NULL, feature TEXT NOT NULL"
_NAMES = "source, service, model, feature"
# What is kept as JSON is text. Times are seconds since 1970.
_LOCK = 5_711_837
"""Of PostgreSQL's advisory locks, the one that those have who share a store."""
_TABLES = (
    f"""CREATE TABLE IF NOT EXISTS baselines (
        {_SERIES}, name TEXT NOT NULL, version BIGINT NOT NULL, began DOUBLE PRECISION, ended DOUBLE PRECISION,
        created DOUBLE PRECISION NOT NULL, layout TEXT NOT NULL, counts TEXT NOT NULL,
        dispersion DOUBLE PRECISION NOT NULL, PRIMARY KEY ({_NAMES}, name, version))""",
    "CREATE TABLE IF NOT EXISTS layouts (id TEXT PRIMARY KEY, content TEXT NOT NULL)",
    f"""CREATE TABLE IF NOT EXISTS states (
        {_SERIES}, baseline TEXT NOT NULL, active BIGINT NOT NULL, votes TEXT NOT NULL, episodes BIGINT NOT NULL,
        sums TEXT NOT NULL, seen DOUBLE PRECISION NOT NULL, PRIMARY KEY ({_NAMES}, baseline))""",
    "CREATE TABLE IF NOT EXISTS progress (source TEXT PRIMARY KEY, ended DOUBLE PRECISION NOT NULL)",
    f"""CREATE TABLE IF NOT EXISTS slots (
        {_SERIES}, began DOUBLE PRECISION NOT NULL, layout TEXT NOT NULL, counts TEXT NOT NULL,
        PRIMARY KEY ({_NAMES}, began, layout))""",
    "CREATE INDEX IF NOT EXISTS slots_by_time ON slots (source, began)",
    f"""CREATE TABLE IF NOT EXISTS learning (
        {_SERIES}, began DOUBLE PRECISION NOT NULL, number BIGINT NOT NULL, content TEXT NOT NULL)""",
    f"CREATE INDEX IF NOT EXISTS learning_by_series ON learning ({_NAMES})",
    "CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, seen DOUBLE PRECISION NOT NULL, answer TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS files (
        source TEXT NOT NULL, path TEXT NOT NULL, identity TEXT NOT NULL, PRIMARY KEY (source, path))""",
    "CREATE TABLE IF NOT EXISTS watermarks (source TEXT PRIMARY KEY, content TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS predictions (
        service TEXT NOT NULL, model TEXT NOT NULL, id TEXT NOT NULL, seen DOUBLE PRECISION NOT NULL,
        prediction TEXT NOT NULL, confidence DOUBLE PRECISION, labelled BIGINT NOT NULL,
        PRIMARY KEY (service, model, id))""",
    "CREATE INDEX IF NOT EXISTS predictions_by_time ON predictions (seen)",
    """CREATE TABLE IF NOT EXISTS outcomes (
        service TEXT NOT NULL, model TEXT NOT NULL, began DOUBLE PRECISION NOT NULL, content TEXT NOT NULL,
        PRIMARY KEY (service, model, began))""",
    """CREATE TABLE IF NOT EXISTS triggers (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, service TEXT NOT NULL, model TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL, attempts BIGINT NOT NULL,
        due DOUBLE PRECISION NOT NULL)""",
)

Row = Sequence[Any]
ALIVE: dict[str, Any] = {
    "connect_timeout": 10,
    "tcp_user_timeout": 60_000,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
}
"""Arguments of a connection to PostgreSQL, by which a network that is gone is noticed within a minute."""


class StoreError(Exception):
    """The database does not answer, or refuses; what was begun did not happen."""


class Transaction(Protocol):
    """Statements that happen together."""

    def __call__(self, statement: str, *values: Any) -> list[Row]:
        """What a statement gives; its values stand where it has question marks."""

    def many(self, statement: str, rows: Sequence[Row]) -> None:
        """A statement for each of some rows."""


class Store(Protocol):
    """A database; used by several threads."""

    def transaction(self) -> Any:
        """A context that gives a `Transaction`, which happens if the block ends without an error.

        Raises:
            StoreError: the database does not answer, or refuses.
        """

    def close(self) -> None:
        """End."""


def opened(url: str) -> Store:
    """The store of a path, or of a URL that begins with `postgresql://`.

    Raises:
        ConfigError: it cannot work at all. A server that does not answer yet is no such case.
    """
    if url.startswith(("postgresql://", "postgres://")):
        return _PostgreSQL(url)
    return _SQLite(url)


class _SQLite:
    def __init__(self, path: str) -> None:
        self._lock = threading.RLock()
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            with self.transaction() as execute:
                for table in _TABLES:
                    execute(table)
        except (OSError, sqlite3.Error, StoreError) as error:
            raise ConfigError(
                f"store is {path!r}, expected a file of SQLite or where one can be made: {error}"
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise StoreError(f"the store cannot be written: {error}") from error
            try:
                yield _Statements(self._connection)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise StoreError(f"the store cannot be written: {error}") from error
            except BaseException:
                self._undo()
                raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _undo(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:  # what went wrong before says more
            log.debug("nothing could be undone", exc_info=True)


class _Statements:
    def __init__(self, connection: Any, placeholder: str = "?") -> None:
        self._connection = connection
        self._placeholder = placeholder

    def __call__(self, statement: str, *values: Any) -> list[Row]:
        cursor = self._connection.execute(statement.replace("?", self._placeholder), values)
        return list(cursor.fetchall()) if cursor.description else []

    def many(self, statement: str, rows: Sequence[Row]) -> None:
        if rows:
            self._connection.cursor().executemany(statement.replace("?", self._placeholder), rows)


class _PostgreSQL:
    def __init__(self, url: str) -> None:
        try:
            import psycopg  # noqa: PLC0415  (only who has one pays for it)
        except ImportError as error:
            raise ConfigError("a store in PostgreSQL needs psycopg: pip install 'infermeter[drift]'") from error
        self._psycopg = psycopg
        self._url = url
        self._lock = threading.RLock()
        self._connection: Any = None
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:
            raise ConfigError(f"store is not a URL of PostgreSQL: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._lock:
            try:
                connection = self._connected()
                with connection.transaction():
                    # Counts are read, added to and written: two processes would lose some of them.
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                    yield _Statements(connection, "%s")
            except self._psycopg.Error as error:
                self.close()  # whatever state it is in, the next one is fresh
                raise StoreError(f"the store cannot be written: {' '.join(str(error).split())}") from error

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _connected(self) -> Any:
        if self._connection is None or self._connection.closed:
            # A server that hangs is one that is gone, and so is a network.
            connection = self._connection = self._psycopg.connect(self._url, autocommit=True, **ALIVE)
            connection.execute("SET statement_timeout = 60000")
            connection.execute("SET idle_in_transaction_session_timeout = 600000")
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                for table in _TABLES:
                    connection.execute(table)
        return self._connection
