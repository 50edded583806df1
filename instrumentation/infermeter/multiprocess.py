"""Many processes as one: what this one counts outlives it, and what all of them counted is on each one's page."""

import _thread
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infermeter import exemplars
from infermeter.catalogue import FAMILIES
from infermeter.dead import left_by
from infermeter.durable import Namer, answers_in, record_in
from infermeter.errors import ReenteredError
from infermeter.extent import Entry, SharedRow, Sizes
from infermeter.fold import Drop, Name
from infermeter.guard import Guard
from infermeter.payload import MOMENT, TOLD, tag
from infermeter.reaper import reap
from infermeter.ring import Record
from infermeter.rows import HistogramRow, Row, Rows
from infermeter.segment import SEGMENT, Segment
from infermeter.segments import Dump, Folder, Problem
from infermeter.series import Series
from infermeter.sharing import EXEMPLARS, SERIES, Key, Numbers, joined, unpacked
from infermeter.tally import Subject, grouped, tally
from infermeter.view import Source, View

log = logging.getLogger("infermeter")

_REAP_EVERY_SECONDS = 10.0
# Beyond so many, a process that begins takes over from the dead before anything else.
_MOST_SEGMENTS = 256
_TOTAL = "accumulator"
_MOST_TOLD = 1000


class Multiprocess:
    """The part of one process in a folder that many share.

    Args:
        path: of the folder. The segment of this process is made in it when it is needed first.

    Attributes:
        targets: by number of a shared row, who infers and what rows of this process records may name.
        longest: bytes that the payload of one record may have.
        astray: has an item for each record that waits for a fold outside the ring.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.longest = Sizes().payload // 4
        self._told: set[Problem] = set()
        self.start_over()

    def start_over(self) -> None:
        """Begin as a process that has counted nothing."""
        self._segment: Segment | None = None
        self._lock = _thread.RLock()
        self._opening = False
        self.targets: dict[int, Any] = {}
        self._adopted: set[Series] = set()
        self.astray: list[None] = []
        self._folder = Folder(self._path)
        self._left: dict[str, tuple[Dump, Source]] = {}
        self._exemplars: dict[tuple[str, ...], object] = {}
        self._view: View | None = None
        self._reaper = Folder(self._path)  # the timer's own
        self._reap_at = 0.0

    def close(self) -> None:
        """Leave what was counted to the others."""
        if self._segment is not None:
            self._segment.close()

    def after_fork_in_child(self) -> None:
        """Leave the segment to the parent."""
        if self._segment is not None:
            self._segment.after_fork_in_child()
        self.start_over()

    # --- what records ------------------------------------------------------------------------------------------

    def row(self, key: Key) -> SharedRow | None:
        """The shared row of `key`; None where there is no room for it.

        Raises:
            ReenteredError: see there.
        """
        width = {SERIES: 1, EXEMPLARS: exemplars.WIDTH}.get(key.family) or key.whole
        try:
            row = (self._segment or self._opened()).row(key.packed(), width, live=key.live)
        except OSError as error:
            self._tell(Problem(str(self._path), f"no room for {key.family} {key.labels}: {error.strerror or error}"))
            return None
        if row is None:
            raise ReenteredError
        return row

    @property
    def begun(self) -> bool:
        """Whether this process has counted or shown anything."""
        return self._segment is not None

    def _opened(self) -> Segment:
        with self._lock:
            if self._segment is None:
                if self._opening:
                    raise ReenteredError
                self._opening = True
                try:
                    self._path.mkdir(parents=True, exist_ok=True)  # whoever empties folders at a start may be late
                    if sum(path.suffix == SEGMENT for path in self._path.iterdir()) >= _MOST_SEGMENTS:
                        self._reap(Folder(self._path))  # processes that end within a second leave it to nobody else
                    self._segment = Segment(self._path)
                finally:
                    self._opening = False
            return self._segment

    def reentered(self) -> bool:
        """Whether this is a signal handler that interrupted the making of a row."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._opening or (self._segment is not None and self._segment.reentered())
        finally:
            self._lock.release()

    def note(self, rows: Rows, name: Name, value: float, make_room: Callable[[], object]) -> bool:
        """Record what is told outside inferences; gives whether it will outlive the process."""
        family, labels, own = name
        try:
            row = rows.row(family, labels, (own,)).shared
        except ReenteredError:
            return False
        if row is None or self._segment is None:
            return False
        payload = MOMENT.pack(time.time()) if FAMILIES[family].kind == "gauge" else b""
        tagged = tag(row.number, TOLD)
        if self._segment.append(tagged, value, payload):
            return True
        make_room()
        return self._segment.append(tagged, value, payload)

    def adopt(self, series: Series, rows: Rows, guard: Guard, drop: Drop, make_room: Callable[[], object]) -> None:
        """Have the inferences of `series`, which are announced, outlive the process, from the first time on."""
        if series in self._adopted:
            return
        usd_per_second = series.cost.usd_per_second if series.cost is not None else None
        row = self.row(Key(SERIES, series.labels, usd_per_second=usd_per_second))
        if row is not None and self._segment is not None:
            self.targets[row.number] = Subject(series, usd_per_second)
            namer = Namer(series, rows, guard, drop)
            self._adopted.add(series)
            record_in(series, row.number, self._segment.append, make_room, namer, self.longest, self.astray)

    def answers(
        self, row: Row, pairs: list[float], make_room: Callable[[], object]
    ) -> Callable[[float, float], None] | None:
        """See `answers_in`; None where there is no room for the row in which HTTP requests are counted."""
        if row.shared is None or self._segment is None:
            return None
        return answers_in(pairs, row.shared.number, self._segment.append, make_room, self.astray)

    # --- what folds, under the fold lock -----------------------------------------------------------------------

    def pending(self) -> list[Record]:
        """The records that wait for a fold, of which this is the beginning."""
        self.astray.clear()
        return self._segment.pending() if self._segment is not None else []

    def tally(self, records: list[Record], rows: Rows, drop: Drop) -> None:
        """Count pending records in `rows`."""
        for tagged, some in grouped(records).items():
            try:
                tally(tagged, some, rows, self.targets, drop)
            except Exception as error:  # one of them must not take the others with it, nor a scrape
                drop("internal", error, len(some))

    def commit(self, rows: Rows, consumed: int) -> None:
        """Make visible to others what `rows` hold, and that so many of the pending records are in it."""
        if self._segment is None:
            return
        for row in rows.of("inference_duration"):
            if isinstance(row, HistogramRow) and row.exemplars and self._exemplars.get(row.labels) is not row.exemplars:
                shared = self.row(Key(EXEMPLARS, row.labels))
                if shared is not None:
                    shared.values[:] = exemplars.packed(row.exemplars.values())
                    shared.touch()
                self._exemplars[row.labels] = row.exemplars
        self._segment.commit(consumed)

    # --- what shows, under the fold lock -----------------------------------------------------------------------

    def show(self, page: Rows, mine: Rows) -> None:
        """Have `page` show what all processes counted; `mine` are the rows of this one."""
        if self._view is None or self._view.rows is not page:
            self._view = View(page, mine)
        reading = self._folder.read()
        problems = list(reading.problems)
        total = reading.accumulator
        sources = [Source(_TOTAL, total.entries, total.values, live=False)]
        left: dict[str, tuple[Dump, Source]] = {}
        for dump in reading.dumps:
            if dump.live:
                sources.append(Source(dump.identity, dump.entries, dump.values, live=True))
                continue
            known = self._left.get(dump.identity)
            if known is None or known[0] is not dump:
                known = (dump, self._source(dump, problems))
            left[dump.identity] = known
            sources.append(known[1])
        self._left = left
        self._view.update(sources)
        for problem in problems:
            self._tell(problem)
        for family in self._view.foreign:
            self._tell(Problem(family, "rows with other buckets, or of another version, are not shown"))
        page.row("infermeter_processes", (), ()).set(sum(dump.live for dump in reading.dumps))
        page.row("infermeter_files_skipped", (), ()).set(len(problems))

    def _source(self, dump: Dump, problems: list[Problem]) -> Source:
        """What a dead process counted, with its records if they can be read."""
        try:
            numbers = left_by(dump)
        except Exception as error:  # damaged records may ask for anything
            problems.append(Problem(dump.identity, f"its records cannot be read: {type(error).__name__}: {error}"))
            return Source(dump.identity, dump.entries, dump.values, live=False)
        entries: list[Entry] = []
        start = 0
        for key, values in numbers.items():
            entries.append(Entry(len(entries), key, start, len(values), live=False))
            start += len(values)
        whole = np.concatenate([np.zeros(0), *numbers.values()])
        return Source(dump.identity, tuple(entries), whole, live=False)

    # --- what the timer does -----------------------------------------------------------------------------------

    def upkeep(self) -> None:
        """Absorb the dead, every now and then."""
        if time.monotonic() >= self._reap_at:
            self._reap(self._reaper)
            self._reap_at = time.monotonic() + _REAP_EVERY_SECONDS

    def _reap(self, folder: Folder) -> None:
        for problem in reap(folder, left_by, join).problems:
            self._tell(problem)

    def _tell(self, problem: Problem) -> None:
        """Log a problem, once."""
        if problem not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(problem)
            log.warning("multi-process folder %s: %s: %s", self._path, problem.name, problem.reason)


def join(key: bytes, one: Numbers, other: Numbers) -> Numbers:
    """The numbers of two rows of one key."""
    return joined(unpacked(key), one, other)
