"""The segments of a folder: what all processes that share it counted, the living and the dead."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermeter import accumulator
from infermeter.accumulator import Accumulator
from infermeter.errors import DamagedError
from infermeter.extent import BEGUN, COMMITTED, EXTENTS, ROWS, Entry
from infermeter.ring import Record, Remains, remains
from infermeter.segment import EXTENT, SEGMENT, Segment, owned
from infermeter.source import Descriptor, Half, Source

# A read overlaps the second commit after the one that it reads seldom, and hardly ever so often.
_ATTEMPTS = 500
_PATIENCE = 20  # attempts without a pause
_PAUSE_SECONDS = 0.001
# What is wrong so often while the writer did nothing is damaged.
_DOUBTS = 3
# A reader that was refused the lock meets so many reapers before it gives up.
_REAPERS = 10
# Each file is twice as large as the one before.
_MOST_EXTENTS = 64
_LOCK = "lock"
_LOCK_WAITS_SECONDS = 1.0
_LOCK_TURN_SECONDS = 0.005


class Dump(NamedTuple):
    """What one process counted.

    Attributes:
        identity: of the segment.
        pid: in the container of the process; for display only.
        live: whether the process lives.
        entries: the rows; the same object while there are no new ones, so that what is derived may be kept.
        values: of the rows, shape (n,), float64, read-only.
        records: of a dead process, what is not in `values` yet.
    """

    identity: str
    pid: int
    live: bool
    entries: tuple[Entry, ...]
    values: NDArray[np.float64]
    records: list[Record]


class Problem(NamedTuple):
    """A file that was skipped, or the part of it that was."""

    name: str
    reason: str


class Reading(NamedTuple):
    """What a folder holds.

    Attributes:
        dumps: of the processes, without those in the accumulator.
        accumulator: the totals of the dead that were absorbed.
        problems: what could not be read.
    """

    dumps: list[Dump]
    accumulator: Accumulator
    problems: list[Problem]

    @property
    def dead(self) -> int:
        """How many dead processes wait for the reaper."""
        return sum(not dump.live for dump in self.dumps)


class _Part(NamedTuple):
    """What one file of a process holds."""

    entries: tuple[Entry, ...]
    values: NDArray[np.float64]


class _Process:
    """The files of one process."""

    def __init__(self, folder: Path, identity: str, segment: Segment | None) -> None:
        self._folder = folder
        self.identity = identity
        self.segment = segment
        descriptor = None
        if segment is not None:
            self._number = segment.descriptor
        else:
            descriptor = Descriptor(folder / (identity + SEGMENT))
            self._number = descriptor.number
        self._main = Source(self._number, identity, 0, descriptor)
        self._extents: dict[int, Source] = {}
        self._parts: list[_Part] = []
        self._entries: tuple[Entry, ...] = ()
        self._last: tuple[Dump, list[Problem]] | None = None

    def live(self) -> bool:
        """Whether it lives."""
        return self.segment is not None or not dead(self._number)

    def read(self) -> tuple[Dump, list[Problem]]:
        """What it counted, and what is wrong with a part of that.

        Raises:
            DamagedError: nothing can be read.
            OSError: the same.
        """
        # Before everything else: whoever is dead now will not write while we read.
        live = self.live()
        if not live and self._last is not None:
            return self._last
        doubts = 0
        for attempt in range(_ATTEMPTS):
            if attempt > _PATIENCE:
                time.sleep(_PAUSE_SECONDS)
            fixed = self._main.fixed()
            error, found = None, None
            try:
                found = self._dump(fixed, live=live)
            except (DamagedError, OSError) as caught:
                error = caught
            if live and self._overtaken(fixed):
                continue
            doubts += 1
            if live and doubts < _DOUBTS and (found is None or found[1]):
                continue
            if found is None:
                assert error is not None
                raise error
            if not live:
                self._last = found
            return found
        raise DamagedError("its writer commits without a pause")

    def _overtaken(self, fixed: bytes) -> bool:
        """Whether the writer may have changed the half that is committed according to `fixed`."""
        half = memoryview(fixed).cast("Q")[COMMITTED] & 1
        words = memoryview(self._main.fixed()).cast("Q")
        committed, begun = words[COMMITTED], words[BEGUN + half]
        if begun == memoryview(fixed).cast("Q")[COMMITTED]:
            return False
        # No writer leaves any other value: this one is damaged, and waiting for it does not help.
        return begun in {committed, committed + 1} and begun & 1 == half

    def _dump(self, fixed: bytes, *, live: bool) -> tuple[Dump, list[Problem]]:
        words = memoryview(fixed).cast("Q")
        generation: int = words[COMMITTED]
        problems: list[Problem] = []
        half = None
        if generation:
            half = self._main.half(fixed, generation & 1, generation)
            if half.generation != generation:
                raise DamagedError("the half that is committed has another generation")
        committed = half.extents if half else 0
        count = committed if live else max(words[EXTENTS], committed)
        if count > _MOST_EXTENTS:
            raise DamagedError("it has more files than possible")
        parts = [_part(self._main, fixed, half, live=live)]
        for index in range(1, count + 1):
            name = f"{self.identity}.{index}{EXTENT}"
            try:
                source = self._extents.get(index)
                if source is None:
                    descriptor = Descriptor(self._folder / name)
                    source = self._extents[index] = Source(descriptor.number, self.identity, index, descriptor)
                fixed = source.fixed()
                half_of = source.half(fixed, generation & 1, generation) if index <= committed else None
                parts.append(_part(source, fixed, half_of, live=live))
            except (DamagedError, OSError) as error:
                problems.append(Problem(name, reason(error)))
        records: list[Record] = []
        if not live:
            records, holes = self._remains(half.position if half else 0)
            if holes:
                problems.append(Problem(self.identity + SEGMENT, f"{holes} of its records cannot be read"))
        return Dump(self.identity, self._main.pid, live, *self._joined(parts), records), problems

    def _remains(self, position: int) -> Remains:
        layout = self._main.layout
        descriptors = self._main.read(layout.payload - layout.descriptors, layout.descriptors)
        return remains(descriptors, self._main.read(layout.sizes.payload, layout.payload), layout, position)

    def _joined(self, parts: list[_Part]) -> _Part:
        """All parts as one; the entries stay the same object as long as those of the parts do."""
        if len(parts) == 1:
            return parts[0]
        same = len(parts) == len(self._parts) and all(
            old.entries is new.entries for old, new in zip(self._parts, parts, strict=True)
        )
        if not same:
            entries: list[Entry] = []
            start = 0
            for part in parts:
                entries += [entry._replace(start=entry.start + start) for entry in part.entries]
                start += len(part.values)
            self._parts, self._entries = parts, tuple(entries)
        values = np.concatenate([part.values for part in parts])
        values.flags.writeable = False
        return _Part(self._entries, values)


def _part(source: Source, fixed: bytes, half: Half | None, *, live: bool) -> _Part:
    """The rows that are committed, and of a dead process also those that were only published: records may name them."""
    committed = half.rows if half else 0
    rows = committed if live else memoryview(fixed).cast("Q")[ROWS]
    if rows < committed:
        raise DamagedError("it has committed more rows than it has")
    entries = source.entries(rows)
    if half and _end(entries[:committed]) != len(half.values):
        raise DamagedError("its values do not fit its rows")
    if half and rows == committed:
        return _Part(entries, half.values)
    values = np.zeros(_end(entries))
    if half:
        values[: len(half.values)] = half.values
    values.flags.writeable = False
    return _Part(entries, values)


def _end(entries: tuple[Entry, ...]) -> int:
    return entries[-1].start + entries[-1].width if entries else 0


def reason(error: DamagedError | OSError) -> str:
    """What is wrong, for people."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)


def dead(number: int) -> bool:
    """Whether the owner of an open file that this process does not own is dead."""
    try:
        # Shared, so that two who look at once do not take each other for the owner.
        fcntl.lockf(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.lockf(number, fcntl.LOCK_UN)
    return True


class Folder:
    """The segments that share a folder.

    Args:
        path: exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._processes: dict[str, _Process] = {}
        self._accumulator: tuple[object, Accumulator] = (None, accumulator.EMPTY)

    def read(self) -> Reading:
        """What all processes counted, without an exception and without waiting for more than about a second."""
        with self.locked(fcntl.LOCK_SH) as held:
            for _ in range(1 if held else _REAPERS):
                reading = self._read()
                if held or self._same():
                    break
        return reading

    def _same(self) -> bool:
        """Whether nobody replaced the accumulator since it was read."""
        try:
            return accumulator.stamp(self.path) == self._accumulator[0]
        except OSError:
            return True

    def _read(self) -> Reading:
        dumps: list[Dump] = []
        problems: list[Problem] = []
        total = accumulator.EMPTY
        try:
            total = self.accumulated()
        except (DamagedError, OSError) as error:
            problems.append(Problem(accumulator.NAME, reason(error)))
        try:
            names = [path.name for path in self.path.iterdir()]
        except OSError as error:
            return Reading([], total, [*problems, Problem(str(self.path), reason(error))])
        identities = {name.removesuffix(SEGMENT) for name in names if name.endswith(SEGMENT)} - total.absorbed
        for identity in list(self._processes):
            if identity not in identities:
                self._processes.pop(identity, None)
        for identity in sorted(identities):
            try:
                dump, wrong = self.process(identity).read()
            except FileNotFoundError:
                continue
            except (DamagedError, OSError) as error:
                problems.append(Problem(identity + SEGMENT, reason(error)))
            else:
                dumps.append(dump)
                problems += wrong
        return Reading(dumps, total, problems)

    def accumulated(self) -> Accumulator:
        """The totals of the dead that were absorbed.

        Raises:
            DamagedError: they are damaged, or of a later version.
            OSError: they cannot be read.
        """
        stamp = accumulator.stamp(self.path)
        if stamp != self._accumulator[0]:
            self._accumulator = (stamp, accumulator.read(self.path))
        return self._accumulator[1]

    def process(self, identity: str) -> "_Process":
        """The files of one process.

        Raises:
            DamagedError: they are damaged.
            OSError: they cannot be read.
        """
        process = self._processes.get(identity)
        # A segment changes hands when this process closes it, or forks.
        if process is None or process.segment is not owned(identity):
            process = self._processes[identity] = _Process(self.path, identity, owned(identity))
        return process

    @contextmanager
    def locked(self, how: int) -> Iterator[bool]:
        """Hold the lock of the folder, LOCK_SH to read and LOCK_EX to reap; gives whether it could be had in time."""
        try:
            descriptor = Descriptor(self.path / _LOCK, os.O_RDONLY | os.O_CREAT)
        except OSError:
            yield False
            return
        _locks.add(descriptor)
        try:
            yield _locked(descriptor.number, how)
        finally:
            _locks.discard(descriptor)
            descriptor.close()


def _locked(number: int, how: int) -> bool:
    # Not lockf, which tells threads of one process nothing about each other.
    until = time.monotonic() + _LOCK_WAITS_SECONDS
    while True:
        try:
            fcntl.flock(number, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_LOCK_TURN_SECONDS)
        except OSError:
            return False
        else:
            return True


# Held now; a forked child would keep them held.
_locks: set[Descriptor] = set()


def _after_in_child() -> None:
    for descriptor in _locks:
        descriptor.close()
    _locks.clear()


os.register_at_fork(after_in_child=_after_in_child)
