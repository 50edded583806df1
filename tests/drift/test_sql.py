"""New rows of a real PostgreSQL are counted once, together with the watermark that they leave."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from infermeter_exporters.drift import baselines
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.layout import Histogram, Layout
from infermeter_exporters.drift.source import SourceError
from infermeter_exporters.drift.store import Store, StoreError, opened
from tests.drift.asking import HOUR, Asked
from tests.processes import start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.drift.postgresql import PostgreSQL

TABLE = "CREATE TABLE rows (n BIGSERIAL PRIMARY KEY, at TIMESTAMPTZ NOT NULL DEFAULT now(), a DOUBLE PRECISION, w TEXT)"


@pytest.fixture
def database(postgresql: PostgreSQL) -> str:
    """One with a table that is empty."""
    url = postgresql.fresh()
    postgresql.execute(TABLE, url=url)
    return url


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Where counts are kept."""
    with closing(opened(str(tmp_path / "store"))) as found:
        yield found


@pytest.fixture
def asked(database: str, store: Store) -> Asked:
    """By timestamps."""
    return Asked(database, store)


def test_rows_by_timestamps(asked: Asked) -> None:
    """Each is counted once, when it was written."""
    assert asked.sql.poll() == 0
    first = asked.add(150, ago=1800)
    assert [asked.sql.poll(), asked.sql.poll()] == [150, 0]
    second = asked.add(10, ago=60)
    asked.add(5, ago=2000)  # of before the watermark: whoever writes those is too late
    assert [asked.sql.poll(), asked.sql.poll()] == [10, 0]
    assert asked.counted() == {"a": 160}
    assert asked.counts == {"samples accepted": 160, "samples invalid": 0}
    with asked.store.transaction() as transaction:
        slots = [row[0] for row in transaction("SELECT began FROM slots ORDER BY began")]
    assert slots == [first // 300 * 300, second // 300 * 300]


def test_rows_by_numbers(database: str, store: Store) -> None:
    """The same, of a column that counts; rows have a time of their own, or that at which they are read."""
    asked = Asked(database, store, watermark="n", query="SELECT n, a, at AS time FROM rows;  ")
    asked.add(150)
    assert [asked.sql.poll(), asked.sql.poll()] == [150, 0]
    asked.add(10, ago=1000)
    assert [asked.sql.poll(), asked.sql.poll()] == [10, 0]
    assert asked.counted() == {"a": 160}


@pytest.mark.parametrize(
    ("kind", "values"),
    [("NUMERIC", ["1", "2.5", "10000000000000000000000.5"]), ("REAL", ["1", "2.5", "1e10"]), ("INT", ["1", "2", "10"])],
)
def test_watermarks_of_other_types(asked: Asked, kind: str, values: list[str]) -> None:
    """Numbers, whichever they are."""
    asked.do(f"CREATE TABLE others (mark {kind}, a INT)")
    one = Asked(asked.url, asked.store, query="SELECT * FROM others", watermark="mark")
    for value in values:
        one.do("INSERT INTO others VALUES (%s, 1), (NULL, 1)", Decimal(value))
        assert [one.sql.poll(), one.sql.poll()] == [1, 0]


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ"])
def test_timestamps_without_a_time_zone(asked: Asked, kind: str) -> None:
    """Are of UTC, whatever the time zone of the server."""
    asked.do(f"CREATE TABLE others (at {kind}, a INT)")
    one = Asked(asked.url, asked.store, query="SELECT * FROM others")
    at = datetime.now(UTC) - timedelta(seconds=600)
    written = at.replace(tzinfo=None) if kind == "TIMESTAMP" else at
    one.do("INSERT INTO others SELECT %s, g FROM generate_series(1, 100) g", written)
    assert [one.sql.poll(), one.sql.poll()] == [100, 0]
    with asked.store.transaction() as transaction:
        assert [row[0] for row in transaction("SELECT began FROM slots")] == [at.timestamp() // 300 * 300]


def test_lag_of_timestamps(database: str, store: Store) -> None:
    """Rows wait for as long as others may be written that bear an earlier time."""
    asked = Asked(database, store, lag=1000.0)
    asked.add(1, ago=1500)
    asked.add(1, ago=500)
    assert asked.sql.poll() == 1
    asked.add(1, ago=600)  # which was written after the other one, but within that time
    assert asked.sql.poll() == 0
    later = Asked(database, store, lag=100.0)
    assert [later.sql.poll(), later.sql.poll()] == [2, 0]


def test_lag_of_numbers(database: str, store: Store) -> None:
    """Who takes a number may write its row after who takes the next one; none of them is lost."""
    asked = Asked(database, store, query="SELECT n, a FROM rows", watermark="n", lag=0.2)
    with psycopg.connect(database) as slow:
        slow.execute("INSERT INTO rows (a) VALUES (1)")
        asked.add(1)
        assert asked.sql.poll() == 0  # somebody may still write what has a lower number
        slow.commit()
    time.sleep(0.25)
    assert [asked.sql.poll(), asked.sql.poll()] == [2, 0]


def test_the_first_time(asked: Asked) -> None:
    """Rows that are older than what is compared are not asked for; a table may be large."""
    asked.add(5, ago=3 * HOUR)
    asked.add(7, ago=HOUR)
    assert [asked.sql.poll(), asked.sql.poll()] == [7, 0]
    assert asked.counted() == {"a": 7}


def test_types_of_columns(asked: Asked) -> None:
    """Numbers of any kind, words, truth values, times, and what is missing."""
    asked.do("""
        CREATE TABLE others AS
        SELECT now() - interval '1 minute' AS at, g AS "a%b", (g / 4.0)::numeric(12, 3) AS decimal,
        CASE WHEN g % 2 = 0 THEN 'NaN'::float8 END AS half, g::real AS real, g % 2 = 0 AS truth, NULL::int AS nothing,
        'x' || g % 3 AS word, '2026-01-01'::date AS day, gen_random_uuid() AS uuid, now() AS moment,
        '{"k": 1}'::jsonb AS json, g AS id, g % 2 AS prediction, 0.5::numeric AS confidence
        FROM generate_series(1, 100) g""")
    query = "SELECT * FROM others WHERE word LIKE 'x%' AND id % 1 = 0 -- all of them"
    asked = Asked(asked.url, asked.store, query=query)
    assert asked.sql.poll() == 100
    found = {key.feature: one for key, one in asked.read().items()}
    kinds = {name: (one.layout.numeric, one.samples, one.non_finite) for name, one in found.items()}
    numbers, words = (True, 100, 0), (False, 100, 0)
    names = ("a%b", "decimal", "real", "moment", "prediction", "confidence")
    expected = dict.fromkeys(names, numbers) | dict.fromkeys(("truth", "word", "day", "uuid", "json"), words)
    assert kinds == expected | {}
    assert found["truth"].layout.names == ("false", "true")
    assert found["decimal"].layout.lowest == 0.25
    with asked.store.transaction() as transaction:
        row = transaction("SELECT prediction, confidence FROM predictions WHERE id = '7'")[0]
        waiting = transaction("SELECT feature FROM learning")
    assert (tuple(row), waiting) == (("1", 0.5), [])


def test_rows_that_make_no_sense(asked: Asked) -> None:
    """Hold up none of the others, and are not looked at again: neither alone, nor together with others."""
    query = "SELECT at, a, coalesce(w, 'yolo') AS model FROM rows"
    one = Asked(asked.url, asked.store, query=query, model="")
    one.add(150)
    one.do("INSERT INTO rows (at, w) SELECT now() - interval '1 minute', repeat('x', 300) FROM generate_series(1, 3)")
    one.do("INSERT INTO rows (at, a, w) SELECT now() - interval '1 minute', 1, '' FROM generate_series(1, 2)")
    assert [one.sql.poll(), one.sql.poll()] == [150, 0]
    assert one.counts == {"samples accepted": 150, "samples invalid": 5}
    assert one.counted() == {"a": 150}


def test_a_column_that_is_of_words_suddenly(asked: Asked) -> None:
    """Its rows are refused, and the others go on: what was numbers stays numbers."""
    asked.add(150)
    assert asked.sql.poll() == 150
    query = "SELECT at, CASE WHEN w IS NULL THEN a::text ELSE w END AS a FROM rows"
    mixed = Asked(asked.url, asked.store, query=query)
    asked.do("INSERT INTO rows (at, a) SELECT now(), 1 FROM generate_series(1, 9)")
    assert (mixed.sql.poll(), mixed.counts["samples invalid"]) == (0, 9)
    asked.add(10, ago=0)
    assert asked.sql.poll() == 10
    assert asked.counted() == {"a": 160}


def test_some_words_among_numbers(asked: Asked) -> None:
    """Rows that fit are kept, whichever others came with them."""
    asked.do("CREATE TABLE others (at TIMESTAMPTZ DEFAULT now(), a JSONB, b INT)")
    words, numbers = 40, 160
    asked.do("INSERT INTO others (a, b) SELECT to_jsonb('x'::text), g FROM generate_series(1, %s) g", words)
    asked.do("INSERT INTO others (a, b) SELECT NULL, g FROM generate_series(1, %s) g", numbers)
    one = Asked(asked.url, asked.store, query="SELECT at, b, CASE WHEN a IS NULL THEN b END AS a, a AS c FROM others")
    with one.store.transaction() as transaction:  # `c` is known to be of numbers
        layout = Layout([1.0])
        key = Key("vision", "yolo", "c")
        baselines.write(transaction, "sql", "frozen", {key: Histogram(layout, layout.counted([1.0]))}, (0, 1), 1)
    assert one.sql.poll() == numbers
    assert one.counts["samples invalid"] == words
    assert one.counted() == {"a": numbers, "b": numbers, "c": numbers}


def test_many_rows(database: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Come some at a time, and leave one watermark."""
    monkeypatch.setattr("infermeter_exporters.drift.sql._ROWS", 100)
    asked = Asked(database, store)
    asked.add(1050)
    assert [asked.sql.poll(), asked.sql.poll()] == [1050, 0]
    assert asked.counted() == {"a": 1050}


def test_a_server_that_goes_and_comes_back(asked: Asked, postgresql: PostgreSQL) -> None:
    """Rows wait, and are counted once."""
    asked.add(10)
    assert asked.sql.poll() == 10
    asked.add(10, ago=30)
    postgresql.end()
    try:
        with pytest.raises(SourceError) as caught:
            asked.sql.poll()
        assert caught.value.reason == "unreachable"
    finally:
        postgresql.start()
    assert [asked.sql.poll(), asked.sql.poll()] == [10, 0]
    assert asked.counted() == {"a": 20}


@pytest.mark.parametrize(
    ("more", "reason", "words"),
    [
        ({"query": "SELECT nothing FROM rows"}, "refused", "nothing"),
        ({"query": "SELECT"}, "refused", ""),
        ({"watermark": "nothing"}, "refused", "nothing"),
        ({"query": "DELETE FROM rows RETURNING at"}, "refused", ""),
        ({"query": "SELECT at, setval('rows_n_seq', 1000) FROM rows"}, "refused", "read-only"),
        ({"query": "SELECT 'x'::text AS at"}, "invalid", "at is of type str, expected a timestamp or a number"),
        ({"query": "SELECT current_date AS at"}, "invalid", "at is of type date, expected a timestamp or a number"),
        ({"query": "SELECT 'infinity'::timestamptz AS at"}, "invalid", "timestamp too large"),
        ({"url": "", "url_file": "/nothing/there"}, "unreachable", "No such file"),
        ({"url": "postgresql:///x?host=/nothing"}, "unreachable", "/nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(asked: Asked, more: dict[str, Any], reason: str, words: str) -> None:
    """Is one sentence; nothing in the database changes, and nothing is counted."""
    asked.add(3)
    with pytest.raises(SourceError) as caught:
        Asked(asked.url, asked.store, **more).sql.poll()
    assert (caught.value.reason, words in str(caught.value)) == (reason, True), str(caught.value)
    assert "\n" not in str(caught.value)
    assert asked.do("SELECT count(*), max(n) FROM rows") == [(3, 3)]
    assert asked.counted() == {}


def test_a_watermark_of_another_type(asked: Asked) -> None:
    """Is said: nobody knows which rows were counted."""
    asked.add(3)
    assert asked.sql.poll() == 3
    for query in ("SELECT n AS at, a FROM rows", "SELECT at::timestamp AS at, a FROM rows"):
        with pytest.raises(SourceError, match=r"at is of another type than '20.*', which was the last one") as caught:
            Asked(asked.url, asked.store, query=query).sql.poll()
        assert caught.value.reason == "invalid"


def test_a_url_in_a_file(asked: Asked, tmp_path: Path) -> None:
    """Is read each time, so that a password may change."""
    (tmp_path / "url").write_text(asked.url + "\n")
    asked.add(3)
    assert Asked(asked.url, asked.store, url="", url_file=str(tmp_path / "url")).sql.poll() == 3


class Flaky:
    """A store that fails when rows have been counted in it, as often as it is told to."""

    def __init__(self, store: Store, fails: int) -> None:
        self._store, self._fails = store, fails

    def transaction(self) -> Any:
        """That of the store."""
        return self._transaction()

    def close(self) -> None:
        """It is closed by who opened it."""

    def _transaction(self) -> Any:
        @contextmanager
        def made() -> Iterator[Any]:
            with self._store.transaction() as transaction:

                def executed(statement: str, *values: Any) -> Any:
                    if statement.startswith("INSERT INTO watermarks") and self._fails:
                        self._fails -= 1
                        raise StoreError("gone")
                    return transaction(statement, *values)

                executed.many = transaction.many  # type: ignore[attr-defined]
                yield executed

        return made()


def test_between_rows_and_watermark(asked: Asked) -> None:
    """A store that fails there has neither, and what was learnt of them is unknown."""
    asked.add(150)
    flaky = Asked(asked.url, Flaky(asked.store, 1))
    with pytest.raises(StoreError):
        flaky.sql.poll()
    assert (asked.counted(), flaky.counts) == ({}, {})
    assert [flaky.sql.poll(), flaky.sql.poll()] == [150, 0]
    assert asked.counted() == {"a": 150}


def test_it_goes_on(database: str, store: Store, postgresql: PostgreSQL) -> None:
    """In its thread, through mistakes and servers that are gone, until it is told to end."""
    asked = Asked(database, store, every=0.02)
    end = threading.Event()
    thread = threading.Thread(target=asked.sql, args=(end,))
    thread.start()
    try:
        deadline = time.monotonic() + 30
        for number in (1, 2):
            asked.add(10, ago=60 - number)
            while asked.counts["samples accepted"] < 10 * number:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert asked.sql.error == ""
            postgresql.end()
            while not asked.sql.error:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            postgresql.start()
    finally:
        end.set()
        thread.join()
    assert asked.counts["samples unreachable"] >= 2
    assert asked.counted() == {"a": 20}


@pytest.mark.alone
def test_killed_while_it_counts(database: str, tmp_path: Path) -> None:
    """At any moment, while rows are written: each is counted once in the end."""
    path = str(tmp_path / "other")

    def work() -> None:
        with closing(opened(path)) as store:
            asked = Asked(database, store)
            while True:
                asked.sql.poll()

    with closing(opened(path)) as store:
        writer = Asked(database, store)
        writer.add(2000, ago=100)
    for place in range(10):
        pid = start(work)
        for step in range(3):
            writer.add(100, ago=90 - 3 * place - step)
            time.sleep(0.01 * place)
        os.kill(pid, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    with closing(opened(path)) as store:
        last = Asked(database, store)
        last.sql.poll()
        assert last.counted() == {"a": 2000 + 10 * 3 * 100}
