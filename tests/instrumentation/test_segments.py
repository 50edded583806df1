"""Segments in a folder: nothing is lost and nothing counted twice, whoever is killed at whatever moment."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermeter.extent import Sizes
from infermeter.reaper import reap
from infermeter.segment import Segment
from infermeter.segments import Dump, Folder, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WORKERS = 8
KILLS = int(os.environ.get("INFERMETER_KILLS", "24"))
SMALL = Sizes(table=256, slots=16, records=8, payload=128)
STEPS = ("replace", "rename", "unlink", "fsync", "open", "write", "close", "pread", "listdir")


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def payload_of(seconds: int) -> bytes:
    """A payload of which every byte tells whose it is."""
    return bytes([seconds]) * seconds


def folded(dump: Dump) -> Mapping[bytes, np.ndarray[Any, Any]]:
    """The values by key, each record counted in the row of its number: how many, and the sum of the seconds."""
    values = dump.values.copy()
    for number, seconds, payload in dump.records:
        start = dump.entries[number].start
        assert payload == payload_of(int(seconds))
        values[start] += 1
        values[start + 1] += seconds
    return {entry.key: values[entry.start : entry.start + entry.width] for entry in dump.entries}


def totals(reading: Reading) -> dict[bytes, list[float]]:
    """What all processes counted, the absorbed ones too."""
    found: dict[bytes, Any] = {key: values for (key, _), values in reading.accumulator.totals().items()}
    for dump in reading.dumps:
        for key, values in folded(dump).items():
            found[key] = found.get(key, 0) + values
    return {key: values.tolist() for key, values in found.items()}


def forked(work: Callable[[], object]) -> int:
    """A child that does some work, or is killed in its middle."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def observe_flat_out(folder: Path, key: bytes, truth: Path) -> None:
    """Append, fold and commit until killed; the file tells how many appends began and how many returned."""
    words = np.memmap(truth, np.uint64, "r+", shape=(2,))
    segment = Segment(folder)
    row = segment.row(key, 2)
    assert row is not None
    chance = random.Random(key)
    count = 0
    while True:
        seconds = chance.randrange(200)
        words[0] = count + 1
        while not segment.append(row.number, float(seconds), payload_of(seconds)):
            fold(segment, row)
        count += 1
        words[1] = count
        if chance.random() < 0.01:
            fold(segment, row)


def fold(segment: Segment, row: Any) -> None:
    """Move what waits into the row, and commit."""
    records = segment.pending()
    assert all(payload == payload_of(int(seconds)) for _, seconds, payload in records)
    row.values[0] += len(records)
    row.values[1] += sum(seconds for _, seconds, _ in records)
    row.touch()
    segment.commit(len(records))


def test_a_kill_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """Of processes that observe flat out and are killed at random, before and after they are reaped."""
    shared = tmp_path / "shared"
    shared.mkdir()
    folder, chance = Folder(shared), random.Random(7)
    expected: dict[bytes, int] = {}
    for number in range(-(-KILLS // WORKERS)):
        workers: dict[bytes, tuple[int, Path]] = {}
        for worker in range(WORKERS):
            key, truth = f"{number}-{worker}".encode(), tmp_path / f"{number}-{worker}"
            truth.write_bytes(bytes(16))
            workers[key] = (forked(lambda key=key, truth=truth: observe_flat_out(shared, key, truth)), truth)  # type: ignore[misc]
        while not all(np.fromfile(truth, np.uint64)[1] for _, truth in workers.values()):
            time.sleep(0.001)
        for pid, _ in workers.values():
            time.sleep(chance.random() * 0.01)
            folder.read()
            os.kill(pid, signal.SIGKILL)
        for pid, _ in workers.values():
            os.waitpid(pid, 0)
        found = totals(folder.read())
        for key, (_, truth) in workers.items():
            began, returned = np.fromfile(truth, np.uint64).tolist()
            assert returned <= found[key][0] <= began
            expected[key] = int(found[key][0])
            sums = random.Random(key)
            assert found[key][1] == seconds_of(sums, expected[key])
        reaped = reap(folder, folded)
        assert (reaped.absorbed, reaped.problems) == (WORKERS, [])
        assert {key: count for key, (count, _) in totals(folder.read()).items()} == expected
    reap(folder, folded)
    assert [name for name in names(shared) if name.endswith(".segment")] == []


def seconds_of(chance: random.Random, count: int) -> float:
    """The sum of the seconds of the first records of a worker."""
    total = 0
    for _ in range(count):
        total += chance.randrange(200)
        chance.random()
    return float(total)


def dead_segments(folder: Path, number: int) -> None:
    """Leave behind segments of processes that are dead: one value committed, one record not."""
    for index in range(number):
        os.waitpid(forked(lambda index=index: leave(folder, index)), 0)  # type: ignore[misc]


def leave(folder: Path, index: int) -> None:
    """Count, and die."""
    segment = Segment(folder, SMALL)
    row = segment.row(b"key", 2)
    assert row is not None
    row.values[:] = 1, index
    row.touch()
    segment.commit()
    assert segment.append(row.number, 3.0, payload_of(3))


@pytest.mark.parametrize("step", STEPS)
def test_a_reaper_that_is_killed_is_no_loss(tmp_path: Path, step: str) -> None:
    """Before and after each call that it makes to the system, whichever it is."""
    for number in range(1, 200):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        dead_segments(folder, 3)
        status = os.waitpid(forked(lambda number=number, folder=folder: reap_until(folder, step, number)), 0)[1]  # type: ignore[misc]
        assert totals(Folder(folder).read()) == {b"key": [6, 3 + 9]}
        reap(Folder(folder), folded)
        reap(Folder(folder), folded)
        assert totals(Folder(folder).read()) == {b"key": [6, 3 + 9]}
        assert names(folder) == ["accumulator", "lock"]
        if status == 0:
            break
    else:
        pytest.fail("the reaper never came to its end")


def reap_until(folder: Path, step: str, number: int) -> None:
    """Reap, killed right after so many calls of one kind."""
    import posix

    real, calls = getattr(os, step), 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = real(*arguments, **options)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    assert hasattr(posix, step)
    setattr(os, step, counted)
    reap(Folder(folder), folded)


def test_reads_of_a_writer_that_commits_flat_out_are_never_torn(tmp_path: Path) -> None:
    """Both halves of a row are of one commit, and no read goes back in time."""

    def write() -> None:
        segment = Segment(tmp_path, Sizes(slots=4096))
        row = segment.row(b"key", 2000)
        assert row is not None
        while True:
            row.values += 1
            row.touch()
            segment.commit()

    pid = forked(write)
    folder, last = Folder(tmp_path), 0.0
    try:
        reads, until = 0, time.monotonic() + 60
        while reads < 400 or (last == 0 and time.monotonic() < until):  # the writer may be slow to begin
            reads += 1
            reading = folder.read()
            for dump in reading.dumps:
                assert len(set(dump.values.tolist())) <= 1
                if len(dump.values):
                    assert dump.values[0] >= last
                    last = dump.values[0]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert last > 0


def test_damage_is_skipped_and_named(tmp_path: Path) -> None:
    """Every byte flipped, every length: no exception, and what is healthy is exact."""
    dead_segments(tmp_path, 2)
    files = [name for name in names(tmp_path) if name.endswith(".segment")]
    victim = tmp_path / files[0]
    whole = victim.read_bytes()
    (healthy,) = [dump for dump in Folder(tmp_path).read().dumps if files[1].startswith(dump.identity)]
    expected = folded(healthy)[b"key"].tolist()
    seen = set()
    for at in range(len(whole)):
        for content in (whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :], whole[:at]):
            victim.write_bytes(content)
            reading = Folder(tmp_path).read()
            mine = {dump.identity: dump for dump in reading.dumps}
            assert folded(mine[healthy.identity])[b"key"].tolist() == expected
            seen |= {problem.name for problem in reading.problems}
    assert seen == {files[0]}


def test_ten_thousand_restarts_leave_nothing_behind(tmp_path: Path) -> None:
    """Counters go on where the dead left off, and the folder stays small."""
    folder = Folder(tmp_path)
    most = 0
    for number in range(10_000):
        segment = Segment(tmp_path, SMALL)
        row = segment.row(b"key", 1)
        assert row is not None
        row.values += 1
        row.touch()
        segment.commit()
        segment.close()
        if number % 100 == 99:
            reap(folder, folded)
            most = max(most, len(names(tmp_path)))
            assert totals(folder.read()) == {b"key": [number + 1]}
    assert most < 120
    reap(folder, folded)
    assert names(tmp_path) == ["accumulator", "lock"]


def test_rows_beyond_the_first_file_are_rows_like_others(tmp_path: Path) -> None:
    """Tables and vectors go on in further files, of the living and of the dead."""

    def write() -> None:
        segment = Segment(tmp_path, SMALL)
        rows = [segment.row(f"key-{number}".encode(), 2) for number in range(200)]
        for number, row in enumerate(rows):
            assert row is not None
            row.values[:] = number, 2 * number
            row.touch()
        segment.commit()
        assert segment.append(150, 0.0, b"")

    os.waitpid(forked(write), 0)
    expected = {f"key-{n}".encode(): [n + (n == 150), 2 * n] for n in range(200)}
    folder = Folder(tmp_path)
    assert totals(folder.read()) == expected
    assert reap(folder, folded).absorbed == 1
    assert totals(folder.read()) == expected


def test_rows_that_live_with_their_process_die_with_it(tmp_path: Path) -> None:
    """Gauges of the dead are gone; their counters stay."""

    def write() -> None:
        segment = Segment(tmp_path, SMALL)
        for key, live in ((b"gauge", True), (b"counter", False)):
            row = segment.row(key, 1, live=live)
            assert row is not None
            row.values[:] = 5
            row.touch()
        segment.commit()

    os.waitpid(forked(write), 0)
    folder = Folder(tmp_path)
    reap(folder, folded)
    assert totals(folder.read()) == {b"counter": [5]}


def test_a_forked_child_leaves_its_parent_the_segment(tmp_path: Path) -> None:
    """It writes nowhere, and neither its forgetting nor its end takes the lock from the parent."""
    segment = Segment(tmp_path, SMALL)
    row = segment.row(b"key", 2)
    assert row is not None

    def work() -> None:
        segment.after_fork_in_child()
        segment.append(row.number, 7.0, bytes(7))
        row.values[:] = 9
        segment.commit()

    os.waitpid(forked(work), 0)
    assert segment.append(row.number, 2.0, payload_of(2))
    os.waitpid(forked(lambda: reap(Folder(tmp_path), folded)), 0)
    (dump,) = Folder(tmp_path).read().dumps
    assert (dump.live, dump.values.tolist()) == (True, [])
    fold(segment, row)
    assert totals(Folder(tmp_path).read()) == {b"key": [1, 2]}
    segment.close()


def test_an_append_within_an_append_is_refused(tmp_path: Path) -> None:
    """As a signal handler may try it: nothing waits for itself, and the outer one goes on."""
    segment = Segment(tmp_path, SMALL)
    row = segment.row(b"key", 2)
    assert row is not None
    inner: list[bool] = []
    number = row.number

    class Payload(bytes):
        def __len__(self) -> int:
            inner.append(segment.append(number, 1.0, b"a"))
            return super().__len__()

    assert segment.append(row.number, 1.0, Payload(b"b"))
    assert inner == [False]
    assert segment.pending() == [(row.number, 1.0, b"b")]
    segment.close()


def test_a_full_ring_says_so(tmp_path: Path) -> None:
    """By number of records and by bytes; after a commit there is room again, and every record was kept in order."""
    segment = Segment(tmp_path, SMALL)
    row = segment.row(b"key", 2)
    assert row is not None
    kept = [(0, float(number), bytes([number % 256] * (number % 50))) for number in range(300)]
    found: list[tuple[int, float, bytes]] = []
    for record in kept:
        if not segment.append(*record):
            found += segment.pending()
            segment.commit(len(segment.pending()))
            assert segment.append(*record)
    found += segment.pending()
    assert found == kept
    assert not segment.append(0, 1.0, bytes(1000))
    segment.close()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(st.integers(0, 127), st.tuples(st.just("commit"), st.integers(0, 8))), max_size=120))
def test_the_ring_agrees_with_a_list(steps: list[Any]) -> None:
    """Payloads of any length, and folds that take some of what waits: what waits is what was put in and not taken."""
    with tempfile.TemporaryDirectory() as folder:
        segment = Segment(Path(folder), SMALL)
        waiting: list[tuple[int, float, bytes]] = []
        for number, step in enumerate(steps):
            if isinstance(step, tuple):
                taken = min(step[1], len(waiting))
                assert segment.pending() == waiting
                segment.commit(taken)
                del waiting[:taken]
            else:
                record = (number, float(number), bytes([number]) * step)
                if segment.append(*record):
                    waiting.append(record)
                else:
                    assert waiting  # an empty ring takes whatever fits into it
        assert segment.pending() == waiting
        segment.close()
