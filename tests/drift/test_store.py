"""A store keeps a transaction wholly or not at all, whoever dies: we, the server, or the network."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.intake import Full, Intake
from infermeter_exporters.drift.labels import Label
from infermeter_exporters.drift.samples import Column, Prediction, Samples
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.store import Store, StoreError, opened
from infermeter_exporters.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.drift.postgresql import PostgreSQL

INSERT = "INSERT INTO watermarks VALUES (?, ?)"
BEGAN = 1_700_000_100.0
A = Key("service", "model", "a")


def marks(store: Store) -> list[str]:
    """The sources that have a watermark."""
    with store.transaction() as transaction:
        return sorted(row[0] for row in transaction("SELECT source FROM watermarks"))


def die(store: Store, error: BaseException) -> None:
    """Raise something in a transaction in which something was written."""
    with store.transaction() as transaction:
        transaction(INSERT, "lost", "1")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, StoreError])
def test_what_raises_did_not_happen(store: Store, error: type[BaseException]) -> None:
    """And is raised as it is; the next transaction works."""
    with pytest.raises(error):
        die(store, error("x"))
    with store.transaction() as transaction:
        transaction(INSERT, "kept", "1")
    assert marks(store) == ["kept"]


def test_a_statement_that_fails(store: Store) -> None:
    """Nothing of its transaction happens."""
    with pytest.raises(StoreError, match="the store cannot be written: "), store.transaction() as transaction:
        transaction(INSERT, "lost", "1")
        transaction(INSERT, "lost", "2")
    assert marks(store) == []


def test_it_is_the_same_when_it_is_opened_again(store_url: str) -> None:
    """Another process finds what was kept."""
    for place in range(3):
        with closing(opened(store_url)) as store, store.transaction() as transaction:
            transaction(INSERT, f"{place}", "1")
    with closing(opened(store_url)) as store:
        assert marks(store) == ["0", "1", "2"]


def test_threads(store: Store) -> None:
    """One transaction at a time."""

    def add() -> None:
        for _ in range(25):
            with store.transaction() as transaction:
                before = transaction("SELECT content FROM watermarks WHERE source = 'a'")[0][0]
                transaction("UPDATE watermarks SET content = ? WHERE source = 'a'", str(int(before) + 1))

    with store.transaction() as transaction:
        transaction(INSERT, "a", "0")
    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.transaction() as transaction:
        assert transaction("SELECT content FROM watermarks")[0][0] == "100"


@pytest.mark.parametrize("content", ["", "not a database, but a text that is long enough to be one" * 50])
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    """Is one sentence; an empty one is a store in which nothing is yet."""
    path = tmp_path / "store"
    path.write_text(content)
    if not content:
        with closing(opened(str(path))) as store:
            assert marks(store) == []
        return
    with pytest.raises(ConfigError, match=r"store is '.*', expected a file of SQLite or where one can be made: "):
        opened(str(path))


def test_folders_are_made(tmp_path: Path) -> None:
    """If they can be."""
    with closing(opened(str(tmp_path / "a" / "b" / "store"))) as store:
        assert marks(store) == []
    with pytest.raises(ConfigError, match="expected a file of SQLite or where one can be made"):
        opened(str(tmp_path / "a" / "b" / "store" / "c"))


def test_a_file_that_somebody_else_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is waited for, and then said; nothing is lost of what was kept."""
    path = tmp_path / "store"
    # Ten seconds would be as true, and take longer.
    connect: Any = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **{**named, "timeout": 0.05}))
    with closing(opened(str(path))) as store, closing(connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="the store cannot be written: database is locked"):
            marks(store)
        other.execute("COMMIT")
        assert marks(store) == []


def test_urls_that_are_none() -> None:
    """Are one sentence."""
    with pytest.raises(ConfigError, match="store is not a URL of PostgreSQL: "):
        opened("postgresql://host/x?colour=blue")


def test_a_server_that_is_not_there_yet(postgresql: PostgreSQL) -> None:
    """Is no reason not to start; as soon as it answers all is well."""
    url = postgresql.fresh()
    postgresql.end()
    try:
        with closing(opened(url)) as store:
            for _ in range(2):
                with pytest.raises(StoreError, match="the store cannot be written: "):
                    marks(store)
            postgresql.start()
            assert marks(store) == []
    finally:
        postgresql.end()
        postgresql.start()


def test_a_server_that_goes_and_comes_back(postgresql: PostgreSQL) -> None:
    """In the middle of a transaction nothing of it is kept, and the next one works; between two of them as well."""
    with closing(opened(postgresql.fresh())) as store:
        assert marks(store) == []
        with pytest.raises(StoreError, match="the store cannot be written: "), store.transaction() as transaction:
            transaction(INSERT, "lost", "1")
            postgresql.end()
            transaction(INSERT, "lost too", "1")
        with pytest.raises(StoreError):
            marks(store)
        postgresql.start()
        with store.transaction() as transaction:
            transaction(INSERT, "kept", "1")
        postgresql.end()
        postgresql.start()
        with pytest.raises(StoreError):  # the connection was cut off, which is noticed now
            marks(store)
        assert marks(store) == ["kept"]


def test_options_of_a_url_hold(postgresql: PostgreSQL) -> None:
    """Ours are added: what hangs for a minute ends."""
    with closing(opened(postgresql.fresh())) as store, store.transaction() as transaction:
        assert transaction("SELECT current_schema()")[0][0].startswith("s")
        assert transaction("SHOW statement_timeout")[0][0] == "1min"


def test_the_intake_while_the_server_is_gone(postgresql: PostgreSQL) -> None:
    """Senders are told that nothing was kept; what they send again is counted once, learnt from the same values."""
    with closing(opened(postgresql.fresh())) as store:
        slots = Slots("push", Rules(300.0, learn=20))
        intake = Intake(store, slots, 300.0)
        intake.start()

        def send(number: int) -> Any:
            values = np.arange(10.0) + number
            prediction = Prediction("service", "model", f"{number}", BEGAN, "1", 0.5)
            found = Samples([Column(A, np.full(10, BEGAN), values)], [prediction], 10)
            return intake.samples(found, f"batch {number}").result(30)

        assert send(1) == {"accepted": 10}
        postgresql.end()
        for _ in range(2):
            with pytest.raises(StoreError):
                send(2)
        postgresql.start()
        answers = [send(2) for _ in range(2)]
        assert answers == [{"accepted": 10}, {"accepted": 10, "repeated": True}]
        assert intake.labels([Label("service", "model", "2", "1", BEGAN)]).result(30)["joined"] == 1
        intake.stop()
        with pytest.raises(Full):
            send(3)
        with store.transaction() as transaction:
            found = slots.read(transaction, 0, 2 * BEGAN)[A]
            predictions = transaction("SELECT COUNT(*) FROM predictions")[0][0]
    assert (found.samples, found.layout.lowest, found.layout.highest, predictions) == (20, 1.0, 11.0, 2)
