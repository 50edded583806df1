"""Nothing is lost and nothing is counted twice when processes are killed, whatever they are at.

What really happened is kept outside of what is tested: a process counts in memory that it shares with the test how many
of its records were taken. One that was being taken at the kill may go either way.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from infermeter.extent import Sizes
from infermeter.reaper import reap
from infermeter.segment import Segment
from infermeter.segments import Folder
from tests.processes import kill, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from infermeter.segments import Dump, Reading

KILLS = int(os.environ.get("INFERMETER_KILLS", "20"))
WORKERS = 8
# Of the instructions at which a process is killed, one in so many; all when it takes as long as it takes.
STRIDE = 1 if "INFERMETER_KILLS" in os.environ else 37
SMALL = Sizes(table=128, slots=16, records=16, payload=256)


class Truth:
    """Numbers that outlive a process which is killed."""

    def __init__(self, length: int) -> None:
        self._memory = mmap.mmap(-1, 8 * length)
        self.numbers = memoryview(self._memory).cast("Q")


def run_killed(step: int, rooms: tuple[str, ...], work: Callable[[], None]) -> bool:
    """Whether a process that does `work` got to this instruction of some modules, counted as they run, and died."""
    files = tuple(f"/infermeter/{room}.py" for room in rooms)

    def traced() -> None:
        seen = 0

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal seen
            if not frame.f_code.co_filename.endswith(files):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1
            return trace

        sys.settrace(trace)
        work()
        sys.settrace(None)

    status = os.waitpid(start(traced), 0)[1]
    assert status in {0, signal.SIGKILL}
    return status != 0


def fold_records(values: dict[int, np.ndarray], records: list[tuple[int, float, bytes]]) -> None:
    """The number of the records, the sum of their seconds, and the sum of their payloads."""
    for number, seconds, payload in records:
        values[number] += (1, seconds, int.from_bytes(payload[:8], "little"))


def fold(dump: Dump) -> dict[bytes, np.ndarray]:
    values = {entry.number: dump.values[entry.start : entry.start + entry.width].copy() for entry in dump.entries}
    fold_records(values, dump.records)
    return {entry.key: values[entry.number] for entry in dump.entries}


def totals(reading: Reading) -> dict[bytes, list[float]]:
    found = {key: values for (key, _), values in reading.accumulator.totals().items()}
    for dump in reading.dumps:
        for key, values in fold(dump).items():
            found[key] = found.get(key, np.zeros(3)) + values
    return {key: values.tolist() for key, values in found.items()}


def sums(count: float) -> list[float]:
    """What `count` records of a row come to, of which the n-th has n seconds and the payload 3n."""
    return [count, count * (count - 1) / 2, 3 * count * (count - 1) / 2]


class Worker:
    """Appends and folds flat out.

    Args:
        counts: of the records of each row that were taken.
        first: index of its first row there.
    """

    def __init__(self, folder: Path, sizes: Sizes, counts: memoryview, first: int) -> None:
        self._segment = Segment(folder, sizes)
        self._counts = counts
        self._first = first
        self._values: dict[int, np.ndarray] = {}
        self._touch: list[Callable[[], None]] = []

    def add_row(self) -> None:
        row = self._segment.row(b"row %d" % (self._first + len(self._values)), 3)
        assert row is not None
        self._values[row.number] = row.values
        self._touch.append(row.touch)

    def append(self, row: int, length: int) -> None:
        count = self._counts[self._first + row]
        if not self._segment.append(row, float(count), (3 * count).to_bytes(8, "little") + bytes(length)):
            self.fold()
            assert self._segment.append(row, float(count), (3 * count).to_bytes(8, "little") + bytes(length))
        self._counts[self._first + row] = count + 1

    def fold(self) -> None:
        records = self._segment.pending()
        fold_records(self._values, records)
        for number in {record[0] for record in records}:
            self._touch[number]()
        self._segment.commit(len(records))


def check(found: dict[bytes, list[float]], counts: memoryview) -> None:
    """Every row has as many records as were taken, or one more, and those are the right ones."""
    for row, count in enumerate(counts):
        values = found.get(b"row %d" % row, [0.0, 0.0, 0.0])
        assert values[0] in {count, count + 1}, f"row {row}: {count} were taken, {values[0]} are counted"
        assert values == sums(values[0])


ROWS = 6  # of each worker that is killed at random


def test_workers_killed_at_random(tmp_path: Path) -> None:
    """Eight of them; what the readers see meanwhile is never torn, and in the end lost 0, doubled 0."""
    sizes = Sizes(table=256, slots=16, records=64, payload=4096)
    truth = Truth(ROWS * (WORKERS + KILLS))
    chance = random.Random(7)
    started = 0

    def new_worker() -> int:
        nonlocal started
        first = ROWS * started
        seed = started
        started += 1

        def work() -> None:
            worker = Worker(tmp_path, sizes, truth.numbers, first)
            mine = random.Random(seed)
            known = 0
            while True:
                if known < ROWS and mine.random() < 0.01:
                    worker.add_row()
                    known += 1
                if known:
                    worker.append(mine.randrange(known), mine.choice((0, 0, 7, 400)))
                if mine.random() < 0.1:
                    worker.fold()

        return start(work)

    pids = [new_worker() for _ in range(WORKERS)]
    folder = Folder(tmp_path)
    last: dict[bytes, list[float]] = {}
    try:
        for turn in range(KILLS):
            time.sleep(chance.uniform(0, 0.05))
            reading = folder.read()
            assert reading.problems == []
            found = totals(reading)
            for row, values in found.items():
                assert values == sums(values[0])
                assert values[0] >= last.get(row, values)[0]
            assert last.keys() <= found.keys()
            last = found
            victim = chance.randrange(WORKERS)
            kill(pids[victim])
            pids[victim] = new_worker()
            if turn % 3 == 0:
                assert reap(folder, fold).problems == []
    finally:
        for pid in pids:
            kill(pid)
    found = totals(folder.read())
    check(found, truth.numbers)
    assert sum(values[0] for values in found.values()) > 100 * KILLS
    assert reap(folder, fold).problems == []
    assert totals(folder.read()) == found
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "accumulator"}


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 does not tell a trace of every instruction")
def test_a_worker_killed_at_any_instruction(tmp_path: Path) -> None:
    """While it makes its files, rows and further files, appends, and commits."""
    step = dead = extents = 0
    killed = True
    while killed:
        folder = tmp_path / str(step)
        folder.mkdir()
        truth = Truth(8)

        def work(folder: Path = folder, truth: Truth = truth) -> None:
            worker = Worker(folder, SMALL, truth.numbers, 0)
            for row in range(8):
                worker.add_row()
                for turn in range(4):
                    worker.append(row // (turn + 1), turn)
                if row % 2:
                    worker.fold()
            worker.append(7, 0)

        killed = run_killed(step, ("segment", "extent", "ring"), work)
        reading = Folder(folder).read()
        assert reading.problems == []
        check(totals(reading), truth.numbers)
        dead += reading.dead
        extents += len(list(folder.glob("*.1.extent")))
        reap(Folder(folder), fold)
        reading = Folder(folder).read()
        check(totals(reading), truth.numbers)
        assert {path.name for path in folder.iterdir()} <= {"lock", "accumulator"}
        shutil.rmtree(folder)
        step += STRIDE
    assert dead > 3000 / STRIDE
    assert extents > 1000 / STRIDE
    assert truth.numbers[7] == 2


@pytest.fixture(scope="module")
def graveyard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An accumulator, two dead processes with second files, one absorbed and not removed, and an unfinished file."""
    folder = tmp_path_factory.mktemp("graveyard")
    truth = Truth(64)
    for first in (0, 8, 16, 24):

        def work(first: int = first) -> None:
            worker = Worker(folder, SMALL, truth.numbers, first)
            for row in range(7):
                worker.add_row()
                worker.append(row, 1)
                worker.append(0, 5)
                if row % 2:
                    worker.fold()

        assert os.waitpid(start(work), 0)[1] == 0
        if first == 8:
            kept = {path: path.read_bytes() for path in folder.iterdir()}
            assert reap(Folder(folder), fold).absorbed == 2
            for path, content in kept.items():
                path.write_bytes(content)
    (folder / f"{'1' * 32}.new").write_bytes(b"half")
    return folder


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 does not tell a trace of every instruction")
def test_the_reaper_killed_at_any_instruction(tmp_path: Path, graveyard: Path) -> None:
    """Whoever reads after it finds the same totals, and the next one finishes its work."""
    expected = totals(Folder(graveyard).read())
    assert sum(values[0] for values in expected.values()) == 4 * 14
    step, killed = 0, True
    written = set()
    while killed:
        folder = tmp_path / str(step)
        shutil.copytree(graveyard, folder)

        def work(folder: Path = folder) -> None:
            reap(Folder(folder), fold)

        killed = run_killed(step, ("reaper", "accumulator"), work)
        reading = Folder(folder).read()
        assert (totals(reading), reading.problems) == (expected, [])
        written.add((reading.accumulator.serial, len(list(folder.iterdir()))))
        assert reap(Folder(folder), fold).problems == []
        reading = Folder(folder).read()
        assert (totals(reading), reading.dumps) == (expected, [])
        reap(Folder(folder), fold)
        left = {path.name for path in folder.iterdir()} - {"accumulator.new"}
        assert left <= {"lock", "accumulator"}
        shutil.rmtree(folder)
        step += STRIDE
    assert len(written) > 5  # before, in the middle of, and after what it wrote and removed


def test_the_reaper_killed_at_every_call_of_the_system(tmp_path: Path, graveyard: Path) -> None:
    """Before and after each: the new accumulator is written, synchronised and named, and files are removed."""
    expected = totals(Folder(graveyard).read())
    step, killed = 0, True
    while killed:
        folder = tmp_path / str(step)
        shutil.copytree(graveyard, folder)

        def work(step: int = step, folder: Path = folder) -> None:
            seen = 0
            for name in ("open", "write", "fsync", "replace", "unlink", "close", "pread"):
                real = getattr(os, name)

                def counted(*args: Any, real: Any = real, **options: Any) -> Any:
                    nonlocal seen
                    if seen == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    seen += 1
                    done = real(*args, **options)
                    if seen == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    seen += 1
                    return done

                setattr(os, name, counted)
            reap(Folder(folder), fold)

        status = os.waitpid(start(work), 0)[1]
        assert status in {0, signal.SIGKILL}
        killed = status != 0
        reading = Folder(folder).read()
        assert (totals(reading), reading.problems) == (expected, [])
        assert reap(Folder(folder), fold).problems == []
        reading = Folder(folder).read()
        assert (totals(reading), reading.dumps) == (expected, [])
        shutil.rmtree(folder)
        step += 1
    assert step > 60


def test_reapers_and_readers_at_once(tmp_path: Path) -> None:
    """Several of each, some killed: only one reaps, and no total ever falls."""
    truth = Truth(400)
    folder = Folder(tmp_path)

    def reaping() -> None:
        while True:
            reap(folder, fold)

    reapers = [start(reaping) for _ in range(3)]
    counted = 0.0
    try:
        for turn in range(40):

            def work(turn: int = turn) -> None:
                worker = Worker(tmp_path, SMALL, truth.numbers, turn)
                worker.add_row()
                for length in range(20):
                    worker.append(0, length)

            assert os.waitpid(start(work), 0)[1] == 0
            reading = folder.read()
            assert reading.problems == []
            now = sum(values[0] for values in totals(reading).values())
            assert now == counted + 20
            counted = now
            if turn % 5 == 0:
                kill(reapers.pop(0))
                reapers.append(start(reaping))
    finally:
        for pid in reapers:
            kill(pid)
    reap(folder, fold)
    check(totals(folder.read()), truth.numbers)
