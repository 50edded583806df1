"""Rows of a database: what is above a watermark is new, and counted together with the watermark that it leaves."""

import logging
import threading
import time
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

from infermeter_exporters.drift.config import SqlSource
from infermeter_exporters.drift.intake import Intake
from infermeter_exporters.drift.samples import AHEAD, SamplesError, Times, from_objects
from infermeter_exporters.drift.source import SourceError
from infermeter_exporters.drift.store import ALIVE, Store, StoreError, Transaction

log = logging.getLogger("infermeter.drift.sql")

_ROWS = 10_000
"""Rows that are in memory at a time."""
_NOTE = "INSERT INTO watermarks VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET content = excluded.content"
_OWN = ("service", "model", "time", "id", "prediction", "confidence")


class Sql:
    """Asks PostgreSQL for new rows.

    Args:
        settings: which.
        intake: where they go.
        store: of what was counted.
        keep: seconds for which rows are counted after they were written; older ones are never asked for.
    """

    def __init__(self, settings: SqlSource, intake: Intake, store: Store, keep: float) -> None:
        self._settings = settings
        self._intake = intake
        self._store = store
        self._keep = keep
        self.error = ""
        self._lock = threading.Lock()
        self._heads: list[tuple[float, Any]] = []

    def __call__(self, end: threading.Event) -> None:
        """Count rows until `end` is set."""
        while not end.is_set():
            try:
                self.poll()
            except (SourceError, StoreError) as error:
                self._intake.counts["samples unreachable"] += 1
                if str(error) != self.error:
                    log.warning("%s waits: %s", self._settings.name, error)
                self.error = str(error)
            else:
                self.error = ""
            end.wait(self._settings.every)

    def refresh(self) -> None:
        """Count what there is by now; errors are as of `poll`."""
        self.poll()

    def poll(self) -> int:
        """Count the rows that are new; gives how many there were.

        Raises:
            SourceError: the database does not answer, or refuses; rows wait.
            StoreError: the store does not answer; rows wait.
        """
        with self._lock:
            return self._poll()

    def _poll(self) -> int:
        name = self._settings.name
        with self._store.transaction() as transaction:
            known = transaction("SELECT content FROM watermarks WHERE source = ?", name)
        # The store is not held up by a database that takes its time to answer.
        rows = self._rows(known[0][0] if known else None)
        first = next(rows, None)
        if first is None:
            return 0
        accepted = read = 0
        try:
            with self._store.transaction() as transaction:
                for objects, mark in chain([first], rows):
                    accepted += self._keep_good(transaction, objects)
                    read += len(objects)
                    transaction(_NOTE, name, mark)
        except BaseException:
            self._intake.forget()
            raise
        finally:
            rows.close()
        self._intake.counts["samples accepted"] += accepted
        self._intake.counts["samples invalid"] += read - accepted
        return accepted

    def _keep_good(self, transaction: Transaction, objects: Sequence[dict[str, Any]]) -> int:
        """Keep those that make sense, which are kept back by none of the others; gives how many they are."""
        now = time.time()
        try:
            self._intake.keep(transaction, from_objects(objects, Times(now, now - self._keep, now + AHEAD)))
        except SamplesError as error:
            if len(objects) == 1:
                log.debug("%s: a row is not counted: %s", self._settings.name, error)
                return 0
            middle = len(objects) // 2
            return sum(self._keep_good(transaction, part) for part in (objects[:middle], objects[middle:]))
        return len(objects)

    def _rows(self, known: str | None) -> Generator[tuple[list[dict[str, Any]], str]]:
        """Objects as `samples.from_json` has them, some at a time, and the watermark that the whole of them leaves."""
        try:
            import psycopg  # noqa: PLC0415  (only who has a database pays for it)
            from psycopg import sql  # noqa: PLC0415
        except ImportError as error:
            raise SourceError("invalid", "rows of PostgreSQL need psycopg: pip install 'infermeter[drift]'") from error
        settings = self._settings
        column, query = sql.Identifier(settings.watermark), settings.query.rstrip().rstrip(";")
        try:
            url = settings.url or Path(settings.url_file).read_text(encoding="utf-8").strip()
            with psycopg.connect(url, **ALIVE) as connection:
                connection.read_only = True
                connection.execute("SET statement_timeout = 60000")
                head = sql.SQL("SELECT max({0}) FROM (\n{1}\n) q").format(column, sql.SQL(query))
                newest = connection.execute(head).fetchone()
                limits = self._limits(newest[0] if newest else None, known)
                if limits is None:
                    return
                lower, upper = limits
                mark = upper.isoformat() if isinstance(upper, datetime) else str(upper)
                with connection.cursor("infermeter") as cursor:
                    escaped = sql.SQL(query.replace("%", "%%"))
                    wanted = sql.SQL("SELECT * FROM (\n{1}\n) q WHERE {0} <= %s").format(column, escaped)
                    values: list[Any] = [upper]
                    if lower is not None:
                        wanted += sql.SQL(" AND {0} > %s").format(column)
                        values.append(lower)
                    cursor.execute(wanted, values)
                    while rows := cursor.fetchmany(_ROWS):
                        names = [one.name for one in cursor.description or ()]
                        yield [self._object(names, row) for row in rows], mark
        except (psycopg.Error, OSError, UnicodeDecodeError) as error:
            reason = "unreachable"
            if isinstance(error, psycopg.Error) and not isinstance(error, psycopg.OperationalError):
                reason = "invalid" if isinstance(error, psycopg.DataError) else "refused"
            raise SourceError(reason, f"{settings.name}: {' '.join(str(error).split())}") from error

    def _limits(self, newest: Any, known: str | None) -> tuple[Any, Any] | None:
        """What the watermark of new rows is above, None for anything, and at most; None if there are none.

        Raises:
            SourceError: it is of a type of which nothing can be above anything.
        """
        settings = self._settings
        if newest is None:
            return None
        lower: Any = None
        try:
            if isinstance(newest, datetime):
                naive = newest.tzinfo is None
                upper: Any = min(newest, _ago(settings.lag, naive=naive))
                lower = datetime.fromisoformat(known) if known else _ago(self._keep, naive=naive)
            elif isinstance(newest, int | float | Decimal) and not isinstance(newest, bool):
                upper = self._settled(newest)
                lower = type(newest)(known) if known else None
            else:
                text = f"{settings.name}: {settings.watermark} is of type {type(newest).__name__}"
                raise SourceError("invalid", f"{text}, expected a timestamp or a number")
            return None if upper is None or (lower is not None and upper <= lower) else (lower, upper)
        except (TypeError, ValueError, ArithmeticError) as error:
            text = f"{settings.name}: {settings.watermark} is of another type than {known!r}, which was the last one"
            raise SourceError("invalid", text) from error

    def _settled(self, newest: Any) -> Any:
        """The highest number that was there `lag` seconds ago; None for none.

        Who writes rows may take a number, and be done later than who takes the next one.
        """
        now = time.monotonic()
        self._heads.append((now, newest))
        settled = [head for head in self._heads if head[0] <= now - self._settings.lag]
        if not settled:
            return None
        self._heads = self._heads[len(settled) - 1 :]
        return settled[-1][1]

    def _object(self, names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
        given = dict(zip(names, row, strict=True))
        values = {name: _plain(value) for name, value in given.items()}
        found = {name: values.pop(name) for name in _OWN if name in values}
        mark = values.pop(self._settings.watermark, None)
        if isinstance(given.get(self._settings.watermark), datetime):
            found.setdefault("time", mark)
        owner = {"service": self._settings.service, "model": self._settings.model}
        return {**found, **{name: given for name, given in owner.items() if given}, "features": values}


def _ago(seconds: float, *, naive: bool) -> datetime:
    found = datetime.fromtimestamp(time.time() - seconds, UTC)
    return found.replace(tzinfo=None) if naive else found


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    return value if isinstance(value, bool | int | float | str | None) else str(value)
