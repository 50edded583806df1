"""The reading end of one file of a segment, which trusts nothing that it finds there."""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermeter.errors import DamagedError
from infermeter.extent import (
    BLOCK,
    FIXED,
    HALF,
    HALF_HEADER_SIZE,
    HALF_HEADERS_AT,
    HEADER,
    MAGIC,
    VERSION,
    Entry,
    Layout,
    Sizes,
    unpacked_entries,
)


class Descriptor:
    """An open file, closed with its last user."""

    __slots__ = ("number",)

    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        self.number = -1
        # Whatever lies there under our name is not waited for.
        self.number = os.open(path, flags | os.O_NONBLOCK, 0o644)

    def close(self) -> None:
        """Close it now; again if that was done already is nothing."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        self.close()


class Half(NamedTuple):
    """A half as it was written: ring position, rows and extents of its generation, and the values of the rows."""

    generation: int
    position: int
    rows: int
    extents: int
    values: NDArray[np.float64]


class Source:
    """One file, kept open between reads.

    Args:
        number: of an open descriptor.
        keep: whatever must live as long as this, lest the descriptor be closed.

    Raises:
        DamagedError: it is not what its name says, or of a later version.
        OSError: it cannot be read.
    """

    def __init__(self, number: int, identity: str, index: int, keep: object = None) -> None:
        self._number = number
        self._keep = keep
        self._entries: tuple[Entry, ...] = ()
        self._halves: list[Half | None] = [None, None]
        content = self.read(HEADER.size, 0)
        magic, version, number_of, named, self.pid, *sizes, first_row, check = HEADER.unpack(content)
        if magic != MAGIC:
            raise DamagedError("it is no segment")
        if version != VERSION:
            raise DamagedError(f"it has version {version}, expected {VERSION}")
        if check != zlib.crc32(content[:-4]) or named.hex() != identity or number_of != index:
            raise DamagedError("its header is not the one that was written")
        self.first_row = first_row
        self.layout = Layout(Sizes(*sizes))
        if os.fstat(number).st_size != self.layout.size:
            raise DamagedError("it is not as long as it was made")

    def read(self, size: int, at: int) -> bytes:
        """`size` bytes. Not mapped into memory: reading what somebody cuts off meanwhile would kill the process."""
        content = os.pread(self._number, size, at)
        if len(content) < size:
            raise DamagedError("it is shorter than it was made")
        return content

    def fixed(self) -> bytes:
        """Everything before the halves."""
        return self.read(FIXED, 0)

    def half(self, fixed: bytes, half: int, latest: int) -> Half:
        """A half with a generation that is committed.

        Args:
            fixed: everything before the halves, as it was a moment ago.
            half: 0 or 1.
            latest: the generation that is committed.

        Raises:
            DamagedError: its checksum or generation is wrong: the writer is at it, or it is damaged.
        """
        at = HALF_HEADERS_AT + half * HALF_HEADER_SIZE
        header = fixed[at : at + HALF.size]
        generation, position, rows, used, extents, check = HALF.unpack(header)
        if generation > latest or generation & 1 != half:
            raise DamagedError("a half has another generation")
        known = self._halves[half]
        if known is not None and known.generation == generation:
            return known
        layout = self.layout
        if used > layout.sizes.slots:
            raise DamagedError("a half has more slots than there are")
        blocks = -(-used // BLOCK)
        length = min(blocks * BLOCK, layout.sizes.slots) * 8
        content = memoryview(self.read(layout.checks + length, FIXED + half * layout.half))
        if check != zlib.crc32(content[: blocks * 4], zlib.crc32(header[:-4])):
            raise DamagedError("a half has another checksum")
        checks = content[: blocks * 4].cast("I")
        slots = content[layout.checks :]
        for block, written in enumerate(checks):
            if written != zlib.crc32(slots[block * BLOCK * 8 : (block + 1) * BLOCK * 8]):
                raise DamagedError(f"block {block} of a half has another checksum")
        found = Half(generation, position, rows, extents, np.frombuffer(slots, np.float64, used))
        self._halves[half] = found
        return found

    def entries(self, count: int) -> tuple[Entry, ...]:
        """The first `count` rows; the same object as long as there are no more.

        Raises:
            DamagedError: there are not so many, or one of them is damaged.
        """
        known = self._entries
        if len(known) < count:
            table = self.read(self.layout.sizes.table, self.layout.table)
            known = self._entries = unpacked_entries(table, known, count, self.first_row)
            if known[-1].start + known[-1].width > self.layout.sizes.slots:
                raise DamagedError("the table has more slots than there are")
        return known if len(known) == count else known[:count]
