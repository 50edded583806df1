"""What each service used of one GPU since the exporter started: time, energy, money. All of it adds up to the GPU's.

The energy of a reading is divided in two: what the GPU draws when nobody uses it belongs to `_idle`, the rest to the
services by their parts of the GPU's time. What an idle GPU draws is learned, as the least power that was seen while no
kernel ran; until then it is taken to be nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

from infermeter_exporters.gpu.catalogue import IDLE, UNATTRIBUTED

# The values of the labels `service` and `container_name`.
Owned = tuple[str, str]
NOBODY: Owned = (UNATTRIBUTED, "")
IDLING: Owned = (IDLE, "")

_SECONDS_PER_HOUR = 3600.0
_JOULES_PER_KWH = 3.6e6


class Price(NamedTuple):
    """What a GPU costs.

    Attributes:
        usd_per_hour: of the GPU, used or not.
        usd_per_kwh: of the energy.
    """

    usd_per_hour: float = 0.0
    usd_per_kwh: float = 0.0


class Counter:
    """A counter of the driver, which starts over when the driver is loaded again; ours goes on.

    Attributes:
        total: ours.
    """

    __slots__ = ("_last", "total")

    def __init__(self) -> None:
        self._last: float | None = 0.0
        self.total = 0.0

    def read(self, value: float) -> float:
        """The driver says `value`; gives by how much the total grew, all of it at the first time."""
        last, self._last = self._last, value
        if last is None:
            return 0.0
        grown = value - last
        if value < last / 2:
            grown = value  # it started over
        elif value < last:
            grown, self._last = 0.0, last  # a counter that was read a little late
        self.total += grown
        return grown

    def start_over(self) -> None:
        """The next value comes from elsewhere: nothing follows from it yet."""
        if self.total:
            self._last = None


class Account:
    """What one service used of one GPU.

    Attributes:
        seconds: of the whole GPU.
        joules: energy.
        usd: money.
        shown: whether a page has shown it at 0, from which it may grow.
    """

    __slots__ = ("joules", "seconds", "shown", "usd")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.joules = 0.0
        self.usd = 0.0
        self.shown = False


class Accounts:
    """What all services used of one GPU.

    Attributes:
        of: the account of each, by its labels.
        energy: the energy counter of the GPU.
        seconds: for which the GPU was there.
        divided: whether it was ever known who used how much of its time.
    """

    __slots__ = ("_idle_watts", "_measured", "_time", "divided", "energy", "of", "seconds")

    def __init__(self) -> None:
        self.of: dict[Owned, Account] = {}
        self.energy = Counter()
        self.seconds = 0.0
        self.divided = False
        self._time: float | None = None
        self._idle_watts: float | None = None
        self._measured = False

    @property
    def measured(self) -> bool:
        """Whether anything is known of the energy."""
        return self._measured

    def learn(self, busy: float | None, watts: float | None) -> None:
        """What the GPU draws at one moment; it is learned from if nothing ran."""
        if busy == 0 and watts is not None:
            self._idle_watts = watts if self._idle_watts is None else min(watts, self._idle_watts)

    def passed(self, time: float, longest: float) -> tuple[float, bool]:
        """A reading came; gives the seconds since the last one, and whether it is known what happened in them.

        Args:
            time: of the reading.
            longest: so many seconds may pass between two.
        """
        last, self._time = self._time, time
        seconds = max(0.0, time - last) if last is not None else 0.0
        self.seconds += seconds
        return seconds, seconds <= longest

    def drawn(self, joules: float | None, watts: float | None, seconds: float) -> float | None:
        """The energy since the last reading, by the driver's counter or, where it has none, by the power now."""
        if joules is not None:
            first, self._measured = not self._measured, True
            grown = self.energy.read(joules)
            return 0.0 if first else grown  # before the first reading it was used by nobody whom we know
        if watts is None:
            return None
        self._measured = True
        self.energy.total += watts * seconds
        return watts * seconds

    def used(self, seconds: float, shares: Mapping[Owned, float], joules: float | None, price: Price) -> None:
        """Write down what happened since the last reading.

        Args:
            seconds: that passed.
            shares: parts of the GPU's time, in percent; those of nobody among them. Together what the GPU was busy.
                Without any it is not known who used it, or whether: energy and money are nobody's then, and its time
                is not told.
            joules: that the GPU used, None if that is not known.
            price: of the GPU.
        """
        if not shares:
            self._add(NOBODY, 0.0, joules or 0.0, seconds / _SECONDS_PER_HOUR * price.usd_per_hour, price)
            return
        self.divided = True
        busy = sum(shares.values())
        idle_joules = 0.0
        if joules is not None:
            idle_joules = joules if busy == 0 else min(joules, (self._idle_watts or 0.0) * seconds)
        usd = seconds / _SECONDS_PER_HOUR * price.usd_per_hour
        for owned, percent in shares.items():
            energy = (joules - idle_joules) * percent / busy if joules is not None and busy > 0 else 0.0
            self._add(owned, seconds * percent / 100, energy, usd * percent / 100, price)
        # What is left rather than what is not used: it adds up however the parts were rounded.
        self._add(IDLING, 0.0, idle_joules, usd * max(0.0, 100 - busy) / 100, price)

    def _add(self, owned: Owned, seconds: float, joules: float, usd: float, price: Price) -> None:
        account = self.of.get(owned)
        if account is None:
            account = self.of[owned] = Account()
        account.seconds += seconds
        account.joules += joules
        account.usd += usd + joules / _JOULES_PER_KWH * price.usd_per_kwh
