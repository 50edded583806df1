"""The process that talks to a driver, which may hang in it, die of it, or have mapped a library that was replaced.

It writes what it reads to its standard output, a message a line, and ends when its standard input is closed: then the
exporter is gone. What it is to do is in its one argument, JSON; see `Task`.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from infermeter_exporters.gpu.readings import (
    TIERS,
    Beat,
    Failed,
    Machine,
    Message,
    Opened,
    Source,
    SourceError,
    Tier,
    Unit,
    packed,
)

# A source could not be used: its reason is the last message.
UNUSABLE = 3
_BEAT = 1.0
# Sources whose GPUs may be on another bus than that of this host, or that count those on the bus themselves.
_ELSEWHERE = {"dcgm", "simulated", "sysfs"}


class Task(NamedTuple):
    """What a worker is to do.

    Attributes:
        source: name of the source.
        options: of the source: a path, a URL, a specification.
        only: names of the units to read; all if there are none.
        skip: names of those to leave out.
        periods: seconds between two readings of each tier, in the order of `readings.TIERS`.
        root: where `/sys` and `/proc` are found, "" on a host.
    """

    source: str
    options: dict[str, str]
    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    periods: Sequence[float] = (1.0, 5.0, 60.0)
    root: str = ""


def main() -> int:
    """Do the task that is given in the arguments."""
    # A terminal tells all of its processes; this one ends when the exporter says so, or is gone.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    task = Task(**json.loads(sys.argv[1]))
    lock = threading.Lock()
    descriptor = os.dup(1)
    os.dup2(2, 1)  # what libraries print does not get among the messages

    def out(message: Message) -> None:
        line = (packed(message) + "\n").encode()
        with lock:
            while line:
                line = line[os.write(descriptor, line) :]

    try:
        _work(task, out)
    except SourceError as error:
        out(Failed(str(error)))
        return UNUSABLE
    except BrokenPipeError:  # the exporter is gone
        pass
    return 0


def _work(task: Task, out: Callable[[Message], None]) -> None:
    source = make(task)
    machine = source.open()
    units = [
        unit for unit in source.units() if (not task.only or unit.name in task.only) and unit.name not in task.skip
    ]
    out(_with_bus(machine, task))
    counted = time.monotonic()
    out(Opened([unit.name for unit in units]))
    failed: list[BaseException] = []
    readers = [_Reader(unit, task.periods, place / len(units), out, failed.append) for place, unit in enumerate(units)]
    for reader in readers:
        threading.Thread(target=reader.run, name=reader.unit.name, daemon=True).start()
    if not task.only:
        threading.Thread(target=_hear, args=(source, out, failed.append), name="xid", daemon=True).start()
    while not failed:
        if select.select([0], [], [], _BEAT)[0] and not os.read(0, 1024):
            # Threads may hang in the driver: nothing of them is waited for.
            os._exit(0)
        out(Beat([one for one in [reader.reading for reader in readers] if one[1]]))
        if time.monotonic() - counted >= task.periods[-1]:
            counted = time.monotonic()
            out(_with_bus(machine, task))
    error = failed[0]
    # The same: no other thread is waited for.
    if isinstance(error, SourceError):
        out(Failed(str(error)))
        os._exit(UNUSABLE)
    if isinstance(error, BrokenPipeError):
        os._exit(0)
    sys.excepthook(type(error), error, error.__traceback__)
    os._exit(1)


def _with_bus(machine: Machine, task: Task) -> Machine:
    """What a source says, and how many GPUs are on the bus whatever it says."""
    if task.source in _ELSEWHERE:
        return machine
    from infermeter_exporters.gpu.sysfs import pci_devices  # noqa: PLC0415

    count = float(len(pci_devices(task.root + "/sys")))
    return machine._replace(values=[*machine.values, ("nvidia_gpu_pci_devices", (), count)])


class _Reader:
    """Reads one unit, for as long as the process lives.

    Args:
        unit: what is read.
        periods: seconds between two readings of each tier.
        phase: part of a period by which it is later than others: who takes the readings is not to get all at once.
        out: takes them.
        failed: takes what went wrong.
    """

    def __init__(
        self,
        unit: Unit,
        periods: Sequence[float],
        phase: float,
        out: Callable[[Message], None],
        failed: Callable[[BaseException], object],
    ) -> None:
        self.unit = unit
        self._periods = dict(zip(TIERS, periods, strict=True))
        self._phase = phase
        self._out = out
        self._failed = failed
        self._since = 0.0

    @property
    def reading(self) -> tuple[str, float]:
        """The name of the unit, and since how many seconds it is being read; 0 if it is not."""
        since = self._since
        return self.unit.name, time.monotonic() - since if since else 0.0

    def run(self) -> None:
        """Read each tier when it is due."""
        # What is slow comes first: it says what the GPU is. All tiers are due now, and at their phase from then on.
        start = time.monotonic()
        due = {tier: start - (1 - self._phase) * self._periods[tier] for tier in reversed(TIERS)}
        try:
            while True:
                for tier, moment in due.items():
                    now = time.monotonic()
                    if now >= moment:
                        self._read(tier)
                        # On a grid, so that readings do not drift; what was missed is not made up for.
                        period = self._periods[tier]
                        due[tier] = moment + period * max(1.0, (time.monotonic() - moment) // period)
                time.sleep(max(0.0, min(due.values()) - time.monotonic()))
        except BaseException as error:  # whatever it is, the process starts over
            self._failed(error)

    def _read(self, tier: Tier) -> None:
        self._since = time.monotonic()
        readings = self.unit.read(tier)
        self._since = 0.0
        for reading in readings:
            self._out(reading)


def _hear(source: Source, out: Callable[[Message], None], failed: Callable[[BaseException], object]) -> None:
    try:
        while True:
            began = time.monotonic()
            xid = source.wait_for_xid(_BEAT)
            if xid is not None:
                out(xid)
            elif time.monotonic() - began < _BEAT / 2:  # there is no way to wait
                time.sleep(_BEAT)
    except BaseException as error:  # whatever it is, the process starts over
        failed(error)


def make(task: Task) -> Source:
    """The source of a task; each imports its own library."""
    options, root = task.options, task.root
    if task.source == "nvml":
        from infermeter_exporters.gpu.nvml import Nvml  # noqa: PLC0415
        from infermeter_exporters.gpu.sysfs import asleep  # noqa: PLC0415

        return Nvml(lambda pci: asleep(pci, root + "/sys"))
    if task.source == "nvidia-smi":
        from infermeter_exporters.gpu.smi import Smi  # noqa: PLC0415

        return Smi(options.get("path", "nvidia-smi"))
    if task.source == "dcgm":
        from infermeter_exporters.gpu.dcgm import Dcgm  # noqa: PLC0415

        return Dcgm(options["url"])
    if task.source == "simulated":
        from infermeter_exporters.gpu.simulated import Simulated  # noqa: PLC0415

        return Simulated(options["spec"])
    from infermeter_exporters.gpu.sysfs import Sysfs  # noqa: PLC0415

    return Sysfs(root or "/")


if __name__ == "__main__":
    sys.exit(main())
