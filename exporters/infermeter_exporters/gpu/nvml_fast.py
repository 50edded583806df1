"""What the driver is asked each second about a GPU: how busy it is, what it holds and draws, and who is on it."""

from collections.abc import Iterator
from typing import Any

import pynvml

from infermeter_exporters.gpu.nvml_calls import Calls
from infermeter_exporters.gpu.nvml_mig import Mig
from infermeter_exporters.gpu.readings import Process, Reading, Value

_LISTS = (
    ("compute", "ComputeRunningProcesses"),
    ("graphics", "GraphicsRunningProcesses"),
    ("mps", "MPSComputeRunningProcesses"),
)
# What stands for "not told" in a field of 64 bits.
_NOT_TOLD = 2**64 - 1
_MOST = 100
# The kernel numbers processes up to here.
_LAST_PID = 1 << 22


class Fast:
    """Reads the fast tier of one GPU.

    Args:
        calls: to the driver.
        mig: its instances.
    """

    def __init__(self, calls: Calls, mig: Mig) -> None:
        self._calls = calls
        self._mig = mig
        # The time of the newest sample of a process, in the driver's microseconds; None before the first reading.
        self._seen: int | None = None

    def read(self, reading: Reading) -> Reading:
        """The reading with what the driver says now."""
        ask = self._calls.ask
        values: list[Value] = []
        busy = None
        # The driver counts no time for a GPU that is divided; some say 0 instead of that.
        if not self._mig.on():
            rates = ask("UtilizationRates")
            if rates is not None and rates.gpu <= _MOST:
                busy = rates.gpu / 100
            if rates is not None and rates.memory <= _MOST:
                values.append(("nvidia_gpu_memory_busy_ratio", (), rates.memory / 100))
        used = self._memory(values)
        milliwatts = ask("PowerUsage")
        millijoules = ask("TotalEnergyConsumption")
        return reading._replace(
            values=values,
            busy=busy,
            memory_used=used,
            energy=None if millijoules is None else millijoules / 1e3,
            power=None if milliwatts is None else milliwatts / 1e3,
            processes=self._processes(),
        )

    def _memory(self, values: list[Value]) -> int | None:
        # The second is for drivers before 510, which count as used what they keep for themselves.
        found = self._calls.ask_either(("MemoryInfo", pynvml.nvmlMemory_v2), ("MemoryInfo",))
        if found is None or not found.total:
            return None
        if hasattr(found, "reserved"):
            values.append(("nvidia_gpu_memory_reserved_bytes", (), float(found.reserved)))
        values.append(("nvidia_gpu_memory_total_bytes", (), float(found.total)))
        values.append(("nvidia_gpu_memory_free_bytes", (), float(found.free)))
        values.append(("nvidia_gpu_memory_usage_percent", (), 100 * found.used / found.total))
        return int(found.used)

    def _processes(self) -> list[Process] | None:
        kinds: dict[int, list[str]] = {}
        memory: dict[int, int | None] = {}
        known = False
        for kind, call in _LISTS:
            running = self._running(call)
            if running is None:
                continue
            known = True
            held: dict[int, int | None] = {}
            for pid, size in running:
                # A process may be in several instances of a GPU that is divided.
                before = held.get(pid)
                held[pid] = size if before is None else before if size is None else before + size
            for pid, size in held.items():
                kinds.setdefault(pid, []).append(kind)
                # One that computes and draws is in both lists with the same memory.
                before = memory.get(pid)
                memory[pid] = size if before is None else before if size is None else max(before, size)
        # Asked even if nothing runs: so the next samples are those since now.
        samples = {} if self._mig.on() else self._samples()
        if not known:
            return None
        return [Process(pid, tuple(kinds[pid]), memory[pid], samples.get(pid)) for pid in sorted(kinds)]

    def _running(self, call: str) -> list[tuple[int, int | None]] | None:
        """Processes and what they hold; None if it cannot be told."""
        whole = self._list(call, None, "")
        if whole is not None or not self._mig.on():
            return whole
        parts = [self._list(call, one.handle, one.uuid) for one in self._mig.instances()]
        told = [part for part in parts if part is not None]
        return [process for part in told for process in part] if told else None

    def _list(self, call: str, of: Any, about: str) -> list[tuple[int, int | None]] | None:
        found = self._calls.ask_either((call + "_v3",), (call + "_v2",), of=of, about=about)
        return None if found is None else list(_told(found))

    def _samples(self) -> dict[int, float]:
        """The newest sample of each process since the last reading, in percent."""
        before = self._seen
        found = self._calls.ask("ProcessUtilization", before or 0) or ()
        newest: dict[int, tuple[int, float]] = {}
        latest = before or 0
        for one in found:
            stamp = int(one.timeStamp)
            latest = max(latest, stamp)
            # Of the first reading it is not known how old they are.
            if before is None or stamp <= before or one.smUtil > _MOST:
                continue
            if one.pid not in newest or stamp >= newest[one.pid][0]:
                newest[one.pid] = (stamp, float(one.smUtil))
        self._seen = latest
        return {pid: percent for pid, (_, percent) in newest.items()}


def _told(found: Any) -> Iterator[tuple[int, int | None]]:
    for one in found:
        size = one.usedGpuMemory
        # Others are no processes: releases of the driver give lists that are shifted against what they should be.
        if 0 < one.pid <= _LAST_PID:
            yield int(one.pid), None if size is None or size == _NOT_TOLD else int(size)
