"""The accumulator of a folder: the totals of all processes that died and were absorbed, in a file replaced as a whole.

It names the segments that it absorbed for as long as their files exist, so that a reaper killed before it removed them
has nothing counted twice.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermeter.errors import DamagedError
from infermeter.extent import VERSION, Entry, packed_entry, unpacked_entries

NAME = "accumulator"
_MAGIC = b"infermac"
# Magic, version, CRC32 of the rest, serial, number of segments absorbed, of rows, and bytes of the table.
_HEADER = struct.Struct("=8sIIQQQQ")
_CHECKED_AT = 16
_IDENTITY = 16  # bytes

Totals = dict[tuple[bytes, int], NDArray[np.float64]]  # by key and width


class FutureError(DamagedError):
    """A file of a later version, which is healthy to others."""


class Accumulator(NamedTuple):
    """What the file holds.

    Attributes:
        serial: grows by 1 with each replacement.
        absorbed: identities of segments that are in the totals and whose files may still exist.
        entries: rows of the totals.
        values: shape (n,), where n is the sum of the widths of the rows.
    """

    serial: int
    absorbed: frozenset[str]
    entries: tuple[Entry, ...]
    values: NDArray[np.float64]

    def totals(self) -> Totals:
        """A copy, to be added to."""
        return {
            (entry.key, entry.width): self.values[entry.start : entry.start + entry.width].copy()
            for entry in self.entries
        }


EMPTY = Accumulator(0, frozenset(), (), np.zeros(0))


def packed(serial: int, absorbed: list[str], totals: Totals) -> bytes:
    """The content of the file."""
    table = b"".join(packed_entry(key, width, 0) for key, width in totals)
    values = np.concatenate([np.zeros(0), *totals.values()]).tobytes()
    body = b"".join((bytes.fromhex("".join(absorbed)), table, values))
    counts = struct.pack("=QQQQ", serial, len(absorbed), len(totals), len(table))
    return struct.pack("=8sII", _MAGIC, VERSION, zlib.crc32(body, zlib.crc32(counts))) + counts + body


def unpacked(content: bytes) -> Accumulator:
    """What `packed` made of it.

    Raises:
        FutureError: it is of a later version.
        DamagedError: it is not as it was written.
    """
    if len(content) < _HEADER.size:
        raise DamagedError("it ends in its header")
    magic, version, check, serial, absorbed, rows, table_size = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise DamagedError("it is no accumulator")
    if version != VERSION:
        raise FutureError(f"it has version {version}, expected {VERSION}")
    if check != zlib.crc32(memoryview(content)[_CHECKED_AT:]):
        raise DamagedError("it has another checksum")
    table_at = _HEADER.size + absorbed * _IDENTITY
    names = content[_HEADER.size : table_at]
    values = np.frombuffer(content, np.float64, offset=table_at + table_size)
    return Accumulator(
        serial,
        frozenset(names[at : at + _IDENTITY].hex() for at in range(0, len(names), _IDENTITY)),
        unpacked_entries(content[table_at : table_at + table_size], (), rows, 0),
        values,
    )


def stamp(folder: Path) -> tuple[int, int, bytes]:
    """Tells one accumulator of a folder from the next, without reading it all; zeros where there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return (0, 0, b"")
    try:
        status = os.fstat(descriptor)
        return (status.st_ino, status.st_size, os.pread(descriptor, _HEADER.size, 0))
    finally:
        os.close(descriptor)


def read(folder: Path) -> Accumulator:
    """The accumulator of a folder, empty where there is none.

    Raises:
        OSError: it cannot be read.
        DamagedError: as `unpacked`.
    """
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return EMPTY
    try:
        return unpacked(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    finally:
        os.close(descriptor)


def write(folder: Path, content: bytes) -> None:
    """Replace the accumulator; a kill or a power cut leaves the old one or the new one.

    Raises:
        OSError: it cannot be written; the old one is in its place.
    """
    new = folder / (NAME + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(folder / NAME)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
