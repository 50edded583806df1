"""The rows of all processes as those of one, brought up to date by what changed."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermeter import exemplars, native
from infermeter.catalogue import FAMILIES
from infermeter.errors import DamagedError
from infermeter.extent import Entry
from infermeter.pace import Pace
from infermeter.rows import HistogramRow, Row, Rows, WideHistogramRow
from infermeter.sharing import EXEMPLARS, LIVE_MAX, LIVE_MIN, LIVE_SUM, SERIES, Key, Numbers, added, unpacked

# Where the rows of a process lie in so few pieces among those of all, adding piece by piece is faster.
_MOST_PIECES = 64


class Source(NamedTuple):
    """What one process counted, or all that were absorbed.

    Attributes:
        name: tells it from others.
        entries: its rows; the same object while they are the same.
        values: of the rows.
        live: whether it lives; the dead have no gauges but the most recent ones.
    """

    name: str
    entries: tuple[Entry, ...]
    values: Numbers
    live: bool


class _Shown:
    """A row of the page, the key of the shared rows that make it, and where it lies among the values (-1: nowhere)."""

    __slots__ = ("key", "place", "row")

    def __init__(self, key: Key, row: Row, place: int) -> None:
        self.key = key
        self.row = row
        self.place = place


class _Plan:
    """Where the rows of one source go."""

    __slots__ = ("apart", "entries", "live", "pieces", "rests", "scattered", "several")

    def __init__(self, entries: tuple[Entry, ...], *, live: bool) -> None:
        self.entries = entries
        self.live = live
        self.pieces: list[tuple[int, int, int]] = []  # destination, source, length
        self.scattered: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None  # destinations and sources
        self.rests: list[tuple[int, int, int]] = []  # what rounding took, where it is known
        self.apart: list[tuple[_Shown, int, int]] = []  # not added up: start and width of the numbers
        self.several: list[_Shown] = []  # which vanish with the last process that has them


class View:
    """Adds up what processes counted.

    Args:
        rows: those of a page; all that is in them is made here.
        mine: gives the key that a row has in this process, by which it is shown.
    """

    def __init__(self, rows: Rows, mine: Rows) -> None:
        self.rows = rows
        self._mine = mine
        self._shown: dict[bytes, _Shown | None] = {}
        self._plans: dict[str, _Plan] = {}
        self._several: Counter[_Shown] = Counter()
        self._values = np.zeros(0)
        self._used = 0
        self._owners: list[_Shown] = []
        self._owner_of = np.zeros(0, np.int64)
        self.foreign: dict[str, None] = {}  # families with other buckets or modes than ours, or of a later version

    def update(self, sources: Iterable[Source]) -> None:
        """Show what `sources` hold now, and nothing else."""
        sources = list(sources)
        self._plan(sources)
        new, rest = np.zeros(len(self._values)), np.zeros(len(self._values))
        apart: defaultdict[_Shown, list[Numbers]] = defaultdict(list)
        for source in sources:
            plan = self._plans[source.name]
            if plan.scattered is not None:
                destinations, places = plan.scattered
                new[destinations], lost = added(new[destinations], source.values[places])
                rest[destinations] += lost
            for destination, place, length in plan.pieces:
                here = slice(destination, destination + length)
                new[here], lost = added(new[here], source.values[place : place + length])
                rest[here] += lost
            for destination, place, length in plan.rests:
                rest[destination : destination + length] += source.values[place : place + length]
            for shown, start, width in plan.apart:
                apart[shown].append(source.values[start : start + width])
        # What is more than a float can hold stays that.
        new = np.where(np.isfinite(rest), new + rest, new)
        (changed,) = (new != self._values).nonzero()
        self._values[:] = new
        other = {self._owners[owner] for owner in np.unique(self._owner_of[changed]).tolist()}
        for shown in other:
            shown.row.changed()
        for shown, parts in apart.items():
            if not shown.key.buckets or shown in other:  # native buckets change if classic ones do
                self._join(shown, parts)

    def _join(self, shown: _Shown, parts: list[Numbers]) -> None:
        key, row = shown.key, shown.row
        if key.family == EXEMPLARS and isinstance(row, HistogramRow):
            found = [one for part in parts for one in exemplars.unpacked(part)]
            latest = exemplars.placed(self.rows.edges_of(row.family.name).float64, found)
            if latest != row.exemplars:
                row.exemplars = latest
                row.changed()
        elif isinstance(row, WideHistogramRow):
            row.native = native.Native(native.merge([part[key.width :] for part in parts], key.buckets))
        elif key.mode == LIVE_MIN:
            row.set(min(part[0] for part in parts))
        elif key.mode == LIVE_MAX or row.family.kind == "info":
            row.set(max(part[0] for part in parts))
            if row.family.kind == "info":
                (self.rows.show if row.values[0] else self.rows.hide)(row)
        else:
            row.set(max(parts, key=lambda part: part[1])[0])

    def _plan(self, sources: list[Source]) -> None:
        """Find out where everything goes, as far as that changed."""
        before = len(self._shown)
        names = {source.name for source in sources}
        gone = [plan for name, plan in self._plans.items() if name not in names]
        self._plans = {name: plan for name, plan in self._plans.items() if name in names}
        pace = Pace()  # the first time there may be some hundred thousand rows
        for source in sources:
            pace.step()
            plan = self._plans.get(source.name)
            if plan is None or plan.entries is not source.entries or plan.live != source.live:
                if plan is not None:
                    gone.append(plan)
                self._plans[source.name] = self._planned(source)
        for plan in gone:
            for shown in plan.several:
                self._several[shown] -= 1
                if not self._several[shown]:
                    self.rows.hide(shown.row)
        if len(self._shown) != before:
            self._grow()

    def _planned(self, source: Source) -> _Plan:
        plan = _Plan(source.entries, live=source.live)
        moves: list[tuple[int, int, int]] = []
        for entry in source.entries:
            try:
                shown = self._shown[entry.key]
            except KeyError:
                shown = self._shown[entry.key] = self._new(entry)
            if shown is None:
                continue
            key = shown.key
            if key.live:
                if not source.live:
                    continue
                plan.several.append(shown)
                self._several[shown] += 1
                self.rows.show(shown.row)
            if shown.place >= 0:
                moves.append((shown.place, entry.start, key.width))
                if entry.width == key.exact:
                    plan.rests.append((shown.place, entry.start + key.whole, key.width))
            if shown.place < 0 or key.buckets:
                plan.apart.append((shown, entry.start, entry.width if shown.place < 0 else key.whole))
        if moves:
            self._join_pieces(plan, *np.array(moves).T)
        return plan

    def _new(self, entry: Entry) -> _Shown | None:
        """A row of the page for a key that was not met before; None for what is not shown."""
        try:
            key = unpacked(entry.key)
        except DamagedError:
            self.foreign[repr(entry.key)] = None
            return None
        if key.family == SERIES:
            return None
        if key.family == EXEMPLARS:
            return _Shown(key, self.rows.row("inference_duration", key.labels), -1)
        if (
            key.family not in FAMILIES
            or key != self._mine.key(key.family, key.labels, key.own)
            or entry.width not in {key.whole, key.exact}
        ):
            self.foreign[key.family] = None
            return None
        row = self.rows.row(key.family, key.labels, key.own)
        if row.family.kind == "info" or (row.family.kind == "gauge" and key.mode != LIVE_SUM):
            return _Shown(key, row, -1)
        shown = _Shown(key, row, self._used)
        self._used += key.width
        self._owners.append(shown)
        return shown

    def _join_pieces(
        self, plan: _Plan, places: NDArray[np.int64], starts: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> None:
        """Move neighbours together that stay neighbours."""
        apart = (places[1:] != places[:-1] + widths[:-1]) | (starts[1:] != starts[:-1] + widths[:-1])
        first = np.concatenate(([0], apart.nonzero()[0] + 1))
        if len(first) <= _MOST_PIECES:
            lengths = np.add.reduceat(widths, first)
            plan.pieces = list(zip(places[first].tolist(), starts[first].tolist(), lengths.tolist(), strict=True))
        else:
            within = np.arange(widths.sum()) - np.repeat(widths.cumsum() - widths, widths)
            plan.scattered = (np.repeat(places, widths) + within, np.repeat(starts, widths) + within)

    def _grow(self) -> None:
        values = np.zeros(self._used)
        values[: len(self._values)] = self._values
        self._values = values
        widths = [shown.key.width for shown in self._owners]
        self._owner_of = np.repeat(np.arange(len(widths)), widths)
        for shown in self._owners:
            shown.row.move(values[shown.place : shown.place + shown.key.width])
