"""Rows of a database: what is above a watermark is new, and counted together with the watermark that it leaves."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from infermeter_exporters.drift.config import SqlSource
from infermeter_exporters.drift.intake import Intake
from infermeter_exporters.drift.samples import Samples, SamplesError, Times, from_objects
from infermeter_exporters.drift.source import SourceError
from infermeter_exporters.drift.store import Store, StoreError

log = logging.getLogger("infermeter.drift.sql")

_ROWS = 10_000
"""Rows that are in memory at a time."""
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

    def poll(self) -> int:
        """Count the rows that are new; gives how many there were.

        Raises:
            SourceError: the database does not answer, or refuses; rows wait.
            StoreError: the store does not answer; rows wait.
        """
        name = self._settings.name
        with self._store.transaction() as transaction:
            known = transaction("SELECT content FROM watermarks WHERE source = ?", name)
        accepted = refused = 0
        try:
            with self._store.transaction() as transaction:
                upper = None
                for objects, mark in self._rows(known[0][0] if known else None):
                    upper = mark
                    for found in self._good(objects):
                        self._intake.keep(transaction, found)
                        accepted += found.number
                    refused += len(objects)
                if upper is not None:
                    transaction(
                        "INSERT INTO watermarks VALUES (?, ?)"
                        " ON CONFLICT (source) DO UPDATE SET content = excluded.content",
                        name,
                        upper,
                    )
        except BaseException:
            self._intake.forget()
            raise
        self._intake.counts["samples accepted"] += accepted
        self._intake.counts["samples invalid"] += refused - accepted
        return accepted

    def _good(self, objects: Sequence[dict[str, Any]]) -> Iterator[Samples]:
        now = time.time()
        times = Times(now, now - self._keep, now + 300)
        try:
            yield from_objects(objects, times)
        except SamplesError:
            # A row that makes no sense keeps back none of the others.
            for one in objects:
                try:
                    found = from_objects([one], times)
                except SamplesError as error:
                    log.debug("%s: a row is not counted: %s", self._settings.name, error)
                else:
                    yield found

    def _rows(self, known: str | None) -> Iterator[tuple[list[dict[str, Any]], str]]:
        """Objects as `samples.from_json` has them, some at a time, and the watermark that the whole of them leaves."""
        try:
            import psycopg  # noqa: PLC0415  (only who has a database pays for it)
            from psycopg import sql  # noqa: PLC0415
        except ImportError as error:
            raise SourceError("invalid", "rows of PostgreSQL need psycopg: pip install 'infermeter[drift]'") from error
        settings = self._settings
        column, query = sql.Identifier(settings.watermark), sql.SQL(settings.query.rstrip().rstrip(";"))
        try:
            url = settings.url or Path(settings.url_file).read_text(encoding="utf-8").strip()
            with psycopg.connect(url, connect_timeout=10, options="-c statement_timeout=60000") as connection:
                connection.read_only = True
                head = sql.SQL("SELECT max({0}) FROM ({1}) q").format(column, query)
                newest = connection.execute(head).fetchone()
                if newest is None or newest[0] is None:
                    return
                upper: Any = newest[0]
                lower: Any = None
                timestamps = isinstance(upper, datetime)
                if timestamps:
                    naive = upper.tzinfo is None
                    upper = min(upper, _ago(settings.lag, naive=naive))
                    lower = datetime.fromisoformat(known) if known else _ago(self._keep, naive=naive)
                elif known:
                    lower = type(upper)(known)
                if lower is not None and upper <= lower:
                    return
                mark = upper.isoformat() if timestamps else str(upper)
                with connection.cursor("infermeter") as cursor:
                    wanted = sql.SQL("SELECT * FROM ({1}) q WHERE {0} <= %s").format(column, query)
                    values: list[Any] = [upper]
                    if lower is not None:
                        wanted += sql.SQL(" AND {0} > %s").format(column)
                        values.append(lower)
                    cursor.execute(wanted, values)
                    while rows := cursor.fetchmany(_ROWS):
                        names = [one.name for one in cursor.description or ()]
                        yield [self._object(names, row, timestamps=timestamps) for row in rows], mark
        except (psycopg.Error, OSError) as error:
            refused = isinstance(error, psycopg.ProgrammingError)
            text = f"{settings.name}: {' '.join(str(error).split())}"
            raise SourceError("refused" if refused else "unreachable", text) from error

    def _object(self, names: Sequence[str], row: Sequence[Any], *, timestamps: bool) -> dict[str, Any]:
        values = dict(zip(names, map(_plain, row), strict=True))
        found = {name: values.pop(name) for name in _OWN if name in values}
        mark = values.pop(self._settings.watermark, None)
        if timestamps and "time" not in found:
            found["time"] = mark
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
