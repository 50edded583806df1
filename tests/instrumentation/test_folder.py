"""Whoever reads a folder gets what all processes counted, and is not harmed by what else lies there."""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infermeter import accumulator
from infermeter.extent import HEADER, Sizes
from infermeter.reaper import reap
from infermeter.segment import Segment
from infermeter.segments import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from infermeter.segments import Dump, Reading

SMALL = Sizes(table=96, slots=8, records=4, payload=64)


def leave(folder: Path, *, count: float = 1, live: float = 1) -> str:
    """What a process leaves that counted `count`, and observed one more."""
    segment = Segment(folder, SMALL)
    counter, gauge = segment.row(b"counter", 2), segment.row(b"gauge", 1, live=True)
    assert counter is not None
    assert gauge is not None
    counter.values[:] = (count, 10 * count)
    gauge.values[:] = live
    counter.touch()
    gauge.touch()
    segment.commit()
    segment.append(counter.number, 10.0, b"payload")
    segment.close()
    return segment.identity


def fold(dump: Dump) -> dict[bytes, np.ndarray]:
    """The values of a dead process, with its records in them."""
    values = {entry.key: dump.values[entry.start : entry.start + entry.width].copy() for entry in dump.entries}
    for number, seconds, payload in dump.records:
        assert payload == b"payload"
        values[dump.entries[number].key] += (1, seconds)
    return values


def total(reading: Reading) -> list[float]:
    """The counter over all processes."""
    found = np.zeros(2)
    for dump in reading.dumps:
        found += fold(dump).get(b"counter", np.zeros(2))
    found += reading.accumulator.totals().get((b"counter", 2), np.zeros(2))
    return found.tolist()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lock", "accumulator"}


def test_an_empty_and_a_missing_folder(tmp_path: Path) -> None:
    """Nothing is there, and nothing raises."""
    reading = Folder(tmp_path).read()
    assert (reading.dumps, reading.accumulator.entries, reading.problems) == ([], (), [])
    missing = Folder(tmp_path / "missing")
    assert [problem.reason for problem in missing.read().problems] == ["No such file or directory"]
    assert [problem.reason for problem in reap(missing, fold).problems] == []


def test_the_dead_are_absorbed_once(tmp_path: Path) -> None:
    """Totals stay what they are, rows that end with their process end, and files go."""
    leave(tmp_path, count=3)
    leave(tmp_path, count=4)
    living = Segment(tmp_path, SMALL)
    folder = Folder(tmp_path)
    reading = folder.read()
    assert (reading.dead, total(reading)) == (2, [9, 90])
    assert reap(folder, fold) == (2, [])
    for _ in range(3):
        reading = folder.read()
        assert [entry.key for entry in reading.accumulator.entries] == [b"counter"]
        assert (reading.dead, total(reading), reading.problems) == (0, [9, 90], [])
        assert names(tmp_path) == {living.identity + ".segment"}
        assert reap(folder, fold) == (0, [])
    leave(tmp_path, count=1)
    assert total(Folder(tmp_path).read()) == [11, 110]
    assert reap(Folder(tmp_path), fold) == (1, [])
    assert total(folder.read()) == [11, 110]
    living.close()


def test_who_is_absorbed_is_skipped_until_the_files_are_gone(tmp_path: Path) -> None:
    """A reaper that was killed left them; the next one removes them and forgets the name."""
    identity = leave(tmp_path)
    path = tmp_path / (identity + ".segment")
    content = path.read_bytes()
    folder = Folder(tmp_path)
    reap(folder, fold)
    path.write_bytes(content)
    (tmp_path / (identity + ".1.extent")).touch()
    reading = folder.read()
    assert (total(reading), len(reading.dumps), set(reading.accumulator.absorbed)) == ([2, 20], 0, {identity})
    other = leave(tmp_path)
    assert reap(folder, fold) == (1, [])
    reading = folder.read()
    assert (total(reading), set(reading.accumulator.absorbed)) == ([4, 40], {other})
    assert names(tmp_path) == set()


def test_what_was_killed_while_it_was_made_is_removed(tmp_path: Path) -> None:
    """Files without their final name, and second files without a first."""
    (tmp_path / f"{'1' * 32}.new").write_bytes(b"half")
    (tmp_path / f"{'2' * 32}.3.extent").write_bytes(b"half")
    reap(Folder(tmp_path), fold)
    assert names(tmp_path) == set()


def test_a_fold_that_raises_leaves_the_segment(tmp_path: Path) -> None:
    """It is named, the others are absorbed, and it can be absorbed later."""
    identity = leave(tmp_path, count=3)
    leave(tmp_path, count=4)
    folder = Folder(tmp_path)

    def picky(dump: Dump) -> dict[bytes, np.ndarray]:
        if dump.identity == identity:
            raise ValueError("no")
        return fold(dump)

    assert reap(folder, picky) == (1, [(identity + ".segment", "ValueError: no")])
    assert total(folder.read()) == [9, 90]
    assert reap(folder, fold) == (1, [])
    assert total(folder.read()) == [9, 90]


def test_more_dead_than_one_run_absorbs(tmp_path: Path) -> None:
    """The lock is not held for all of them at once."""
    identity = leave(tmp_path)
    content = (tmp_path / (identity + ".segment")).read_bytes()
    for number in range(299):
        renamed = content[:16] + number.to_bytes(16, "big") + content[32:]
        header = renamed[: HEADER.size - 4]
        renamed = header + struct.pack("=I", zlib.crc32(header)) + renamed[HEADER.size :]
        (tmp_path / f"{number:032x}.segment").write_bytes(renamed)
    folder = Folder(tmp_path)
    assert total(folder.read()) == [600, 6000]
    assert [reap(folder, fold).absorbed for _ in range(3)] == [256, 44, 0]
    assert total(folder.read()) == [600, 6000]


def damage(folder: Path, path: Path, contents: list[bytes], expected: Callable[[Reading], None]) -> None:
    """Have each of `contents` read in the place of a file."""
    for content in contents:
        path.write_bytes(content)
        expected(Folder(folder).read())


@pytest.fixture
def healthy_and(tmp_path: Path) -> Path:
    """A folder with an accumulator and a healthy dead segment, which count 2 each, and one to damage."""
    leave(tmp_path)
    reap(Folder(tmp_path), fold)
    leave(tmp_path)
    return tmp_path / (leave(tmp_path, count=4) + ".segment")


def test_every_flipped_byte_of_a_segment(healthy_and: Path) -> None:
    """Its neighbours are exact; itself is exact or skipped and named, but for records, which have no checksum."""
    content = healthy_and.read_bytes()
    identity = healthy_and.stem
    (whole,) = (dump for dump in Folder(healthy_and.parent).read().dumps if dump.identity == identity)
    skipped = 0

    def check(reading: Reading) -> None:
        nonlocal skipped
        neighbours = [dump for dump in reading.dumps if dump.identity != identity]
        assert total(reading._replace(dumps=neighbours)) == [4, 40]
        damaged = [dump for dump in reading.dumps if dump.identity == identity]
        if damaged:
            assert damaged[0].entries == whole.entries
            assert damaged[0].values.tolist() == whole.values.tolist()
        else:
            assert {problem.name for problem in reading.problems} == {healthy_and.name}
            skipped += 1

    flipped = [content[:at] + bytes([content[at] ^ 0xA5]) + content[at + 1 :] for at in range(len(content))]
    damage(healthy_and.parent, healthy_and, flipped, check)
    assert skipped > 250


def test_every_length_of_a_segment(healthy_and: Path) -> None:
    """One that was cut off is skipped and named."""
    content = healthy_and.read_bytes()

    def check(reading: Reading) -> None:
        assert [problem.name for problem in reading.problems] == [healthy_and.name]
        assert total(reading) == [4, 40]

    damage(healthy_and.parent, healthy_and, [content[:length] for length in range(len(content))], check)


def test_every_flipped_byte_and_length_of_an_accumulator(healthy_and: Path) -> None:
    """It is named, and the dead are read all the same; the reaper sets it aside and begins anew."""
    path = healthy_and.parent / "accumulator"
    content = path.read_bytes()

    def check(reading: Reading) -> None:
        assert [problem.name for problem in reading.problems] == ["accumulator"]
        assert total(reading) == [7, 70]

    cut = [content[:length] for length in range(len(content))]
    damage(healthy_and.parent, path, cut, check)
    flipped = [content[:at] + bytes([content[at] ^ 0xA5]) + content[at + 1 :] for at in range(len(content))]
    damage(healthy_and.parent, path, flipped, check)
    path.write_bytes(cut[-1])
    folder = Folder(path.parent)
    assert reap(folder, fold) == (2, [("accumulator", "it has another checksum")])
    assert (total(folder.read()), names(path.parent)) == ([7, 70], {"accumulator.damaged"})


def test_versions_from_the_future_and_strangers(healthy_and: Path) -> None:
    """They are skipped, named, and left alone by the reaper, who overwrites no accumulator of a later version."""
    folder = healthy_and.parent
    content = healthy_and.read_bytes()
    stranger = b"SQLite format 3\0" + content[16:]
    for damaged, reason in ((content[:8] + b"\2" + content[9:], "version 2, expected 1"), (stranger, "is no segment")):
        healthy_and.write_bytes(damaged)
        (problem,) = Folder(folder).read().problems
        assert problem.name == healthy_and.name
        assert reason in problem.reason
        assert total(Folder(folder).read()) == [4, 40]
        reap(Folder(folder), fold)
        assert healthy_and.read_bytes() == damaged
        assert total(Folder(folder).read()) == [4, 40]
    later = (folder / "accumulator").read_bytes()
    later = later[:8] + b"\2" + later[9:]
    (folder / "accumulator").write_bytes(later)
    leave(folder, count=6)
    assert reap(Folder(folder), fold) == (0, [("accumulator", "it has version 2, expected 1")])
    assert (folder / "accumulator").read_bytes() == later
    assert total(Folder(folder).read()) == [7, 70]


def test_things_that_are_no_files(healthy_and: Path) -> None:
    """A pipe, a directory and a dangling link under our names: nothing hangs."""
    folder = healthy_and.parent
    os.mkfifo(folder / f"{'1' * 32}.segment")
    (folder / f"{'2' * 32}.segment").mkdir()
    (folder / f"{'3' * 32}.segment").symlink_to("nowhere")
    (folder / "counter_1234.db").write_bytes(b"of somebody else")
    reading = Folder(folder).read()
    assert [problem.name[0] for problem in reading.problems] == ["1", "2"]
    assert total(reading) == [9, 90]


def test_a_damaged_second_file_spoils_only_its_own_rows(tmp_path: Path) -> None:
    """The rest is read, and waits for the reaper until somebody looked at it."""
    segment = Segment(tmp_path, SMALL)
    for number in range(20):
        row = segment.row(b"row %d" % number, 1)
        assert row is not None
        row.values[:] = number
        row.touch()
    segment.commit()
    segment.close()
    paths = sorted(tmp_path.glob("*.extent"))
    assert len(paths) > 1
    first = Folder(tmp_path).read().dumps[0]
    content = paths[0].read_bytes()
    flipped = content.replace(b"row ", b"now ", 1)
    for damaged in (content[:-1], flipped, content[:8] + b"\2" + content[9:], None):
        if damaged is None:
            paths[0].unlink()
        else:
            paths[0].write_bytes(damaged)
        reading = Folder(tmp_path).read()
        assert [problem.name for problem in reading.problems] == [paths[0].name]
        (dump,) = reading.dumps
        assert 0 < len(dump.entries) < len(first.entries)
        assert {entry.key: dump.values[entry.start] for entry in dump.entries} == {
            b"row %d" % entry.number: entry.number for entry in dump.entries
        }
        assert reap(Folder(tmp_path), fold).absorbed == 0


def test_every_flipped_byte_of_a_living_segment(tmp_path: Path) -> None:
    """A reader that cannot be sure tries again, and not for ever."""
    segment = Segment(tmp_path, SMALL)
    row = segment.row(b"counter", 2)
    assert row is not None
    row.values[:] = (4, 40)
    row.touch()
    segment.commit()
    number = segment.descriptor
    content = os.pread(number, 10000, 0)
    for at in range(len(content)):
        os.pwrite(number, bytes([content[at] ^ 0x5A]), at)
        reading = Folder(tmp_path).read()
        assert total(reading) == [4, 40] or len(reading.problems) == 1
        os.pwrite(number, content[at : at + 1], at)
    assert total(Folder(tmp_path).read()) == [4, 40]
    segment.close()


def test_a_reader_without_the_lock_reads_all_the_same(tmp_path: Path) -> None:
    """Somebody else may keep it for long; a reaper leaves it then."""
    leave(tmp_path)
    folder = Folder(tmp_path)
    with Folder(tmp_path).locked(fcntl.LOCK_EX) as held:
        assert held
        assert total(folder.read()) == [2, 20]
        assert reap(folder, fold) == (0, [])
    assert reap(folder, fold) == (1, [])


def test_readers_share_the_lock(tmp_path: Path) -> None:
    """Also threads of one process."""
    with Folder(tmp_path).locked(fcntl.LOCK_SH) as one, Folder(tmp_path).locked(fcntl.LOCK_SH) as two:
        assert (one, two) == (True, True)


class LocklessFolder(Folder):
    """Never gets the lock."""

    @contextmanager
    def locked(self, how: int) -> Iterator[bool]:
        yield False


def test_a_reaper_in_between_is_noticed_without_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accumulator that was read before it and the files that are there after it do not fit together."""
    leave(tmp_path)
    leave(tmp_path, count=4)
    read = accumulator.read
    reaped = []

    def read_and_reap(path: Path) -> accumulator.Accumulator:
        monkeypatch.undo()
        before = read(path)
        reaped.append(reap(Folder(tmp_path), fold))
        return before

    monkeypatch.setattr(accumulator, "read", read_and_reap)
    assert total(LocklessFolder(tmp_path).read()) == [7, 70]
    assert reaped == [(2, [])]


def test_a_fork_while_the_lock_is_held_does_not_keep_it(tmp_path: Path) -> None:
    """The child gives up what it inherited, though it lives on."""
    reader, writer = os.pipe()
    with Folder(tmp_path).locked(fcntl.LOCK_SH) as held:
        assert held
        pid = os.fork()
        if pid == 0:
            os.read(reader, 1)
            os._exit(0)
    with Folder(tmp_path).locked(fcntl.LOCK_EX) as held:
        assert held
    os.write(writer, b"x")
    os.waitpid(pid, 0)
