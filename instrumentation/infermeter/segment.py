"""The segment of a process: what it counted, and what it observed and did not count yet, in files that outlive it.

A kill at any instruction leaves the totals of the last commit and every record that was appended after it: one store
of one word commits both the new totals and the end of the records in them.

The process holds a lock on the main file for life. The system takes it back at its death and not earlier, as long as
the process does not open and close the file a second time; a lock that can be had means a dead owner. A forked child
does not inherit it.
"""

import _thread
import fcntl
import os
from pathlib import Path

from infermeter.extent import BEGUN, COMMITTED, EXTENTS, Extent, SharedRow, Sizes
from infermeter.ring import Append, Record, Ring

SEGMENT = ".segment"
NEW = ".new"  # while it is made
EXTENT = ".extent"

# By identity, those of this process, which it must not open again.
_owned: dict[str, "Segment"] = {}


def owned(identity: str) -> "Segment | None":
    """The segment of this process that has this identity."""
    return _owned.get(identity)


class Segment:
    """A process writes here; `row` and `append` at any time, one thread at a time the rest.

    Args:
        folder: exists; may be shared by processes in containers that do not see each other.
        sizes: of the main file.

    Attributes:
        identity: names the files; random.
        descriptor: the main file, open for as long as the segment.
        append: see `Ring`.

    Raises:
        OSError: there is no room, or no right to write there.
    """

    def __init__(self, folder: Path, sizes: Sizes | None = None) -> None:
        self._folder = folder
        self._sizes = sizes or Sizes()
        self._rows: dict[tuple[bytes, int, bool], SharedRow] = {}
        while True:
            main = self._main_file()
            if main is not None:
                break
        self._extents = [main]
        self._ring = Ring(main.map, main.layout)
        self._folded = 0  # records that are in the values of the rows
        self.append: Append = self._ring.append
        self._free_lock()

    def _main_file(self) -> Extent | None:
        """The main file, complete and locked under its name; None if somebody took it for that of a dead process."""
        self.identity = os.urandom(16).hex()
        new = self._folder / (self.identity + NEW)
        # Before it can be seen: a thread of this process that opened and closed it would unlock it.
        _owned[self.identity] = self
        self.descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            main = Extent(self.descriptor, self._sizes, bytes.fromhex(self.identity), 0, 0)
            new.rename(new.with_suffix(SEGMENT))
        except (FileNotFoundError, BlockingIOError):
            self._let_go()
            return None
        except BaseException:
            self._let_go()
            new.unlink(missing_ok=True)
            raise
        return main

    def _free_lock(self) -> None:
        # Reentrant, so that a signal handler that interrupts the making of a row is told so instead of waiting.
        self._lock = _thread.RLock()
        self._adding = False

    def row(self, key: bytes, width: int, *, live: bool = False) -> SharedRow | None:
        """The row of `key`, published at first use, before which no record may carry its number.

        Args:
            key: whatever tells the reader what the values are.
            width: number of values, at least 1.
            live: the row ends with its process, instead of being added to the totals of the dead.

        Returns:
            The row; None if this interrupts the making of another row in the same thread, as a signal handler may.

        Raises:
            OSError: there is no room for another file.
        """
        row = self._rows.get((key, width, live))
        if row is None:
            with self._lock:
                if self._adding:
                    return None
                try:
                    self._adding = True
                    row = self._rows.get((key, width, live))
                    if row is None:
                        row = self._extents[-1].add(key, width, live=live) or self._add_to_new(key, width, live=live)
                        self._rows[key, width, live] = row
                finally:
                    self._adding = False
        return row

    def reentered(self) -> bool:
        """Whether this interrupts the making of a row in the same thread, as a signal handler may."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._adding
        finally:
            self._lock.release()

    def _add_to_new(self, key: bytes, width: int, *, live: bool) -> SharedRow:
        last = self._extents[-1]
        # Each twice as large as the last, so that there are never many.
        sizes = Sizes(
            max(2 * last.layout.sizes.table, len(key) + 24),
            max(2 * last.layout.sizes.slots, width),
            records=0,
            payload=0,
        )
        index = len(self._extents)
        path = self._folder / f"{self.identity}.{index}{EXTENT}"
        # One that was begun and interrupted is begun again: nobody looks at it before it is published.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            extent = Extent(descriptor, sizes, bytes.fromhex(self.identity), index, last.first_row + last.rows)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        row = extent.add(key, width, live=live)
        assert row is not None
        self._extents[0].words[EXTENTS] = index  # before a commit can count it
        self._extents.append(extent)
        return row

    def pending(self) -> list[Record]:
        """The records that wait for a fold, in the order in which they were appended."""
        return self._ring.pending(self._folded)

    def commit(self, consumed: int = 0) -> None:
        """Make visible what the rows hold, and with it that the first `consumed` of the pending records are in it.

        A signal handler that raises in here does no harm: the records do not wait any more, and the next commit makes
        up for this one.
        """
        position = self._folded = self._folded + consumed
        extents = list(self._extents)
        main = extents[0]
        # The file alone tells what is committed.
        generation = main.words[COMMITTED] + 1
        half = generation & 1
        main.words[BEGUN + half] = generation
        for extent in extents[1:]:
            if extent.changed(half):
                extent.prepare(half, generation, 0, 0)
        main.prepare(half, generation, position, len(extents) - 1)
        main.words[COMMITTED] = generation
        self._ring.release(position)

    def close(self) -> None:
        """Leave the files to whoever reads the dead; what is not committed is lost to it, records are not."""
        self._ring.close()
        self._let_go()

    def _let_go(self) -> None:
        if _owned.get(self.identity) is self:
            os.close(self.descriptor)
            del _owned[self.identity]

    def after_fork_in_child(self) -> None:
        """Forget the segment, which belongs to the parent, and leave its lock; whatever still runs writes nowhere."""
        for extent in self._extents:
            extent.detach()
        self._ring.detach(self._extents[0].map)
        self._free_lock()
        self._let_go()  # locks belong to processes: this one has none to lose
