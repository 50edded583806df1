"""One file of a segment: a table of rows, and their values in two halves of which one is committed.

The file, in the byte order of the machine:

    0       header: magic, version, index, id, pid, four sizes, first row, CRC32; never changes
    128     words: generation committed; rows and extents published; generation begun in each half
    192     two half headers: generation, ring position, rows, slots, extents, CRC32 with the checksums of the half
    320     two halves: a CRC32 of each block of BLOCK slots, then the slots, float64
            the table: for each row the length of its key, its width, its flags, a CRC32, and the key
            descriptors and payloads of the ring, in the main file only

A word is stored at once, so whoever reads sees it old or new. A half is read if the word that the main file commits
is its generation, and changes only while the other one is. The table grows at its end, and a row is published by
the word that counts them. The file has its full size, with its disk space, from the beginning to the end.
"""

import mmap
import os
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermeter.errors import DamagedError

MAGIC = b"infermtr"
VERSION = 1
BLOCK = 512  # slots; zlib keeps the interpreter's lock for less than 5 KiB, and getting it back may take 5 ms
FIXED = 320  # bytes before the halves

HEADER = struct.Struct("=8sII16sQQQQQQI")
_WORDS_AT = 128
WORDS = struct.Struct("=6Q")
COMMITTED, ROWS, EXTENTS, BEGUN = 16, 17, 18, 20  # indices of words in the file; BEGUN is the first of two
HALF_HEADERS_AT = 192
HALF_HEADER_SIZE = 64
HALF = struct.Struct("=QQQQQI")
_ENTRY = struct.Struct("=IIII")
_LIVE = 1  # the flag of rows that end with their process

DESCRIPTOR = np.dtype([("number", "u4"), ("length", "u4"), ("seconds", "f8"), ("position", "u8"), ("sequence", "u8")])


class Sizes(NamedTuple):
    """How much fits into a segment; a full table or vector is continued in another file.

    Attributes:
        table: bytes of rows, 16 and the length of the key each.
        slots: numbers of the value vector.
        records: that wait in the ring; a power of two.
        payload: bytes of the payloads that wait in the ring; a power of two.
    """

    table: int = 1 << 16
    slots: int = 1 << 13
    records: int = 1 << 12
    payload: int = 1 << 20


class Layout:
    """Where everything lies in a file of `sizes`, in bytes from its beginning."""

    __slots__ = ("blocks", "checks", "descriptors", "half", "payload", "size", "sizes", "table")

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.blocks = -(-sizes.slots // BLOCK)
        self.checks = -(-self.blocks * 4 // 8) * 8  # the length of the checksums of a half
        self.half = self.checks + sizes.slots * 8  # the length of a half
        self.table = FIXED + 2 * self.half
        self.descriptors = self.table + -(-sizes.table // 8) * 8
        self.payload = self.descriptors + sizes.records * DESCRIPTOR.itemsize
        self.size = self.payload + sizes.payload


class Entry(NamedTuple):
    """A row as its readers see it.

    Attributes:
        number: counts the rows of a process from 0.
        start: index of its first value among the values of the process.
        width: how many values it has.
        live: whether it ends with its process instead of being added to the total.
    """

    number: int
    key: bytes
    start: int
    width: int
    live: bool


class SharedRow:
    """A row as its writer has it.

    Attributes:
        number: counts the rows of the process from 0.
        values: what the writer changes, shape (width,), float64; a commit makes it visible.
    """

    __slots__ = ("blocks", "number", "stale", "values")

    def __init__(self, number: int, values: NDArray[np.float64], stale: bytearray, blocks: range) -> None:
        self.number = number
        self.values = values
        self.stale = stale
        self.blocks = blocks

    def touch(self) -> None:
        """Tell that `values` were changed since the last commit."""
        for block in self.blocks:
            self.stale[block] = 3  # in both halves


class Extent:
    """The writing end of one file, which it makes.

    Args:
        descriptor: an open file, empty.
        identity: 16 bytes, the same in all files of a segment.
        index: 0 of the main file, which holds the ring, then 1, 2, ...
        first_row: number of its first row.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, descriptor: int, sizes: Sizes, identity: bytes, index: int, first_row: int) -> None:
        self.layout = layout = Layout(sizes)
        self.first_row = first_row
        self.rows = 0
        self.used = 0  # slots
        self._table_used = 0
        # Without space reserved for it, a store on a full disk kills the process.
        os.posix_fallocate(descriptor, 0, layout.size)
        self._bind(mmap.mmap(descriptor, layout.size))
        self._values = np.zeros(sizes.slots)
        # A bit for each half in which the block is not up to date.
        self._stale = bytearray(layout.blocks)
        header = HEADER.pack(MAGIC, VERSION, index, identity, os.getpid(), *sizes, first_row, 0)
        self.map[: HEADER.size] = header[:-4] + struct.pack("=I", zlib.crc32(header[:-4]))

    def _bind(self, file: mmap.mmap) -> None:
        layout = self.layout
        self.map = file
        self.words = memoryview(file)[:FIXED].cast("Q")
        self._checks: list[NDArray[np.uint32]] = []
        self._halves: list[NDArray[np.float64]] = []
        for half in range(2):
            at = FIXED + half * layout.half
            self._checks.append(np.frombuffer(file, np.uint32, layout.blocks, at))
            self._halves.append(np.frombuffer(file, np.float64, layout.sizes.slots, at + layout.checks))

    def add(self, key: bytes, width: int, *, live: bool) -> SharedRow | None:
        """Publish a row; None where it does not fit. The caller lets nobody else add one."""
        start, flags = self.used, _LIVE if live else 0
        entry = packed_entry(key, width, flags)
        end = self._table_used + len(entry)
        if end > self.layout.sizes.table or start + width > self.layout.sizes.slots:
            return None
        at = self.layout.table + self._table_used
        self.map[at : at + len(entry)] = entry
        blocks = range(start // BLOCK, (start + width - 1) // BLOCK + 1)
        row = SharedRow(self.first_row + self.rows, self._values[start : start + width], self._stale, blocks)
        row.touch()  # the checksum of a block of zeros is not zero
        self._table_used, self.used, self.rows = end, start + width, self.rows + 1
        self.words[ROWS] = self.rows
        return row

    def prepare(self, half: int, generation: int, position: int, extents: int) -> None:
        """Bring one half up to date; it is read once the main file commits `generation`."""
        rows, used = self.rows, self.used
        bit = 1 << half
        stale = self._stale
        try:
            for block in range(-(-used // BLOCK)):
                if stale[block] & bit:
                    # First, so that a row that is touched meanwhile is copied again.
                    stale[block] &= ~bit
                    self._copy(half, block)
            header = HALF.pack(generation, position, rows, used, extents, 0)[:-4]
            check = zlib.crc32(self._checks[half][: -(-used // BLOCK)].data, zlib.crc32(header))
            at = HALF_HEADERS_AT + half * HALF_HEADER_SIZE
            self.map[at : at + HALF.size] = header + struct.pack("=I", check)
        except BaseException:  # a signal handler raises: the next commit copies everything
            stale[:] = bytes((3,)) * len(stale)
            raise

    def _copy(self, half: int, block: int) -> None:
        start, end = block * BLOCK, (block + 1) * BLOCK
        self._halves[half][start:end] = self._values[start:end]
        self._checks[half][block] = zlib.crc32(self._halves[half][start:end].data)

    def changed(self, half: int) -> bool:
        """Whether a half is not up to date."""
        bit = 1 << half
        at = (HALF_HEADERS_AT + half * HALF_HEADER_SIZE) // 8
        return self.words[at + 2] != self.rows or any(stale & bit for stale in self._stale)

    def detach(self) -> None:
        """Go on in private memory: in a forked child the file belongs to the parent."""
        self._bind(mmap.mmap(-1, self.layout.size))


def packed_entry(key: bytes, width: int, flags: int) -> bytes:
    """A row of the table; a multiple of 8 bytes."""
    padded = key + bytes(-len(key) % 8)
    check = zlib.crc32(key, zlib.crc32(_ENTRY.pack(len(key), width, flags, 0)))
    return _ENTRY.pack(len(key), width, flags, check) + padded


def unpacked_entries(table: bytes, known: tuple[Entry, ...], count: int, first_row: int) -> tuple[Entry, ...]:
    """The first `count` rows of `table`, of which those in `known` have been unpacked before.

    Raises:
        DamagedError: one of them is not as it was written.
    """
    if len(known) >= count:
        return known[:count]
    entries = list(known)
    at = sum(_ENTRY.size + len(entry.key) + -len(entry.key) % 8 for entry in known)
    start = known[-1].start + known[-1].width if known else 0
    while len(entries) < count:
        if at + _ENTRY.size > len(table):
            raise DamagedError("the table ends before its last row")
        length, width, flags, check = _ENTRY.unpack_from(table, at)
        key = table[at + _ENTRY.size : at + _ENTRY.size + length]
        if check != zlib.crc32(key, zlib.crc32(_ENTRY.pack(length, width, flags, 0))):
            raise DamagedError(f"row {len(entries)} of the table has another checksum")
        entries.append(Entry(first_row + len(entries), key, start, width, bool(flags & _LIVE)))
        start += width
        at += _ENTRY.size + length + -length % 8
    return tuple(entries)
