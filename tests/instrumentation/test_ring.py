"""The ring keeps what was observed, in order, whole, and never more than it has room for."""

from __future__ import annotations

import mmap
import random
import signal
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermeter.extent import DESCRIPTOR, Layout, Sizes
from infermeter.ring import Record, Ring, remains

if TYPE_CHECKING:
    from types import FrameType


def new_ring(records: int = 8, payload: int = 64) -> tuple[Ring, Layout, mmap.mmap]:
    layout = Layout(Sizes(table=64, slots=8, records=records, payload=payload))
    file = mmap.mmap(-1, layout.size)
    return Ring(file, layout), layout, file


def left(file: mmap.mmap, layout: Layout, tail: int) -> tuple[list[Record], int]:
    """What a reader of the dead finds."""
    return remains(file[layout.descriptors : layout.payload], file[layout.payload : layout.size], layout, tail)


STEPS = st.lists(st.one_of(st.integers(0, 40), st.just("fold")), max_size=60)


@given(steps=STEPS, records=st.sampled_from([1, 2, 3, 8]), payload=st.sampled_from([16, 40, 64]))
@settings(max_examples=300, deadline=None)
def test_whatever_is_kept_is_read_once_and_in_order(steps: list[int | str], records: int, payload: int) -> None:
    """By the process while it lives, and by others after any step; an empty ring has room for all that fits at all."""
    ring, layout, file = new_ring(records, payload)
    kept: list[Record] = []
    folded = 0
    for number, step in enumerate(steps):
        if isinstance(step, int):
            record = (number, number / 3, bytes([number]) * step)
            appended = ring.append(*record)
            if len(kept) == folded:
                assert appended == (step <= payload)
            if appended:
                kept.append(record)
        else:
            folded += (len(kept) - folded + 1) // 2
            ring.release(folded)
        assert ring.pending(ring.tail) == kept[folded:]
        assert left(file, layout, folded) == (kept[folded:], 0)


def test_a_full_ring_refuses_until_it_is_folded() -> None:
    """Records and bytes are bounded, and both come back."""
    ring, _, _ = new_ring(records=4, payload=64)
    assert [ring.append(1, 0.5, b"x" * 8) for _ in range(5)] == [True] * 4 + [False]
    ring.release(4)
    assert [ring.append(1, 0.5, b"x" * 30) for _ in range(3)] == [True, True, False]
    ring.release(6)
    assert not ring.append(1, 0.5, b"x" * 65)
    assert ring.append(1, 0.5, b"x" * 64)


def test_a_record_that_cannot_be_packed_leaves_nothing() -> None:
    """The error is the caller's, and the ring goes on."""
    ring, layout, file = new_ring()
    with pytest.raises(struct.error):
        ring.append(-1, 0.5, b"abc")
    assert ring.append(1, 0.5, b"x")
    assert ring.pending(ring.tail) == [(1, 0.5, b"x")]
    assert left(file, layout, 0) == ([(1, 0.5, b"x")], 0)


def test_the_reader_of_the_dead_skips_holes() -> None:
    """A descriptor that is not published, or points nowhere, is counted; the others are read."""
    ring, layout, file = new_ring()
    records = [(number, 0.5, b"abc") for number in range(6)]
    for record in records:
        ring.append(*record)
    at = layout.descriptors
    size = DESCRIPTOR.itemsize
    file[at + size + 24 : at + size + 32] = bytes(8)  # the sequence of the second
    file[at + 3 * size + 16 : at + 3 * size + 24] = b"\xff" * 8  # the position of the fourth
    file[at + 4 * size + 4 : at + 4 * size + 8] = b"\xff" * 4  # the length of the fifth
    assert left(file, layout, 0) == ([records[0], records[2], records[5]], 3)
    assert ring.pending(ring.tail) == records[:1]  # the living stop at the first


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 does not tell a trace of every instruction")
def test_an_append_inside_an_append_is_refused_or_kept_at_every_instruction() -> None:
    """A signal handler may come anywhere: both know what became of their record, and nothing hangs."""
    answers = set()
    count, reached = 0, True
    while reached:
        ring, layout, file = new_ring()
        nested = appended_inside(ring, count)
        reached = nested is not None
        expected = [(1, 1.0, b"one")] + [(2, 2.0, b"two")] * bool(nested)
        assert sorted(ring.pending(ring.tail)) == expected
        assert left(file, layout, 0) == (ring.pending(ring.tail), 0)
        assert ring.append(3, 3.0, b"three")
        answers.add(nested)
        count += 1
    assert count > 50
    assert answers == {True, False, None}


def appended_inside(ring: Ring, count: int) -> bool | None:
    """What an append after so many instructions of another one gave; None if that one was done before."""
    seen, nested = 0, None

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal seen, nested
        if frame.f_code is not append.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if seen == count:
                nested = ring.append(2, 2.0, b"two")
            seen += 1
        return trace

    append: Any = ring.append
    sys.settrace(trace)
    outer = append(1, 1.0, b"one")
    sys.settrace(None)
    assert outer
    return nested


class StopError(Exception):
    pass


def test_a_signal_handler_that_raises_leaves_the_ring_working() -> None:
    """An append either returned, or its record is there at most once; the next one works."""
    ring, _, _ = new_ring(records=4096, payload=1 << 16)
    returned = interrupted = read = 0
    armed = False

    def handle(number: int, frame: FrameType | None) -> None:
        if armed:
            raise StopError

    previous = signal.signal(signal.SIGALRM, handle)
    try:
        while interrupted < 300:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-4))
            try:
                armed = True
                for _ in range(1000):
                    if ring.append(1, 0.5, b"12345678"):
                        returned += 1
            except StopError:
                interrupted += 1
            finally:
                armed = False
            pending = ring.pending(ring.tail)
            read += len(pending)
            ring.release(ring.tail + len(pending))
            assert set(pending) <= {(1, 0.5, b"12345678")}
            assert ring.append(2, 0.5, b"")
            assert ring.pending(ring.tail) == [(2, 0.5, b"")]
            ring.release(ring.tail + 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert 0 < returned <= read <= returned + interrupted


def test_threads_append_while_another_folds() -> None:
    """Every record that was kept is folded once."""
    ring, _, _ = new_ring(records=64, payload=1024)
    kept = [0] * 4
    found = [0] * 4

    def work(mine: int) -> None:
        for turn in range(3000):
            while not ring.append(mine, float(turn), b"x" * (turn % 30)):
                pass
            kept[mine] += 1

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or ring.pending(ring.tail):
            pending = ring.pending(ring.tail)
            for number, seconds, payload in pending:
                assert (seconds, payload) == (found[number], b"x" * (found[number] % 30))
                found[number] += 1
            ring.release(ring.tail + len(pending))
    finally:
        sys.setswitchinterval(interval)
    assert found == kept == [3000] * 4


def test_a_closed_ring_keeps_nothing() -> None:
    """Whoever still holds the append is told so."""
    ring, _, _ = new_ring()
    append = ring.append
    assert append(1, 0.5, b"x")
    ring.close()
    assert not append(1, 0.5, b"x")
    assert ring.pending(ring.tail) == [(1, 0.5, b"x")]
