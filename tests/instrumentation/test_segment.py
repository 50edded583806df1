"""A segment is written by one process, whatever interrupts it, and belongs to no other."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import infermeter
from infermeter.extent import Extent, Sizes
from infermeter.segment import Segment
from infermeter.segments import Folder, dead
from infermeter.source import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from infermeter.segments import Dump
    from tests.instrumentation.conftest import InChild

LIBRARY = os.path.dirname(infermeter.__file__) + os.sep  # noqa: PTH120  (as in the file names of code)
SMALL = Sizes(table=256, slots=40, records=8, payload=128)


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    """A small one, in a folder of its own."""
    made = Segment(tmp_path, SMALL)
    yield made
    made.close()


def by_key(dump: Dump) -> dict[bytes, list[float]]:
    return {entry.key: dump.values[entry.start : entry.start + entry.width].tolist() for entry in dump.entries}


def only(folder: Path) -> Dump:
    """The dump of the only process."""
    reading = Folder(folder).read()
    assert reading.problems == []
    (dump,) = reading.dumps
    return dump


def set_row(segment: Segment, key: bytes, *values: float) -> None:
    row = segment.row(key, len(values))
    assert row is not None
    row.values[:] = values
    row.touch()


def test_values_become_visible_with_the_commit(segment: Segment, tmp_path: Path) -> None:
    """Not before, and all at once; rows that were not touched keep theirs in both halves."""
    set_row(segment, b"a", 1, 2)
    assert by_key(only(tmp_path)) == {}
    segment.commit()
    assert by_key(only(tmp_path)) == {b"a": [1, 2]}
    for turn in range(5):
        set_row(segment, b"b", turn)
        assert by_key(only(tmp_path)).get(b"b") == ([turn - 1] if turn else None)
        segment.commit()
        assert by_key(only(tmp_path)) == {b"a": [1, 2], b"b": [turn]}


def test_records_are_consumed_with_the_commit(segment: Segment, tmp_path: Path) -> None:
    """They wait until then, in order, and are nobody else's while the process lives."""
    records = [(number, number / 2, b"x" * number) for number in range(5)]
    assert all(segment.append(*record) for record in records)
    assert segment.pending() == records
    segment.commit(3)
    assert segment.pending() == records[3:]
    assert only(tmp_path).records == []
    segment.close()
    assert only(tmp_path).records == records[3:]
    assert not segment.append(1, 0.5, b"x")


def test_a_row_is_one_however_often_it_is_asked_for(segment: Segment) -> None:
    """A key with another width, or another end, is another row."""
    first = segment.row(b"a", 2)
    assert segment.row(b"a", 2) is first
    rows = [first, segment.row(b"a", 3), segment.row(b"a", 2, live=True)]
    assert [row.number for row in rows if row] == [0, 1, 2]


def test_a_full_file_is_continued_in_another(segment: Segment, tmp_path: Path) -> None:
    """Because of its table, of its vector, or of one row that is larger than either; numbers and views go on."""
    expected = {}
    for turn in range(60):
        key, width = b"k" * (turn % 50) + b"%d" % turn, 1 + turn % 7
        set_row(segment, key, *range(turn, turn + width))
        expected[key] = [float(value) for value in range(turn, turn + width)]
        if turn % 3 == 0:
            segment.commit()
    set_row(segment, b"wide", *range(3000))
    set_row(segment, b"l" * 5000, 1)
    set_row(segment, b"k" * 0 + b"0", 7)  # in the first file
    expected |= {b"wide": [float(value) for value in range(3000)], b"l" * 5000: [1.0], b"0": [7.0]}
    folder = Folder(tmp_path)
    segment.commit()
    (dump,) = folder.read().dumps
    assert by_key(dump) == expected
    assert [entry.number for entry in dump.entries] == list(range(62))
    set_row(segment, b"wide", *range(1, 3001))
    segment.commit()
    again = folder.read().dumps[0]
    assert again.entries is dump.entries  # what is derived from it may be kept
    assert by_key(again)[b"wide"][-1] == 3000
    assert len(list(tmp_path.glob("*.extent"))) > 3
    assert not list(tmp_path.glob("*.db"))


def test_no_room_for_a_file_is_an_error_where_it_is_made(tmp_path: Path) -> None:
    """Not a signal that kills the process at its first store; nothing is left behind."""
    with pytest.raises(OSError, match=r"large|space"):
        Segment(tmp_path, Sizes(payload=1 << 62))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        Segment(tmp_path / "missing")


def test_the_lock_lasts_as_long_as_the_process_keeps_it(segment: Segment, tmp_path: Path, in_child: InChild) -> None:
    """A child that forgets it, closes its descriptor and opens the file does not end it; reading does not either."""
    path = next(tmp_path.glob("*.segment"))

    def live() -> bool:
        descriptor = Descriptor(path)
        return not dead(descriptor.number)

    def forget() -> list[object]:
        segment.after_fork_in_child()
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(segment.descriptor)
        return [live(), Folder(tmp_path).read().dumps[0].live, live(), segment.append(1, 0.5, b"x")]

    segment.append(0, 0.5, b"parent")
    segment.commit()
    folder = Folder(tmp_path)
    assert folder.read().dumps[0].live
    assert in_child(live)
    assert in_child(forget) == [True, True, True, False]
    assert in_child(live)
    assert folder.read().dumps[0].live
    assert in_child(live)
    assert segment.pending() == [(0, 0.5, b"parent")]
    segment.close()
    assert not in_child(live)
    assert only(tmp_path).records == [(0, 0.5, b"parent")]


def test_a_child_counts_in_a_segment_of_its_own(segment: Segment, tmp_path: Path, in_child: InChild) -> None:
    """What it does with the old rows, and a commit that it goes on with, is written nowhere."""
    set_row(segment, b"a", 1)
    segment.append(0, 0.5, b"x")
    segment.commit()

    def child() -> None:
        segment.after_fork_in_child()
        set_row(segment, b"a", 100)
        segment.row(b"b", 1)
        segment.commit(1)
        own = Segment(tmp_path, SMALL)
        set_row(own, b"a", 10)
        own.append(0, 0.25, b"y")
        own.commit()

    in_child(child)
    reading = Folder(tmp_path).read()
    assert reading.problems == []
    found = sorted((dump.live, by_key(dump), dump.records) for dump in reading.dumps)
    assert found == [(False, {b"a": [10]}, [(0, 0.25, b"y")]), (True, {b"a": [1]}, [])]
    assert segment.pending() == [(0, 0.5, b"x")]


def test_a_fork_inside_an_append_leaves_the_file_to_the_parent(segment: Segment) -> None:
    """The child goes on in the middle of it, when the parent has long written something else to that place."""
    reader, writer = os.pipe()
    pid = -1

    class Forking(bytes):
        __slots__ = ()

        def __len__(self) -> int:
            nonlocal pid
            pid = os.fork()
            if pid == 0:
                segment.after_fork_in_child()
                os.read(reader, 1)
            return 8

    segment.append(1, 0.5, Forking(b"12345678"))
    if pid == 0:
        os._exit(0)
    segment.commit(1)
    for _ in range(3):
        for turn in range(8):
            assert segment.append(turn, 0.25, b"abcdefgh")
        segment.commit(8)
    for turn in range(8):
        assert segment.append(turn, 0.25, b"parent%02d" % turn)
    os.write(writer, b"x")
    os.waitpid(pid, 0)
    assert segment.pending() == [(turn, 0.25, b"parent%02d" % turn) for turn in range(8)]


class StopError(Exception):
    pass


def interrupted(line: int, work: Callable[[], object]) -> bool:
    """Whether `work` got to this line of the library, counted as they run, where a signal handler raises."""
    seen = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal seen
        # Not in the lines of `row` itself, between which no signal handler runs, for they call nothing.
        # The checkout may be called infermeter too.
        if not frame.f_code.co_filename.startswith(LIBRARY) or frame.f_code is Segment.row.__code__:
            return None
        if event == "line":
            if seen == line:
                raise StopError
            seen += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except StopError:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_commit_that_was_interrupted_is_made_up_for(segment: Segment, tmp_path: Path) -> None:
    """At every line: until the next commit a reader finds the old values or the new, and every record counts once."""
    set_row(segment, b"a", 0)
    set_row(segment, b"other file", *range(50))
    segment.commit()
    row = segment.row(b"a", 1)
    other = segment.row(b"other file", 50)
    assert row is not None
    assert other is not None
    folder = Folder(tmp_path)
    total, line, going = 0, 1, True
    while going:
        assert segment.append(0, 1.0, b"x")
        pending = segment.pending()
        assert len(pending) == 1
        for changed in (row, other):
            changed.values += 1
            changed.touch()
        going = interrupted(line, lambda: segment.commit(1))
        reading = folder.read()
        assert reading.problems == []
        assert by_key(reading.dumps[0])[b"a"] in ([total], [total + 1])
        total += 1
        assert segment.pending() == []
        segment.commit()
        (dump,) = folder.read().dumps
        assert by_key(dump) == {b"a": [total], b"other file": [value + total for value in range(50)]}
        line += 1
    assert line > 40
    segment.close()
    assert only(tmp_path).records == []


def test_a_row_that_was_interrupted_is_made_again(segment: Segment, tmp_path: Path) -> None:
    """At every line, also while another file is made for it: nobody ever finds half of one, and numbers stay unique."""
    for turn in range(1000):
        if not interrupted(turn, partial(segment.row, b"%d" % turn, 40)):
            break
        row = segment.row(b"%d" % turn, 40)
        assert row is not None
        row.values += 1
        row.touch()
        segment.commit()
        assert {key: set(values) for key, values in by_key(only(tmp_path)).items()} == {
            b"%d" % known: {1.0} for known in range(turn + 1)
        }
    assert turn > 10


def test_a_row_made_by_a_signal_handler_in_the_middle_of_another_is_refused(segment: Segment) -> None:
    """It never waits for the thread that it interrupts."""
    inner: list[object] = []

    def trace(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code is Extent.add.__code__ and not inner:
            inner.append(segment.row(b"inner", 1))

    sys.settrace(trace)
    outer = segment.row(b"outer", 1)
    sys.settrace(None)
    assert outer is not None
    assert inner == [None]
    assert segment.row(b"inner", 1) is not None


def test_a_folder_read_before_a_fork_is_read_after_it(tmp_path: Path, in_child: InChild) -> None:
    """The child sees the segment of its parent as that of another process, and its own besides."""
    parent = Segment(tmp_path, SMALL)
    folder = Folder(tmp_path)
    folder.read()

    def child() -> list[bool]:
        parent.after_fork_in_child()
        own = Segment(tmp_path, SMALL)
        live = [dump.live for dump in folder.read().dumps]
        own.close()
        return [*live, *sorted(dump.live for dump in folder.read().dumps)]

    assert in_child(child) == [True, True, False, True]
    assert sorted(dump.live for dump in folder.read().dumps) == [False, True]
    parent.close()
    shutil.rmtree(tmp_path)
    assert folder.read().dumps == []
