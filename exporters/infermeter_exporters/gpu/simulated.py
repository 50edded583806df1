"""GPUs that do not exist, for demos and dashboards. Everything they say follows from the specification and the time.

So a worker that is started again goes on where the one before ended. Their processes exist as little as they do; whose
they are is said here as well.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from infermeter_exporters.gpu.readings import Machine, Process, Reading, Tier, Value, Xid
from infermeter_exporters.gpu.simulated_load import BEGIN, Load, Model, Pulse, Spec, parse, worked

SERVICES = (
    "face-detection",
    "object-detection",
    "llm-chat",
    "speech-to-text",
    "face-recognition",
    "image-embedding",
    "object-tracking",
    "document-ocr",
)
_ON_EACH = 3
_MEBIBYTE = 1 << 20
# What all services of a GPU take together at most, of its time and of its memory.
_MOST_TIME, _MOST_MEMORY = 0.97, 0.85
# Kernel ids end at 2 ** 22: these can be no process of this host.
_FIRST_PID = 5_000_000
_AMBIENT, _RISE = 27.0, 48.0
# A GPU is lost from the second to the third minute of each five.
_LOST_FROM, _LOST_UNTIL, _LOST_ROUND = 60.0, 120.0, 300.0
_XID_EVERY = 1500.0
# Now and then the last GPU becomes too hot, where the pulse is above this.
_HOT = Pulse(1200.0, 0.15, 0.2)
_TOO_HOT = 0.9
_THROTTLES = (
    "sw_power_cap",
    "hw_slowdown",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "sync_boost",
)
_SLICES = (3, 2, 2)  # of the seven parts of a GPU that is divided


class Owner(NamedTuple):
    """Whose a process is; see `board.Owner`."""

    service: str
    container_name: str
    namespace: str = ""
    pod: str = ""
    process_name: str = "python3"


class _Service:
    """A service on one GPU.

    Attributes:
        owner: what it is called.
        pid: of its process.
        load: how much it uses.
        memory: what it holds, in bytes.
    """

    __slots__ = ("load", "memory", "owner", "pid")

    def __init__(self, owner: Owner, pid: int, load: Load, memory: int) -> None:
        self.owner = owner
        self.pid = pid
        self.load = load
        self.memory = memory


class Gpu:
    """One of them.

    Args:
        spec: what is simulated.
        number: which of its GPUs this is.
        clock: gives the time in seconds since 1970.

    Attributes:
        name: its uuid.
    """

    def __init__(self, spec: Spec, number: int, clock: Callable[[], float]) -> None:
        self._spec = spec
        self._clock = clock
        self._opened = clock()
        self.number = number
        self.model: Model = spec.models[number]
        chance = random.Random(f"infermeter {spec.seed} {number}")  # noqa: S311  (no secret)
        text = f"{chance.getrandbits(128):032x}"
        self.name = f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
        self.pci = f"0000:{0x11 + number:02x}:00.0"
        self._serial = str(1_320_000_000_000 + chance.randrange(10**9))
        self._phase = chance.random()
        self._xid_phase = chance.random()
        self.services = list(self._made_services(chance))

    def _made_services(self, chance: random.Random) -> Iterator[_Service]:
        count = _ON_EACH if self._spec.shared or self._spec.mig else 1
        weights = [chance.uniform(0.6, 1.4) for _ in range(count)]
        sizes = [chance.uniform(0.7, 1.3) for _ in range(count)]
        # An instance has as much memory as its part of the GPU, and no more.
        shares = [part / 7 for part in _SLICES] if self._spec.mig else [size / sum(sizes) for size in sizes]
        for place in range(count):
            first = self.number * count + place
            service = SERVICES[first % len(SERVICES)]
            owner = Owner(service, f"{service}-{first // len(SERVICES) + 1}")
            memory = int(self.model.mebibytes * shares[place] * _MOST_MEMORY * chance.uniform(0.75, 1.0))
            load = Load(chance, weights[place] / sum(weights) * _MOST_TIME)
            yield _Service(owner, _FIRST_PID + 100 * self.number + place, load, memory * _MEBIBYTE)

    # --- what it does -----------------------------------------------------------------------------------------------

    def busy(self, now: float) -> list[float]:
        """What each service uses of its time, 0 to 1; together at most 1."""
        seconds, works = worked(now, self._phase)
        return [service.load.at(seconds) if works else 0.0 for service in self.services]

    def energy(self, now: float) -> float:
        """Joules that it used since the beginning of 2026: the integral of `power`."""
        seconds, _ = worked(now, self._phase)
        used = sum(service.load.integral(seconds) - service.load.integral(0.0) for service in self.services)
        return self.model.idle_watts * (now - BEGIN) + self._span() * used

    def power(self, now: float) -> float:
        """Watts that it draws."""
        return self.model.idle_watts + self._span() * sum(self.busy(now))

    def temperature(self, now: float) -> float:
        """Degrees Celsius: it follows the power of the last minutes."""
        recent = sum(
            part * (self.energy(now) - self.energy(now - long)) / long for part, long in ((0.6, 30), (0.4, 180))
        )
        usual = _AMBIENT + _RISE * recent / self.model.watts
        hot = self._heat(now)
        return usual * (1 - hot) + (self.model.slowdown + 8) * hot

    def lost(self, now: float) -> bool:
        """Whether it does not answer."""
        passed = now - self._opened
        return self.number == self._spec.lost and _LOST_FROM <= passed % _LOST_ROUND < _LOST_UNTIL

    def xids(self, since: float, until: float) -> list[tuple[float, int]]:
        """Errors that it reported after one time until another, with their times: faults of applications."""
        first = math.floor((since - BEGIN) / _XID_EVERY - self._xid_phase) + 1
        last = math.floor((until - BEGIN) / _XID_EVERY - self._xid_phase)
        return [
            (BEGIN + (count + self._xid_phase) * _XID_EVERY, 31 if count % 3 else 13)
            for count in range(first, last + 1)
        ]

    def _span(self) -> float:
        """Watts between idle and as busy as can be."""
        return self.model.watts - self.model.idle_watts

    def _heat(self, now: float) -> float:
        return _HOT.at(now - BEGIN) if self.number == len(self._spec.models) - 1 else 0.0

    def _throttled(self, now: float) -> float:
        """Seconds for which it was too hot since `BEGIN`: where the pulse is above `_TOO_HOT`, once in each period."""
        if self.number != len(self._spec.models) - 1:
            return 0.0
        begin = math.acos(1 - 2 * _TOO_HOT) / (2 * math.pi) * _HOT.width
        long = _HOT.width - 2 * begin

        def until(moment: float) -> float:
            whole, place = divmod(moment / _HOT.period + _HOT.phase, 1.0)
            return _HOT.period * (whole * long + min(max(place - begin, 0.0), long))

        return until(now - BEGIN) - until(0.0)

    # --- what it says -----------------------------------------------------------------------------------------------

    def read(self, tier: Tier) -> Sequence[Reading]:
        """What it says now."""
        now, began = self._clock(), time.monotonic()
        if self.lost(now):
            return [Reading(self.name, self.number, self.pci, tier, began, "lost")]
        reading = Reading(self.name, self.number, self.pci, tier, began)
        if tier == "slow":
            reading = reading._replace(values=list(self._slow()))
        elif tier == "normal":
            reading = reading._replace(values=list(self._normal(now)))
        else:
            reading = self._fast(reading, now)
        return [reading._replace(seconds=time.monotonic() - began)]

    def _fast(self, reading: Reading, now: float) -> Reading:
        busy = self.busy(now)
        mig = self._spec.mig
        processes = [
            # Whole percents, as drivers say it; rounded down so that they are no more than the GPU's.
            Process(one.pid, ("compute",), one.memory, None if mig else float(math.floor(100 * part)))
            for one, part in zip(self.services, busy, strict=True)
        ]
        total, reserved, used = self._memory()
        return reading._replace(
            values=[
                ("nvidia_gpu_memory_total_bytes", (), float(total)),
                ("nvidia_gpu_memory_free_bytes", (), float(total - reserved - used)),
                ("nvidia_gpu_memory_reserved_bytes", (), float(reserved)),
                ("nvidia_gpu_memory_usage_percent", (), 100 * used / total),
            ],
            busy=None if mig else math.ceil(100 * sum(busy)) / 100,
            memory_used=used,
            energy=self.energy(now),
            power=self.power(now),
            processes=processes,
        )

    def _memory(self) -> tuple[int, int, int]:
        """All of it, what the driver reserves, and what is used, in bytes."""
        total = self.model.mebibytes * _MEBIBYTE
        contexts = 300 * _MEBIBYTE * len(self.services)
        return total, total // 128, sum(service.memory for service in self.services) + contexts

    def _normal(self, now: float) -> Iterator[Value]:
        model, busy = self.model, sum(self.busy(now))
        degrees, hot = self.temperature(now), self._heat(now) > _TOO_HOT
        yield "nvidia_gpu_temperature_celsius", (), float(round(degrees))
        if model.data_centre:
            yield "nvidia_gpu_memory_temperature_celsius", (), float(round(degrees + 6))
        else:
            speed = min(1.0, max(0.0, (degrees - 40) / 40))
            yield "nvidia_gpu_fan_speed_ratio", ("0",), round(speed, 2)
        graphics = model.megahertz * (0.7 if hot else 0.97 if busy else 0.2)
        for clock, megahertz in (("graphics", graphics), ("sm", graphics), ("memory", model.memory_megahertz)):
            yield "nvidia_gpu_clock_hertz", (clock,), 1e6 * round(megahertz / 15) * 15
        for reason in _THROTTLES:
            thermal = reason == "sw_thermal_slowdown"
            yield "nvidia_gpu_throttle_active", (reason,), float(thermal and hot)
            yield "nvidia_gpu_throttle_seconds_total", (reason,), self._throttled(now) if thermal else 0.0
        yield "nvidia_gpu_performance_state", (), 0.0 if busy else 8.0
        yield "nvidia_gpu_pcie_link_generation", (), 4.0
        yield "nvidia_gpu_pcie_link_width", (), 16.0
        yield "nvidia_gpu_pcie_replays_total", (), 0.0
        if self._spec.mig:
            yield from self._instances(now)
            return
        yield "nvidia_gpu_memory_busy_ratio", (), math.floor(60 * busy) / 100
        for engine in ("encoder", "decoder"):
            yield "nvidia_gpu_engine_busy_ratio", (engine,), 0.0
        if float(model.capability) >= 9:  # noqa: PLR2004  (Hopper, the first that can say)
            yield "nvidia_gpu_sm_active_ratio", (), 0.86 * busy
            yield "nvidia_gpu_sm_occupancy_ratio", (), 0.31 * busy
            yield "nvidia_gpu_tensor_active_ratio", (), 0.42 * busy
            yield "nvidia_gpu_dram_active_ratio", (), 0.55 * busy

    def _instances(self, now: float) -> Iterator[Value]:
        for instance, (part, service, busy) in enumerate(
            zip(_SLICES, self.services, self.busy(now), strict=True), start=1
        ):
            place = self._mig_uuid(instance), str(instance)
            total = self.model.mebibytes * _MEBIBYTE * part // 7
            yield "nvidia_gpu_mig_memory_total_bytes", place, float(total)
            yield "nvidia_gpu_mig_memory_used_bytes", place, float(service.memory)
            if float(self.model.capability) >= 9:  # noqa: PLR2004  (Hopper, the first that can say)
                yield "nvidia_gpu_mig_sm_active_ratio", place, min(1.0, busy)

    def _mig_uuid(self, instance: int) -> str:
        return f"MIG-{instance:08x}{self.name[12:]}"

    def _slow(self) -> Iterator[Value]:
        model = self.model
        info = (
            model.name,
            self.pci,
            self._serial if model.data_centre else "",
            str(self.number),
            model.brand,
            model.architecture,
            model.capability,
            "",
            str(2 * self.number // len(self._spec.models)),
            "none",
            "true",
        )
        yield "nvidia_gpu_info", info, 1.0
        for kind, watts in (("enforced", model.watts), ("default", model.watts), ("max", model.watts)):
            yield "nvidia_gpu_power_limit_watts", (kind,), float(watts)
        for kind, degrees in (("slowdown", model.slowdown), ("shutdown", model.slowdown + 5)):
            yield "nvidia_gpu_temperature_threshold_celsius", (kind,), float(degrees)
        for clock, megahertz in (
            ("graphics", model.megahertz),
            ("sm", model.megahertz),
            ("memory", model.memory_megahertz),
        ):
            yield "nvidia_gpu_clock_max_hertz", (clock,), 1e6 * megahertz
        yield "nvidia_gpu_pcie_link_generation_max", (), 4.0
        yield "nvidia_gpu_pcie_link_width_max", (), 16.0
        yield "nvidia_gpu_persistence_mode", (), 1.0
        if model.data_centre:
            yield "nvidia_gpu_ecc_mode", (), 1.0
            for severity in ("corrected", "uncorrected"):
                for counter in ("volatile", "aggregate"):
                    yield "nvidia_gpu_ecc_errors_total", (severity, counter), 0.0
        if model.mig:
            yield "nvidia_gpu_mig_mode", (), float(self._spec.mig)
        if self._spec.mig:
            for instance, part in enumerate(_SLICES, start=1):
                profile = f"{part}g.{self.model.mebibytes * part // 7 // 1000}gb"
                yield "nvidia_gpu_mig_info", (self._mig_uuid(instance), str(instance), "0", profile), 1.0


class Simulated:
    """All of them; besides, what knows whose their processes are (`board.Owners`).

    Args:
        spec: what `simulated_load.parse` understands, for example "h100x8,shared".
        clock: gives the time in seconds since 1970.

    Raises:
        ValueError: the specification cannot be; one sentence with the part that is wrong and what is known.
    """

    name = "simulated"

    def __init__(self, spec: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        found = parse(spec)
        self.gpus = [Gpu(found, number, clock) for number in range(len(found.models))]
        self._owners = {service.pid: service.owner for gpu in self.gpus for service in gpu.services}
        self._heard = clock()
        self._errors: list[Xid] = []
        # Nobody sets it: waiting for it can be ended by the end of the process alone.
        self._pause = threading.Event()

    def open(self) -> Machine:
        """How many there are; a bus that they are not on has as many."""
        count = len(self.gpus)
        driver = ("simulated", "", "")
        return Machine(
            self.name,
            count,
            [("nvidia_gpu_pci_devices", (), float(count)), ("nvidia_gpu_driver_info", driver, 1.0)],
        )

    def units(self) -> Sequence[Gpu]:
        """One for each."""
        return self.gpus

    def wait_for_xid(self, seconds: float) -> Xid | None:
        """Wait for an error that one of them reports."""
        if not self._errors:
            self._pause.wait(seconds)
            now = self._clock()
            self._errors = [
                Xid(gpu.name, gpu.pci, code, moment, "nvml")
                for gpu in self.gpus
                for moment, code in gpu.xids(self._heard, now)
                if not gpu.lost(moment)
            ]
            self._heard = now
        return self._errors.pop(0) if self._errors else None

    def owners(self) -> dict[int, tuple[str, str]]:
        """Service and container of each process."""
        return {pid: (owner.service, owner.container_name) for pid, owner in self._owners.items()}

    def owner(self, pid: int) -> Owner | None:
        """Whose process it is."""
        return self._owners.get(pid)

    def why(self, _: int) -> str:
        """Why it is not known whose process it is."""
        return "gone"
