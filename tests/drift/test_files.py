"""Each file that comes is counted once, as a whole, however often it is looked at and whoever dies."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from infermeter_exporters.drift import files
from infermeter_exporters.drift.config import FilesSource
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.files import Files
from infermeter_exporters.drift.intake import Intake
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.store import Store, opened
from tests.processes import start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR = 3600.0
LEARN = 100
A = Key("vision", "yolo", "a")
LONG_AGO = 60.0
"""Seconds; a file that was written then is complete."""


class Watched:
    """A folder that is watched.

    Attributes:
        folder: that has the files.
        store: of what was counted.
        counts: what became of them.
    """

    def __init__(self, folder: Path, store: Store, **more: Any) -> None:
        usual = FilesSource(
            "files", ("frozen",), str(folder / "**" / "*.*"), "vision", "yolo", "file", 5.0, LEARN, 100, False
        )
        self.folder, self.store = folder, store
        self._slots = Slots("files", Rules(300.0, learn=LEARN))
        intake = Intake(store, self._slots, 300.0)
        self.counts = intake.counts
        self.files = Files(usual._replace(**more), intake, store, HOUR)

    def poll(self) -> None:
        """Look once."""
        self.files.poll(threading.Event())

    def counted(self) -> dict[Key, float]:
        """How many values were counted of which feature."""
        with self.store.transaction() as transaction:
            found = self._slots.read(transaction, 0, time.time() + HOUR)
            waiting = self._slots.learning(transaction)
        return {key: one.samples for key, one in found.items()} | waiting

    def slots(self) -> list[tuple[float, float]]:
        """When values were counted that have a reference, in seconds of now, and how many."""
        with self.store.transaction() as transaction:
            return [tuple(row) for row in transaction("SELECT began, counts FROM slots ORDER BY began")]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A folder without files."""
    (tmp_path / "in").mkdir()
    with closing(opened(str(tmp_path / "store"))) as store:
        yield Watched(tmp_path / "in", store)


def put(path: Path, content: pa.Table | bytes | str, age: float = LONG_AGO) -> Path:
    """Write a file, some seconds ago."""
    if isinstance(content, pa.Table):
        (csv.write_csv if ".csv" in path.name else parquet.write_table)(content, str(path))
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def table(number: int = 150, **more: Any) -> pa.Table:
    """A table of one feature, or of more."""
    return pa.table({"a": np.arange(number) % 7 * 1.5, **more})


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz", "a.csv.zst", "a.PARQUET.1"])
def test_files(watched: Watched, name: str) -> None:
    """Of Parquet and of CSV, also compressed, are counted once, however often they are looked at."""
    if name.endswith((".gz", ".zst")):
        plain = put(watched.folder.parent / "plain.csv", table())
        with pa.output_stream(str(watched.folder / name), compression="detect") as compressed:
            compressed.write(plain.read_bytes())
        os.utime(watched.folder / name, (0, time.time() - LONG_AGO))
    else:
        put(watched.folder / name, table())
    for _ in range(3):
        watched.poll()
    assert watched.counted() == {A: 150}
    assert watched.counts == {"samples accepted": 150}
    put(watched.folder / "b.csv", table(20))
    watched.poll()
    assert watched.counted() == {A: 170}


def test_folders_and_what_is_no_file(watched: Watched) -> None:
    """Any depth is looked at; what would be waited for, or is no file, is left alone."""
    (watched.folder / "2026" / "01").mkdir(parents=True)
    (watched.folder / "folder.parquet").mkdir()
    os.mkfifo(watched.folder / "pipe.csv")
    (watched.folder / "gone.csv").symlink_to(watched.folder / "nothing")
    put(watched.folder / "2026" / "01" / "a.csv", table(10))
    watched.poll()
    assert (watched.counted(), watched.counts) == ({A: 10}, {"samples accepted": 10})


def test_types_of_columns(watched: Watched) -> None:
    """Numbers, words, truth values, and what is missing, in both formats."""
    number = 120
    made = table(
        number,
        word=["x", None, "z"] * (number // 3),
        truth=[True, False] * (number // 2),
        nothing=pa.nulls(number),
        code=list(range(number)),
        id=[f"{place}" for place in range(number)],
        prediction=[place % 3 for place in range(number)],
        confidence=[place / number for place in range(number)],
    )
    for name in ("a.parquet", "b.csv"):
        put(watched.folder / name, made)
    watched.poll()
    assert watched.counts == {"samples accepted": 2 * number}
    with watched.store.transaction() as transaction:
        assert transaction("SELECT COUNT(*) FROM predictions")[0][0] == number  # those of both have the same names
        assert {row[0] for row in transaction("SELECT prediction FROM predictions")} == {"0", "1", "2"}
        found = Slots("files", Rules(300.0)).read(transaction, 0, time.time() + HOUR)
    kinds = {key.feature: (one.layout.numeric, one.samples, one.non_finite) for key, one in found.items()}
    assert kinds == {
        "a": (True, 2 * number, 0),
        "word": (False, 2 * number * 2 / 3, 2 * number / 3),
        "truth": (False, 2 * number, 0),
        "code": (True, 2 * number, 0),
        "prediction": (True, 2 * number, 0),
        "confidence": (True, 2 * number, 0),
    }


def test_whole_numbers_at_first(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large CSV, the first block says which types there are; later numbers need not be whole."""
    monkeypatch.setattr(files, "_BLOCK", 1000)
    lines = ["a,id", *(f"{place},{place}" for place in range(500)), "0.5,x1", ",x2"]
    put(watched.folder / "a.csv", "\n".join(lines))
    watched.poll()
    assert watched.counts == {"samples accepted": 502}


def test_whose_rows_they_are(watched: Watched) -> None:
    """As columns say, or the configuration."""
    watched.files._settings = watched.files._settings._replace(service="", model="")
    put(watched.folder / "a.csv", "service,model,a\nvision,1,1\nvision,2,1\nsound,1,1\n")
    put(watched.folder / "b.csv", "service,a\nvision,1\n")
    put(watched.folder / "c.csv", "service,model,a\n_idle,1,1\n")
    watched.poll()
    assert watched.counted() == {Key(*owner, "a"): 1 for owner in (("vision", "1"), ("vision", "2"), ("sound", "1"))}
    assert watched.counts == {"samples accepted": 3, "samples invalid": 2}


@pytest.mark.parametrize("by_row", [False, True])
def test_time(watched: Watched, by_row: bool) -> None:  # noqa: FBT001
    """Rows count for when their file was written; or for what their column `time` says, which may be too old."""
    watched.files._settings = watched.files._settings._replace(time="column" if by_row else "file")
    now = time.time()
    times = pa.array([int((now - 1800) * 1e6)] * 60 + [int((now - 900) * 1e6)] * 60).cast(pa.timestamp("us", "UTC"))
    put(watched.folder / "a.parquet", table(120, time=times), age=300)
    put(watched.folder / "old.parquet", table(10, time=[now - 2 * HOUR] * 10), age=300)
    watched.poll()
    slots = [300 * ((now - ago) // 300) for ago in ((1800, 900) if by_row else (300,))]
    assert [began for began, _ in watched.slots()] == slots
    assert watched.counted() == {A: 120 if by_row else 130}
    assert watched.counts["samples late"] == int(by_row)


def test_a_file_that_is_being_written(watched: Watched) -> None:
    """Waits until it has not changed for a while."""
    path = put(watched.folder / "a.parquet", table().slice(0, 10), age=0)
    whole = path.read_bytes()
    put(path, whole[: len(whole) // 2], age=1)
    watched.poll()
    assert watched.counts == {}
    put(path, whole, age=4)
    watched.poll()
    assert watched.counts == {}
    put(path, whole, age=6)
    watched.poll()
    assert watched.counts == {"samples accepted": 10}


def test_a_file_that_changed(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """Is not counted again, which is said once."""
    path = put(watched.folder / "a.csv", table(10))
    watched.poll()
    put(path, table(20), age=30)
    with caplog.at_level(logging.WARNING):
        watched.poll()
        watched.poll()
    assert caplog.messages == [f"{path} changed after it was counted, and is not counted again"]
    assert (watched.counted(), watched.counts) == ({A: 10}, {"samples accepted": 10, "samples changed": 1})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.parquet", b"PAR1 and nothing of the kind", "malformed"),
        ("a.parquet", b"", "malformed"),
        ("a.csv", b"", "malformed"),
        ("a.csv", b"a,a\n1,2\n", "invalid"),
        ("a.csv", b"a\n1,2\n", "malformed"),
        ("a.csv", b"a\n\xff\xfe\n", "dtype"),
        ("a.csv.gz", b"a\n1\n", "malformed"),
        ("a.parquet", table(3, b=[[1], [2], [3]]), "dtype"),
        ("a.parquet", table(300_000, a2=["x"] * 299_999 + ["x" * 201]), "dtype"),
        ("a.csv", "confidence\n2\n", "invalid"),
    ],
)
def test_a_broken_file(
    watched: Watched, caplog: pytest.LogCaptureFixture, name: str, content: pa.Table | bytes, reason: str
) -> None:
    """Is refused once, nothing of it is counted, and the others are; if it is mended it counts."""
    path = put(watched.folder / name, content)
    put(watched.folder / "z.csv", table(10))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            watched.poll()
    (message,) = caplog.messages
    assert message.startswith(f"{path} is not counted: ")
    assert (watched.counted(), watched.counts) == ({A: 10}, {"samples accepted": 10, f"samples {reason}": 1})
    if path.suffix != ".gz":
        put(path, table(5), age=30)
        watched.poll()
        watched.poll()
        assert watched.counted() == {A: 15}


def test_a_feature_that_is_of_words_suddenly(watched: Watched) -> None:
    """The file is refused as a whole, and what it would have changed of others is not kept."""
    put(watched.folder / "a.parquet", table(150))
    put(watched.folder / "b.parquet", pa.table({"0": np.arange(150.0), "a": ["x"] * 150}))
    put(watched.folder / "c.parquet", pa.table({"0": ["y"] * 10, "a": np.arange(10.0)}))
    watched.poll()
    assert watched.counts == {"samples accepted": 160, "samples dtype": 1}
    assert watched.counted() == {A: 160, Key("vision", "yolo", "0"): 10}


def test_a_file_that_cannot_be_read_now(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Waits until it can; which is said once."""
    path = put(watched.folder / "a.csv", table(10))
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):

        def refused(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        patched.setattr(files, "open", refused, raising=False)  # root may read whatever there is
        watched.poll()
        watched.poll()
    assert caplog.messages == [f"{path} cannot be read, and waits: Permission denied"]
    assert (watched.counted(), watched.counts) == ({}, {"samples unreachable": 1})
    watched.poll()
    assert watched.counted() == {A: 10}


@contextmanager
def another(watched: Watched) -> Iterator[Watched]:
    """Another process that watches the same folder, with the same store."""
    with closing(opened(f"{watched.folder.parent}/store")) as store:
        yield Watched(watched.folder, store)


def test_two_who_look(watched: Watched) -> None:
    """At the same time, from two processes: each file is counted once."""
    for place in range(20):
        put(watched.folder / f"{place}.csv", table(30))
    with another(watched) as other:
        threads = [threading.Thread(target=one.poll) for one in (watched, other) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert watched.counts["samples accepted"] + other.counts["samples accepted"] == 600
    assert watched.counted() == {A: 600}


@pytest.mark.alone
def test_killed_while_it_counts(watched: Watched) -> None:
    """At any moment: each file is counted once in the end."""
    number, rows = 40, 3000
    for place in range(number):
        put(watched.folder / f"{place:02}.parquet", table(rows))
    watched.store.close()
    path = f"{watched.folder.parent}/store"

    def work() -> None:
        with closing(opened(path)) as store:
            Watched(watched.folder, store).poll()

    for place in range(12):
        pid = start(work, stay=True)
        time.sleep(0.02 * (place + 1) if place else 0.15)
        os.kill(pid, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    with closing(opened(path)) as store:
        last = Watched(watched.folder, store)
        last.poll()
        assert last.counted() == {A: number * rows}
