"""Rows: the samples of one family for one set of label values, as numbers side by side, and their text.

A scrape renders only the rows that changed since the last one. Rows are read and written under the fold lock.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from infermeter.catalogue import FAMILIES, Family
from infermeter.native import MAX_BUCKETS, Native
from infermeter.observation import Exemplar
from infermeter.sharing import Key

if TYPE_CHECKING:
    from infermeter.extent import SharedRow

_NONE: Mapping[int, Exemplar] = {}
_BATCH = 32
_LARGE_BLOCK = 64
_NOTHING: Mapping[str, str] = {}


R = TypeVar("R", bound="Row")


class Memory(Protocol):
    """Where rows outlive their process.

    Attributes:
        targets: by number of the shared row, whatever a record may name.
    """

    targets: dict[int, Any]

    def row(self, key: Key) -> "SharedRow | None":
        """The numbers of a row; None where there is no room for them."""


class Group(dict[tuple[str, ...], "Row"]):
    """The rows of one family that have one set of values of its own labels, by the values of the others.

    Attributes:
        family: theirs.
        own: those values.
        stale: whether a row was changed, added or taken away since it was rendered last.
        text: the lines of all rows, as rendered last, where no row has its own.
        messages: the same as protobuf, if nothing changed since.
    """

    __slots__ = ("family", "messages", "own", "stale", "text")

    def __init__(self, family: Family, own: tuple[str, ...]) -> None:
        super().__init__()
        self.family = family
        self.own = own
        self.stale = True
        self.text = b""
        self.messages: list[bytes] | None = None

    def changed(self) -> None:
        """Have it rendered anew."""
        self.stale = True
        self.messages = None


class Row:
    """One row.

    Attributes:
        group: the rows beside it.
        labels: values of the labels that the family shares with others of its kind (service, model, version).
    """

    # What makes it visible to other processes, if anything does.
    shared: "SharedRow | None" = None

    # An array of its own for each would double what a row takes: it has its place in a block of many.
    __slots__ = ("_block", "_place", "group", "labels")

    def __init__(
        self,
        group: Group,
        labels: tuple[str, ...],
        block: NDArray[np.float64],
        place: int,
    ) -> None:
        self.group = group
        self.labels = labels
        self._block = block
        self._place = place

    @property
    def family(self) -> Family:
        """The family."""
        return self.group.family

    @property
    def own(self) -> tuple[str, ...]:
        """Values of the family's own labels ("" where it has none)."""
        return self.group.own

    @property
    def values(self) -> NDArray[np.float64]:
        """The numbers, float64, shape (n,).

        Counters, gauges and infos have one (those gauges that keep it, the time too); a histogram the number of values
        up to each edge, their number, and their sum; a summary number and sum.
        """
        found: NDArray[np.float64] = self._block[self._place]
        return found

    def move(self, values: NDArray[np.float64]) -> None:
        """Have the numbers at `values` from now on, which are what they are."""
        self._block, self._place = values[np.newaxis], 0

    def add(self, *numbers: float) -> None:
        """Count so much more."""
        values = self.values
        for index, number in enumerate(numbers):
            if number:
                values[index] += number
                self.changed()

    def set(self, *values: float) -> None:
        """Take other values."""
        known = self.values
        for index, value in enumerate(values):
            if known[index] != value:
                known[index] = value
                self.changed()

    def tell(self, value: float, moment: float) -> None:
        """Take another value, told at `moment`, in seconds since 1970, which only some gauges keep."""
        self.set(*(value, moment)[: len(self.values)])

    def changed(self) -> None:
        """Have it rendered anew."""
        self.group.changed()
        if self.shared is not None:
            self.shared.touch()

    def whole(self) -> NDArray[np.float64]:
        """The values, and the native buckets if it has some; a copy."""
        return self.values.copy()


class HistogramRow(Row):
    """The row of a histogram.

    Attributes:
        exemplars: by the index of their bucket.
        text: its lines, if it has not changed since they were rendered.
        message: the same as protobuf.
    """

    __slots__ = ("exemplars", "message", "text")

    # Its native buckets, if it has some.
    native: Native | None = None

    def __init__(self, group: Group, labels: tuple[str, ...], block: NDArray[np.float64], place: int) -> None:
        super().__init__(group, labels, block, place)
        self.exemplars: Mapping[int, Exemplar] = _NONE
        self.text: bytes | None = None
        self.message: bytes | None = None

    def changed(self) -> None:
        """Have it rendered anew."""
        self.text = self.message = None
        super().changed()

    def whole(self) -> NDArray[np.float64]:
        """The values, and the native buckets if it has some; a copy."""
        return self.values.copy() if self.native is None else np.concatenate((self.values, self.native.state))

    def absorb(self, whole: NDArray[np.float64]) -> None:
        """Add what `whole` gave of another histogram with the same edges."""
        values = self.values
        with np.errstate(over="ignore"):
            values += whole[: len(values)]
        if self.native is not None:
            self.native.absorb(whole[len(values) :])
        self.changed()


# What only some rows have, which costs every other one nothing.


class _SharedRow(Row):
    __slots__ = ("shared",)

    shared: "SharedRow | None"


class WideHistogramRow(HistogramRow):
    """A histogram that has native buckets, or that other processes see."""

    __slots__ = ("native", "shared")

    native: Native | None
    shared: "SharedRow | None"

    def __init__(self, group: Group, labels: tuple[str, ...], block: NDArray[np.float64], place: int) -> None:
        super().__init__(group, labels, block, place)
        self.native = self.shared = None


class Edges:
    """The edges of one family, for values of either width; shared by all its histograms.

    Args:
        edges: inclusive upper bounds, strictly increasing, without infinity; shape (n,).
    """

    __slots__ = ("float32", "float64")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.float64 = np.array(edges, dtype=np.float64)
        # For a float32 value, "<= edge" and "<= the largest float32 that is no greater than edge" are the same.
        with np.errstate(over="ignore"):  # an edge beyond the largest float32 becomes that one
            rounded = self.float64.astype(np.float32)
        below = np.nextafter(rounded, np.float32(-np.inf))
        self.float32 = np.where(rounded.astype(np.float64) > self.float64, below, rounded)


class _Blocks:
    """Places for rows of one width, in blocks that are never moved: somebody may be writing to them."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._next = itertools.count().__next__  # atomic
        self._blocks: dict[int, NDArray[np.float64]] = {}

    def place(self) -> tuple[NDArray[np.float64], int]:
        """A block, and a row of it that nobody has."""
        number = self._next()
        # Of 8, 8, 16 and 32 rows, so that few rows take little, and then of 64.
        if number < _LARGE_BLOCK:
            index = (number >> 3).bit_length()
            size, first = (8 << index - 1, 8 << index - 1) if index else (8, 0)
        else:
            index, size = _LARGE_BLOCK + number // _LARGE_BLOCK, _LARGE_BLOCK
            first = number - number % _LARGE_BLOCK
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks.setdefault(index, np.zeros((size, self._width)))
        return block, number - first


class Rows:
    """Every row of a ledger, by family in the order of the catalogue.

    Args:
        edges: upper edges of the buckets by histogram family.
        modes: families that are "native" or "both"; the others are classic.
        max_native_buckets: populated buckets of a native histogram before its resolution is halved.
        gauges: how those of several processes become one; none where there is only one.
        memory: where rows are kept; None keeps them in that of the process.
    """

    def __init__(
        self,
        edges: Mapping[str, tuple[float, ...]],
        modes: Mapping[str, str] = _NOTHING,
        max_native_buckets: int = MAX_BUCKETS,
        *,
        gauges: Mapping[str, str] = _NOTHING,
        memory: Memory | None = None,
    ) -> None:
        self.edges = edges
        self.modes = modes
        self.buckets = max_native_buckets
        self._gauges = gauges
        self._memory = memory
        self._edges: dict[str, Edges] = {}
        self._blocks: dict[str, _Blocks] = {}
        self._families: dict[str, dict[tuple[str, ...], Group]] = {name: {} for name in FAMILIES}

    def row(self, family: str, labels: tuple[str, ...], own: tuple[str, ...] = ("",)) -> Row:
        """The row of these labels, made at first use. Takes no lock: threads that race get the same one.

        Raises:
            ReenteredError: this interrupts the making of another one that is shared with other processes.
        """
        group = self._families[family].get(own)
        if group is None:
            group = self._families[family].setdefault(own, Group(FAMILIES[family], own))
        row = group.get(labels)
        if row is None:
            row = group.setdefault(labels, self._made(group, labels))
            group.changed()
            if self._memory is not None and row.shared is not None:
                self._memory.targets[row.shared.number] = row
        return row

    def histogram_row(self, family: str, labels: tuple[str, ...], own: tuple[str, ...] = ("",)) -> HistogramRow:
        """The row of a family of histograms."""
        return cast("HistogramRow", self.row(family, labels, own))

    def _made(self, group: Group, labels: tuple[str, ...]) -> Row:
        family = group.family.name
        key = self.key(family, labels, group.own)
        shared = self._memory.row(key) if self._memory is not None else None
        if shared is None and not key.buckets:
            blocks = self._blocks.get(family)
            if blocks is None:
                blocks = self._blocks.setdefault(family, _Blocks(key.whole))
            return (HistogramRow if key.edges else Row)(group, labels, *blocks.place())
        whole = shared.values if shared is not None else np.zeros(key.whole)
        made = (WideHistogramRow if key.edges else _SharedRow)(group, labels, whole[np.newaxis], 0)
        if isinstance(made, WideHistogramRow) and key.buckets:
            made.move(whole[: key.width])
            made.native = Native(whole[key.width :])
        made.shared = shared
        return made

    def key(self, family: str, labels: tuple[str, ...], own: tuple[str, ...]) -> Key:
        """What other processes know a row by."""
        kind = FAMILIES[family].kind
        if kind == "histogram":
            native = self.modes.get(family, "classic") != "classic"
            return Key(family, labels, own, self.edges[family], self.buckets if native else 0)
        return Key(family, labels, own, mode=self._gauges.get(family, ""))

    def edges_of(self, family: str) -> Edges:
        """The edges of a histogram family, as histograms take them."""
        edges = self._edges.get(family)
        if edges is None:
            edges = self._edges[family] = Edges(self.edges[family])
        return edges

    def remove(self, row: Row) -> None:
        """Forget a row: what it told holds no more."""
        row.set(0)
        self.hide(row)

    def hide(self, row: Row) -> None:
        """Leave out a row, until it is shown again."""
        row.group.pop(row.labels, None)
        row.group.changed()

    def show(self, row: Row) -> None:
        """Show a row, also if it was hidden."""
        if row.labels not in row.group:
            row.group[row.labels] = row
            row.group.changed()

    def every(self) -> list[Row]:
        """All rows."""
        return [row for family in self._families for row in self.of(family)]

    def of(self, family: str) -> list[Row]:
        """The rows of a family; inferring threads may add some meanwhile."""
        return [row for group in self.groups(family) for row in list(group.values())]

    def groups(self, family: str) -> list[Group]:
        """The same, by the values of the family's own labels."""
        return list(self._families[family].values())


def batched(rows: list[R]) -> Iterator[list[R]]:
    """A few rows at a time, rendered in some tenths of a millisecond."""
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


def labels_of(row: Row, constant: Mapping[str, str]) -> dict[str, str]:
    """The labels of a row with their values, by name; `constant` ones on families of a service."""
    names = row.family.labels
    shared = len(row.labels)
    found = dict(zip(names, row.labels, strict=False)) | dict(zip(names[shared:], row.own, strict=False))
    if constant and "service" in found:
        found |= constant
    return dict(sorted(found.items()))
