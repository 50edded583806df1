"""What processes tell each other of their rows: whose numbers these are, and how those of two become one."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from infermeter import native
from infermeter.catalogue import FAMILIES
from infermeter.errors import DamagedError

Numbers = NDArray[np.float64]

# Keys that are of no family: who infers, and the exemplars of one who does.
SERIES = ":series"
EXEMPLARS = ":exemplars"

# How the gauges of several processes become one. Those of the dead count in none but the most recent one.
LIVE_SUM, LIVE_MAX, LIVE_MIN, MOST_RECENT = "livesum", "livemax", "livemin", "mostrecent"
GaugeMode = Literal["livesum", "livemax", "livemin", "mostrecent"]
GAUGE_MODES: tuple[str, ...] = get_args(GaugeMode)


class Key(NamedTuple):
    """Whose numbers a shared row holds.

    Attributes:
        family: its name, or SERIES or EXEMPLARS.
        labels, own: as those of a `Row`.
        edges: upper edges of the classic buckets of a histogram.
        buckets: how many native buckets it has room for, 0 for none.
        mode: of a gauge.
        usd_per_second: of SERIES, what a second of inference costs, if it has a price.
    """

    family: str
    labels: tuple[str, ...]
    own: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    buckets: int = 0
    mode: str = ""
    usd_per_second: float | None = None

    def packed(self) -> bytes:
        """As the key of a shared row."""
        import json  # noqa: PLC0415  (most services are one process)

        return json.dumps(self, separators=(",", ":")).encode()

    @property
    def width(self) -> int:
        """How many of its numbers are for everybody; native buckets and the time of a gauge come after them."""
        kind = FAMILIES[self.family].kind
        return len(self.edges) + 2 if kind == "histogram" else 2 if kind == "summary" else 1

    @property
    def whole(self) -> int:
        """How many numbers it has."""
        return self.width + (native.width(self.buckets) if self.buckets else 0) + (self.mode == MOST_RECENT)

    @property
    def exact(self) -> int:
        """How many numbers it has once its process is dead: after all others what rounding took from the first ones."""
        added = self.family in FAMILIES and FAMILIES[self.family].kind in {"counter", "histogram", "summary"}
        return self.whole + self.width if added else 0

    @property
    def live(self) -> bool:
        """Whether it ends with its process."""
        if self.family not in FAMILIES:
            return self.family == SERIES
        kind = FAMILIES[self.family].kind
        return kind == "info" or (kind == "gauge" and self.mode != MOST_RECENT)


def unpacked(key: bytes) -> Key:
    """What `Key.packed` made of it.

    Raises:
        DamagedError: it is no such key.
    """
    import json  # noqa: PLC0415  (as above)

    try:
        family, labels, own, edges, *rest = json.loads(key)
        found = Key(family, tuple(labels), tuple(own), tuple(edges), *rest)
        if found.packed() == key:
            return found
    except (TypeError, ValueError):
        pass
    raise DamagedError("a row has no key of ours")


def joined(key: Key, one: Numbers, other: Numbers) -> Numbers:
    """The numbers of two rows of one key, neither of which ends with its process."""
    if key.family == EXEMPLARS or key.mode == MOST_RECENT:
        # Both have their time at their end, and the later one holds.
        return other if other[-1] >= one[-1] else one
    if len(one) != key.exact:  # of a later version
        return one + other
    width = key.width
    # So that the sum does not depend on the order: it must not fall when the dead are absorbed, not by a last bit.
    total, rest = added(one[:width], other[:width])
    natives = one[width:-width]
    if key.buckets:
        natives = native.merge((natives, other[width:-width]), key.buckets)
    return np.concatenate((total, natives, rest + one[-width:] + other[-width:]))


def added(one: Numbers, other: Numbers) -> tuple[Numbers, Numbers]:
    """The sum of each two numbers as it is rounded, and what rounding took from it (Knuth's TwoSum)."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = one + other
        part = total - one
        return total, (one - (total - part)) + (other - part)


def modes_of(gauges: Mapping[str, str]) -> dict[str, str]:
    """How each gauge family is joined, with those of the catalogue where `gauges` tells nothing."""
    return {name: gauges.get(name, family.across) for name, family in FAMILIES.items() if family.kind == "gauge"}
