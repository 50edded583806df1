"""A database that is asked for rows."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from infermeter_exporters.drift.config import SqlSource
from infermeter_exporters.drift.intake import Intake
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.sql import Sql

if TYPE_CHECKING:
    from infermeter_exporters.drift.evaluation import Key
    from infermeter_exporters.drift.layout import Histogram
    from infermeter_exporters.drift.store import Store

HOUR = 3600.0
LEARN = 100


class Asked:
    """A database that is asked for rows, and what was counted of them.

    Attributes:
        counts: what became of them.
        sql: what asks.
    """

    def __init__(self, where: str, store: Store, **more: Any) -> None:
        self.url, self.store = where, store
        usual = SqlSource(
            name="sql", baselines=("frozen",), url=where, url_file="", query="SELECT at, a FROM rows", watermark="at",
            service="vision", model="yolo", lag=0.0, every=30.0, learn=LEARN, features=100, embeddings=False,
        )  # fmt: skip
        self._slots = Slots("sql", Rules(300.0, learn=LEARN))
        intake = Intake(store, self._slots, 300.0)
        self.counts = intake.counts
        self.sql = Sql(usual._replace(**more), intake, store, 2 * HOUR)

    def do(self, statement: str, *values: Any) -> list[Any]:
        """A statement in the database, which happens at once."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def add(self, number: int = 1, ago: float = 60.0) -> float:
        """Rows of some time ago; gives when that was, in seconds since 1970."""
        at = datetime.now(UTC) - timedelta(seconds=ago)
        self.do("INSERT INTO rows (at, a) SELECT %s, g %% 7 FROM generate_series(1, %s) g", at, number)
        return at.timestamp()

    def read(self) -> dict[Key, Histogram]:
        """What was counted of features that have a reference."""
        with self.store.transaction() as transaction:
            return self._slots.read(transaction, 0, time.time() + HOUR)

    def counted(self) -> dict[str, float]:
        """How many values were counted of which feature."""
        with self.store.transaction() as transaction:
            waiting = self._slots.learning(transaction)
        found = {key: one.samples + one.non_finite for key, one in self.read().items()}
        return {key.feature: number for key, number in (found | waiting).items()}
