"""The ring of a segment: records that were observed and not yet folded, where a SIGKILL leaves them.

A record is a number, which says what was observed, seconds, and a payload; only the recorder knows what they mean. The
descriptor of a record lies where its sequence, counted from the start of the process, says, and names the place of the
payload. The sequence is written last: a descriptor with another one than expected holds no record.
"""

import mmap
import struct
import sys
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermeter.extent import DESCRIPTOR, Layout

Record = tuple[int, float, bytes]
Append = Callable[[int, float, bytes], bool]

_PACK_INTO = struct.Struct("=IIdQ").pack_into
_DESCRIPTOR_SIZE = DESCRIPTOR.itemsize
# An append lasts a microsecond; another thread waits so often for one that was interrupted in its middle.
_TURNS = 200
_TURN_SECONDS = 0.0005


class Room(NamedTuple):
    """Where the next records may go without asking again.

    Attributes:
        start, stop: the payloads, in bytes from the beginning of the file.
        most: sequence of the last record.
        descriptor: place of the next descriptor, in bytes from the beginning of the file.
        word: index of the sequence of that descriptor among the words of the descriptors.
    """

    start: int
    stop: int
    most: int
    descriptor: int
    word: int


class Remains(NamedTuple):
    """What the ring of a dead process holds.

    Attributes:
        records: in the order in which they were appended.
        holes: how many between them cannot be read; without damage there are none.
    """

    records: list[Record]
    holes: int


class Ring:
    """The writing end. Threads may append at any time; the caller lets one at a time call the rest.

    Attributes:
        append: takes the number (below 2**32), the seconds and the payload of a record, and gives whether it will
            outlive the process. It will not if the ring is full or closed, or if this interrupts an append of the same
            thread, as a signal handler may.
        tail: number of the records that are folded and committed.
    """

    __slots__ = ("_attach", "_closed", "_descriptors", "_file", "_head", "_layout", "append", "tail")

    def __init__(self, file: mmap.mmap, layout: Layout) -> None:
        self._layout = layout
        self._closed = False
        self.tail = 0
        self._look_at(file)
        self.append, self._head, self._attach = _appender(self, file, layout)

    def _look_at(self, file: mmap.mmap) -> None:
        self._file = file
        self._descriptors: NDArray[np.void] = np.frombuffer(
            file, DESCRIPTOR, self._layout.sizes.records, self._layout.descriptors
        )

    def pending(self, first: int) -> list[Record]:
        """The records after the `first` ones, of which none is released, in the order in which they were appended."""
        head = self._head()
        found = self._descriptors[np.arange(first, head) % len(self._descriptors)]
        # Appends come one after the other, so there are no holes; whatever is none of ours ends the list.
        whole = found["sequence"] == np.arange(first + 1, head + 1, dtype=np.uint64)
        if not whole.all():
            found = found[: whole.argmin()]
        return _records(found, self._file)

    def release(self, tail: int) -> None:
        """Make room of the records before `tail`, which are committed."""
        self.tail = tail

    def room(self, head: int, start: int, length: int) -> Room | None:
        """Room for the record after the first `head` ones, with `length` bytes of payload from `start` on if possible.

        None where there is none.
        """
        layout, tail = self._layout, self.tail
        records = layout.sizes.records
        if self._closed or head - tail >= records:
            return None
        stop = layout.size
        if head == tail:
            start = layout.payload
        else:
            first = int(self._descriptors[tail % records]["position"])
            over = start >= first and start + length > stop  # a payload does not go over the end
            if over:
                start = layout.payload
            if over or start < first:
                stop = first - 1  # so that equal places mean payloads without length, not a full ring
        if start + length > stop:
            return None
        slot = head % records
        most = min(tail + records, head + records - slot)
        return Room(start, stop, most, layout.descriptors + slot * _DESCRIPTOR_SIZE, slot * 4 + 3)

    def close(self) -> None:
        """Keep no record any more."""
        self._closed = True
        self._attach(self._file)

    def detach(self, file: mmap.mmap) -> None:
        """Keep no record any more, and leave to `file` what an append that was interrupted by a fork still writes."""
        self._closed = True
        self._look_at(file)
        self._attach(file)


def _appender(
    ring: Ring, file: mmap.mmap, layout: Layout
) -> tuple[Append, Callable[[], int], Callable[[mmap.mmap], None]]:
    """The hot path of `ring`, and what looks into it; its variables are cells, which cost half of attributes.

    Returns:
        The append, the number of records so far, and what has it ask for room in another file.
    """
    head, most, start, stop, descriptor, word = 0, 0, layout.payload, 0, 0, 0
    words = memoryview(file)[layout.descriptors : layout.payload].cast("Q")
    # Holds one item while nobody appends. Deleting it is atomic, and unlike a call no place where a signal handler
    # runs, which might raise and leave it deleted; a lock would cost four times as much.
    token = [None]
    give = token.append

    def append(number: int, seconds: float, payload: bytes) -> bool:
        nonlocal head, most, start, stop, descriptor, word
        turns = 0
        while True:
            try:
                del token[0]
                break
            except IndexError:
                if turns == _TURNS or _under(append.__code__):
                    return False
                turns += 1
                time.sleep(_TURN_SECONDS)
        try:
            length = len(payload)
            end = start + length
            if end > stop or head >= most:
                room = ring.room(head, start, length)
                if room is None:
                    return False
                start, stop, most, descriptor, word = room
                end = start + length
            # After a fork in a signal handler in here, `file` and `words` are no more those of the parent.
            file[start:end] = payload
            _PACK_INTO(file, descriptor, number, length, seconds, start)
            # Nothing from here on is a call, so nothing comes between.
            words[word] = head = head + 1
            start = end
            descriptor += _DESCRIPTOR_SIZE
            word += 4
            return True
        finally:
            give(None)

    def attach(other: mmap.mmap) -> None:
        nonlocal file, words, most
        file = other
        words = memoryview(other)[layout.descriptors : layout.payload].cast("Q")
        most = 0
        token[:] = [None]  # a thread that held it at the fork is not in the child

    return append, lambda: head, attach


def _under(code: CodeType) -> bool:
    """Whether the caller was called, by way of others, by another run of its own code."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _records(found: NDArray[np.void], file: mmap.mmap | bytes, offset: int = 0) -> list[Record]:
    """The records of descriptors, with payloads from `file`, which begins `offset` bytes after the whole file."""
    starts = found["position"] - np.uint64(offset)
    columns = zip(
        *(column.tolist() for column in (found["number"], found["seconds"], starts, found["length"])), strict=True
    )
    return [(number, seconds, file[start : start + length]) for number, seconds, start, length in columns]


def remains(descriptors: bytes, payloads: bytes, layout: Layout, tail: int) -> Remains:
    """What is left in a ring of which the first `tail` records are committed, from its two areas."""
    slots: NDArray[np.void] = np.frombuffer(descriptors, DESCRIPTOR)
    order = (np.arange(len(slots)) + tail) % len(slots)
    expected = np.arange(tail + 1, tail + 1 + len(slots), dtype=np.uint64)
    found = slots[order]
    published = (found["sequence"] == expected).nonzero()[0]
    if len(published) == 0:
        return Remains([], 0)
    found = found[published]
    first, area = np.uint64(layout.payload), np.uint64(layout.sizes.payload)
    position, length = found["position"], found["length"].astype(np.uint64)
    inside = (position >= first) & (length <= area) & (position - first <= area - np.minimum(length, area))
    records = _records(found[inside], payloads, layout.payload)
    return Remains(records, int(published[-1]) + 1 - len(records))
