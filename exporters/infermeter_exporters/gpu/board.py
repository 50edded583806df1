"""What is known of all GPUs now: readings come in from one side, samples of the page go out at the other.

A value is shown as long as its GPU answers, and no longer: of a GPU that is lost, or that nobody has heard of for
`Limits.max_age`, nothing is shown but `nvidia_gpu_up 0`, its state, and what it has used until then.
"""

import threading
from collections import Counter as Multiset
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from infermeter_exporters.families import Samples, Series
from infermeter_exporters.gpu import xids
from infermeter_exporters.gpu.accounts import IDLING, NOBODY, Accounts, Counter, Owned, Price
from infermeter_exporters.gpu.catalogue import FAMILIES, OTHER
from infermeter_exporters.gpu.partition import memory_shares, time_shares
from infermeter_exporters.gpu.readings import STATES, Machine, Process, Reading, State, Tier, Xid

_COUNTERS = {name for name, family in FAMILIES.items() if family.kind == "counter"}


class Owner(Protocol):
    """Whose a process is; see `attribution.Owner`."""

    @property
    def service(self) -> str: ...  # noqa: D102
    @property
    def container_name(self) -> str: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def pod(self) -> str: ...  # noqa: D102
    @property
    def process_name(self) -> str: ...  # noqa: D102


class Owners(Protocol):
    """Who knows whose processes are; see `attribution.Attribution`. Neither method waits for anything."""

    def owner(self, pid: int) -> Owner | None:
        """Whose process it is, None if that is not known."""

    def why(self, pid: int) -> str:
        """Why it is not known."""


class Limits(NamedTuple):
    """How long and how many.

    Attributes:
        max_age: seconds after which a reading is no longer shown.
        slow_age: the same for what is read rarely.
        keep: seconds for which a service is shown at 0 after it left a GPU.
        services: most of them on one GPU; what comes after is `_other`.
        processes: how many are shown one by one for each GPU.
    """

    max_age: float = 10.0
    slow_age: float = 130.0
    keep: float = 600.0
    services: int = 100
    processes: int = 0


class _Gpu:
    """One GPU."""

    __slots__ = (
        "accounts",
        "counters",
        "dropped",
        "heard",
        "hung",
        "labels",
        "last_seen",
        "memory",
        "newest",
        "owners",
        "pci",
        "processes",
        "raw",
        "shares",
        "shown",
        "state",
        "unknown",
        "xid_times",
        "xids",
    )

    def __init__(self, reading: Reading) -> None:
        self.labels = (str(reading.number), reading.uuid)
        self.pci = reading.pci
        self.state: State = "unknown"
        self.heard = reading.time
        self.hung = False  # and has not been read in full since; the fast tier is the last one at a start
        self.newest: dict[Tier, Reading] = {}
        self.shown: dict[Tier, Samples] = {}  # what the newest readings say by themselves
        self.accounts = Accounts()
        self.counters: dict[tuple[str, tuple[str, ...]], Counter] = {}
        self.last_seen: dict[Owned, float] = {}  # services that hold or held a context
        self.owners: dict[Owned, dict[tuple[str, str], None]] = {}  # their namespaces and pods
        self.shares: dict[Owned, float] = {}
        self.memory: dict[Owned, int] = {}
        self.raw: dict[Owned, float] = {}
        self.processes: list[tuple[Process, Owned, str]] = []  # with their names
        self.unknown: Multiset[str] = Multiset()  # processes of nobody, by reason
        self.dropped = 0
        self.xids: dict[int, Multiset[str]] = {code: Multiset() for code in xids.CLASSES}
        self.xid_times: dict[int, float] = {}


class Board:
    """All GPUs.

    Args:
        owners: knows whose processes are.
        price: gives the price of a GPU by its name.
        limits: how long and how many.
    """

    def __init__(
        self,
        owners: Owners,
        price: Callable[[str], Price] = lambda _: Price(),
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        self._owners = owners
        self._price = price
        self._limits = limits
        self._lock = threading.Lock()
        self._gpus: dict[str, _Gpu] = {}
        self._machine: Machine | None = None
        self._collections: Multiset[str] = Multiset()
        self._took: dict[tuple[Tier, str], float] = {}
        self._errors: Multiset[tuple[str, str]] = Multiset()
        self.version = 0

    # --- what comes in ----------------------------------------------------------------------------------------------

    def set_up(self, owners: Owners, price: Callable[[str], Price], limits: Limits) -> None:
        """Go on with another configuration."""
        with self._lock:
            self._owners, self._price, self._limits = owners, price, limits

    def told(self, machine: Machine) -> None:
        """A source says what there is."""
        with self._lock:
            self._machine = machine
            self.version += 1

    def read(self, reading: Reading) -> None:
        """A GPU was read."""
        with self._lock:
            gpu = self._gpus.get(reading.uuid)
            if gpu is None:
                gpu = self._gpus[reading.uuid] = _Gpu(reading)
            gpu.pci = reading.pci or gpu.pci
            gpu.hung = gpu.hung and reading.state == "ok" and reading.tier != "fast"
            gpu.state = "timeout" if gpu.hung else reading.state
            gpu.heard = max(gpu.heard, reading.time)
            gpu.newest[reading.tier] = reading
            gpu.shown.pop(reading.tier, None)
            if reading.state != "ok":
                gpu.newest = {reading.tier: reading}
            for name, labels, value in reading.values:
                if name in _COUNTERS:
                    key = name, labels
                    counter = gpu.counters.get(key)
                    if counter is None:
                        counter = gpu.counters[key] = Counter()
                    counter.read(value)
            if reading.tier == "fast":
                self._use(gpu, reading)
            self._collections[reading.tier] += 1
            self._took[reading.tier, reading.uuid] = reading.seconds
            self._errors.update(reading.errors)
            self.version += 1

    def missed(self, uuid: str, state: State) -> None:
        """A GPU could not be read."""
        with self._lock:
            gpu = self._gpus.get(uuid)
            if gpu is not None and gpu.state != state:
                gpu.state, gpu.hung = state, True
                gpu.newest.clear()
                self.version += 1

    def missed_all(self, state: State) -> None:
        """No GPU could be read."""
        for uuid in list(self._gpus):
            self.missed(uuid, state)

    def start_over(self) -> None:
        """The next readings come from another source, whose counters may stand elsewhere."""
        with self._lock:
            for gpu in self._gpus.values():
                for counter in (*gpu.counters.values(), gpu.accounts.energy):
                    counter.start_over()

    def fresh(self, now: float) -> bool:
        """Whether something was heard of every GPU, or there is none."""
        with self._lock:
            ages = [now - gpu.heard for gpu in self._gpus.values()]
            return self._machine is not None and (
                not self._machine.devices or (bool(ages) and min(ages) <= self._limits.max_age)
            )

    def error(self, xid: Xid) -> None:
        """The driver reported an error. Two that report the same one do not make it two."""
        with self._lock:
            for gpu in self._gpus.values():
                if (xid.uuid and gpu.labels[1] == xid.uuid) or (xid.pci and gpu.pci.startswith(xid.pci)):
                    gpu.xids.setdefault(xid.code, Multiset())[xid.source] += 1
                    gpu.xid_times[xid.code] = max(xid.time, gpu.xid_times.get(xid.code, 0.0))
                    self.version += 1

    def _use(self, gpu: _Gpu, reading: Reading) -> None:
        """Find who used how much since the last reading."""
        seconds, known = gpu.accounts.passed(reading.time, self._limits.max_age)
        gpu.shares, gpu.memory, gpu.raw, gpu.processes, gpu.unknown = {}, {}, {}, [], Multiset()
        for owned, seen in list(gpu.last_seen.items()):
            if reading.time - seen > self._limits.keep:
                del gpu.last_seen[owned]
                gpu.owners.pop(owned, None)
                gpu.accounts.of.pop(owned, None)
        if reading.state == "ok":
            self._find_owners(gpu, reading)
            self._divide(gpu, reading)
        gpu.accounts.learn(reading.busy, reading.power)
        joules = gpu.accounts.drawn(reading.energy, reading.power if known else None, seconds)
        shares = gpu.shares if known else {}  # what happened while nobody looked, nobody knows
        if shares or seconds:
            gpu.accounts.used(seconds, shares, joules, self._price(self._name(gpu)))

    def _find_owners(self, gpu: _Gpu, reading: Reading) -> None:
        for process in reading.processes or ():
            owner = self._owners.owner(process.pid)
            if owner is None:
                gpu.unknown[self._owners.why(process.pid)] += 1
                gpu.processes.append((process, NOBODY, ""))
                continue
            owned = owner.service, owner.container_name
            if owned not in gpu.last_seen and len(gpu.last_seen) >= self._limits.services:
                owned = OTHER, ""
                gpu.dropped += 1
            gpu.last_seen[owned] = reading.time
            if owned[0] != OTHER:
                gpu.owners.setdefault(owned, {})[owner.namespace, owner.pod] = None
            gpu.processes.append((process, owned, owner.process_name))

    def _divide(self, gpu: _Gpu, reading: Reading) -> None:
        used: dict[Owned, float] = dict.fromkeys(gpu.last_seen, 0.0)
        held: dict[Owned, int] = dict.fromkeys(gpu.last_seen, 0)
        for process, owned, _ in gpu.processes:
            if process.sm is not None:
                gpu.raw[owned] = gpu.raw.get(owned, 0.0) + process.sm
                if owned != NOBODY:
                    used[owned] += process.sm
            if process.memory is not None and owned != NOBODY:
                held[owned] += process.memory
        if reading.busy is not None:
            gpu.shares, gpu.shares[NOBODY] = time_shares(reading.busy, used)
        if reading.memory_used is not None:
            gpu.memory, gpu.memory[NOBODY] = memory_shares(reading.memory_used, held)

    def _name(self, gpu: _Gpu) -> str:
        slow = gpu.newest.get("slow")
        for name, labels, _ in slow.values if slow is not None else ():
            if name == "nvidia_gpu_info":
                return labels[0]
        return ""

    # --- what goes out ----------------------------------------------------------------------------------------------

    def samples(self, now: float) -> Samples:
        """All that is known, at a time of `time.monotonic()`."""
        found: defaultdict[str, Series] = defaultdict(dict)
        with self._lock:
            if self._machine is not None:
                found["nvidia_gpu_devices"][()] = self._machine.devices
                for name, labels, value in self._machine.values:
                    found[name][labels] = value
            unknown: Multiset[str] = Multiset()
            for gpu in self._gpus.values():
                self._show(gpu, found, now)
                unknown.update(gpu.unknown)
            for reason, number in unknown.items():
                found["nvidia_gpu_exporter_unattributed_processes"][reason,] = number
            for tier, number in self._collections.items():
                found["nvidia_gpu_exporter_collections_total"][tier,] = number
            for (tier, _), seconds in self._took.items():
                longest = found["nvidia_gpu_exporter_collect_duration_seconds"]
                longest[tier,] = max(seconds, longest.get((tier,), 0.0))
            for pair, number in self._errors.items():
                found["nvidia_gpu_exporter_call_errors_total"][pair] = number
            dropped = sum(gpu.dropped for gpu in self._gpus.values())
            found["nvidia_gpu_exporter_series_dropped_total"]["services",] = dropped
        return found

    def state(self, gpu: _Gpu, now: float) -> State:
        """The state of a GPU: `timeout` if nothing was heard of it for too long."""
        return "timeout" if gpu.state == "ok" and now - gpu.heard > self._limits.max_age else gpu.state

    def _show(self, gpu: _Gpu, found: defaultdict[str, Series], now: float) -> None:
        labels = gpu.labels
        state = self.state(gpu, now)
        found["nvidia_gpu_up"][labels] = float(state == "ok")
        for other in STATES:
            found["nvidia_gpu_status"][*labels, other] = float(state == other)
        for code, sources in gpu.xids.items():
            found["nvidia_gpu_xid_errors_total"][*labels, str(code), xids.class_of(code)] = max(
                sources.values(), default=0
            )
        for code, moment in gpu.xid_times.items():
            found["nvidia_gpu_xid_last_timestamp_seconds"][*labels, str(code)] = moment
        self._show_accounts(gpu, found)
        if state != "ok":
            return
        for reading in self._fresh(gpu, now):
            for name, series in self._shown(gpu, reading).items():
                found[name].update(series)
            if reading.tier == "fast":
                self._show_use(gpu, reading, found)

    @staticmethod
    def _shown(gpu: _Gpu, reading: Reading) -> Samples:
        """What a reading says by itself; most are seen by more than one scrape."""
        shown = gpu.shown.get(reading.tier)
        if shown is None:
            shown = gpu.shown[reading.tier] = {}
            for name, own, value in reading.values:
                total = gpu.counters[name, own].total if name in _COUNTERS else value
                shown.setdefault(name, {})[*gpu.labels, *own] = total
        return shown

    def _fresh(self, gpu: _Gpu, now: float) -> Iterator[Reading]:
        for tier, reading in gpu.newest.items():
            if now - reading.time <= (self._limits.slow_age if tier == "slow" else self._limits.max_age):
                yield reading

    def _show_accounts(self, gpu: _Gpu, found: defaultdict[str, Series]) -> None:
        labels, accounts = gpu.labels, gpu.accounts
        found["gpu_seconds_total"][labels] = accounts.seconds
        price = self._price(self._name(gpu))
        usd: defaultdict[str, float] = defaultdict(float)
        for owned, account in accounts.of.items():
            shown, account.shown = account.shown, True
            if owned != IDLING and accounts.divided:
                found["nvidia_gpu_service_sm_seconds_total"][*labels, *owned] = account.seconds if shown else 0.0
            if accounts.measured:
                found["nvidia_gpu_service_energy_joules_total"][*labels, *owned] = account.joules if shown else 0.0
            usd[owned[0]] += account.usd if shown else 0.0
        if accounts.measured:
            found["nvidia_gpu_energy_joules_total"][labels] = accounts.energy.total
        if any(price):
            for service, value in usd.items():
                found["nvidia_gpu_cost_usd_total"][*labels, service] = value

    def _show_use(self, gpu: _Gpu, reading: Reading, found: defaultdict[str, Series]) -> None:
        labels = gpu.labels
        if reading.busy is not None:
            found["nvidia_gpu_busy_ratio"][labels] = reading.busy
        for owned, percent in gpu.shares.items():
            found["nvidia_gpu_utilization"][*labels, *owned] = percent
        for owned, size in gpu.memory.items():
            found["nvidia_gpu_memory_used_bytes"][*labels, *owned] = size
        for owned, percent in gpu.raw.items():
            found["nvidia_gpu_service_sm_utilization"][*labels, *owned] = percent
        if reading.power is not None:
            found["nvidia_gpu_power_draw"][labels] = reading.power
        if reading.processes is None:
            return
        processes = Multiset(owned for _, owned, _ in gpu.processes)
        for owned in {**gpu.last_seen, **processes}:
            found["nvidia_gpu_service_processes"][*labels, *owned] = processes[owned]
        for owned, places in gpu.owners.items():
            for place in places:
                found["nvidia_gpu_workload_info"][labels[1], *owned, *place] = 1.0
        kinds = Multiset(kind for process in reading.processes for kind in process.kinds)
        for kind in ("compute", "graphics", "mps"):
            found["nvidia_gpu_processes"][*labels, kind] = kinds[kind]
        if self._limits.processes:
            self._show_processes(gpu, found)

    def _show_processes(self, gpu: _Gpu, found: defaultdict[str, Series]) -> None:
        """Show the largest one by one, and the others as one, so that sums are true."""
        ordered = sorted(gpu.processes, key=lambda one: (one[0].memory or 0, one[0].sm or 0.0), reverse=True)
        for place, (process, owned, name) in enumerate(ordered):
            own = (str(process.pid), name, owned[0]) if place < self._limits.processes else (OTHER, "", OTHER)
            for family, value in (
                ("nvidia_gpu_process_memory_used_bytes", process.memory),
                ("nvidia_gpu_process_sm_utilization", process.sm),
            ):
                if value is not None:
                    series = found[family]
                    series[*gpu.labels, *own] = series.get((*gpu.labels, *own), 0.0) + value
