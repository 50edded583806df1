"""What is read of a GPU at one moment, as data, on its way from the process that talks to the driver.

All values are in base units (bytes, seconds, watts, joules, hertz, degrees Celsius, ratios of 0 to 1) but where the
name of a family says otherwise. What is not known is absent.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

Tier = Literal["fast", "normal", "slow"]
TIERS: tuple[Tier, ...] = ("fast", "normal", "slow")

State = Literal["ok", "lost", "reset_required", "no_permission", "timeout", "unknown"]
STATES: tuple[State, ...] = ("ok", "lost", "reset_required", "no_permission", "timeout", "unknown")

# Name of a family of `catalogue.FAMILIES`, values of its labels beyond `gpu` and `uuid`, value.
Value = tuple[str, tuple[str, ...], float]


class Process(NamedTuple):
    """A process that holds a context on a GPU.

    Attributes:
        pid: in the host's namespace.
        kinds: what it does there: `compute`, `graphics`, `mps`.
        memory: what it holds, in bytes; None where the driver does not say.
        sm: percent of the time of the streaming multiprocessors since the last reading, 0 to 100; None without a
            sample of that time.
    """

    pid: int
    kinds: tuple[str, ...]
    memory: int | None
    sm: float | None


class Reading(NamedTuple):
    """What one tier of one GPU gave.

    Attributes:
        uuid: of the GPU, as the driver writes it: "GPU-...".
        number: of the GPU at the driver.
        pci: its address on the bus, "0000:65:00.0", in small letters; empty where it is not known.
        tier: how often it is read.
        time: when, by `time.monotonic()`, which all processes of a host share.
        state: whether it answers; anything but "ok" comes without values.
        values: what the driver said, ready to be shown.
        busy: ratio of the time in which a kernel ran, 0 to 1; None under MIG, and where it is not known.
        memory_used: by all, without what the driver reserves, in bytes.
        energy: that it used since the driver was loaded, in joules.
        power: that it draws, in watts.
        processes: what holds a context on it; None where that cannot be told.
        errors: name of the call and of the error, of those calls that failed otherwise than by "not supported".
        seconds: how long the reading took.
    """

    uuid: str
    number: int
    pci: str
    tier: Tier
    time: float
    state: State = "ok"
    values: Sequence[Value] = ()
    busy: float | None = None
    memory_used: int | None = None
    energy: float | None = None
    power: float | None = None
    processes: Sequence[Process] | None = None
    errors: Sequence[tuple[str, str]] = ()
    seconds: float = 0.0


class Machine(NamedTuple):
    """What a source says that is of no GPU alone.

    Attributes:
        source: its name.
        devices: how many GPUs it knows, lost ones among them.
        values: as of a reading, of families without the labels `gpu` and `uuid`.
    """

    source: str
    devices: int
    values: Sequence[Value] = ()


class Xid(NamedTuple):
    """An error that the driver reported.

    Attributes:
        uuid: of the GPU; empty where only its address is known.
        pci: its address, as in a reading; empty where only the uuid is known.
        code: the number of the error.
        time: when, in seconds since 1970.
        source: who says so: "nvml" or "kmsg".
    """

    uuid: str
    pci: str
    code: int
    time: float
    source: str


class Opened(NamedTuple):
    """The source is open.

    Attributes:
        units: names of those that are read.
    """

    units: Sequence[str]


class Beat(NamedTuple):
    """The worker lives.

    Attributes:
        reading: units in the middle of a reading, and since how many seconds.
    """

    reading: Sequence[tuple[str, float]]


class Failed(NamedTuple):
    """The source cannot be used.

    Attributes:
        reason: one sentence.
    """

    reason: str


class SourceError(Exception):
    """A source cannot be used now; the message is one sentence that says why and what would help."""


class Unit(Protocol):
    """What is read by one thread, because it may hang alone: one GPU, or a program that tells of all of them.

    Attributes:
        name: of the GPU or the program, for messages.
    """

    name: str

    def read(self, tier: Tier) -> Sequence[Reading]:
        """Read one tier; of a GPU that does not answer a reading in another state than "ok".

        Raises:
            SourceError: the source as a whole is gone, for example the driver: the worker starts over.
        """


class Source(Protocol):
    """One way to learn about GPUs.

    Attributes:
        name: its name in labels and flags.
    """

    name: str

    def open(self) -> Machine:
        """Begin; `units` may be asked for from now on.

        Raises:
            SourceError: it cannot be used now.
        """

    def units(self) -> Sequence[Unit]:
        """What is to be read, each by a thread of its own."""

    def wait_for_xid(self, seconds: float) -> Xid | None:
        """Wait up to so many seconds for an error that the driver reports; None if there is none, or no way to know."""


Message = Reading | Machine | Xid | Opened | Beat | Failed


def packed(message: Message) -> str:
    """A message as one line of JSON, without the end of the line."""
    return json.dumps([type(message).__name__, *message], separators=(",", ":"))


def unpacked(line: str | bytes) -> Message:
    """The message in a line of `packed`.

    Raises:
        ValueError: it is none.
    """
    kind, *fields = json.loads(line)
    if kind == "Reading":
        return _reading(fields)
    if kind == "Machine":
        source, devices, values = fields
        return Machine(source, devices, [(name, tuple(labels), value) for name, labels, value in values])
    if kind == "Beat":
        return Beat([(name, seconds) for name, seconds in fields[0]])
    if kind in _PLAIN:
        return _PLAIN[kind](*fields)
    raise ValueError(f"{kind!r} is no kind of message")


_PLAIN: dict[str, type[Xid | Opened | Failed]] = {"Xid": Xid, "Opened": Opened, "Failed": Failed}


def _reading(fields: list[Any]) -> Reading:
    found = Reading(*fields)
    processes = found.processes
    return found._replace(
        values=[(name, tuple(labels), value) for name, labels, value in found.values],
        processes=None
        if processes is None
        else [Process(pid, tuple(kinds), memory, sm) for pid, kinds, memory, sm in processes],
        errors=[(call, error) for call, error in found.errors],
    )
