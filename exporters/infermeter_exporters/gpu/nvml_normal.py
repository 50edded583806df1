"""What the driver is asked every few seconds about a GPU: heat, clocks, engines, buses, and what its parts did."""

from collections.abc import Iterator

import pynvml

from infermeter_exporters.gpu.nvml_calls import Calls, number
from infermeter_exporters.gpu.nvml_gpm import Gpm
from infermeter_exporters.gpu.nvml_mig import Mig
from infermeter_exporters.gpu.readings import Value

CLOCKS = {
    "graphics": pynvml.NVML_CLOCK_GRAPHICS,
    "sm": pynvml.NVML_CLOCK_SM,
    "memory": pynvml.NVML_CLOCK_MEM,
    "video": pynvml.NVML_CLOCK_VIDEO,
}
# Being idle is left out: it holds nothing down that anybody wants.
_THROTTLES = {
    "applications_clocks_setting": pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting,
    "sw_power_cap": pynvml.nvmlClocksThrottleReasonSwPowerCap,
    "hw_slowdown": pynvml.nvmlClocksThrottleReasonHwSlowdown,
    "sync_boost": pynvml.nvmlClocksThrottleReasonSyncBoost,
    "sw_thermal_slowdown": pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
    "hw_thermal_slowdown": pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
    "hw_power_brake_slowdown": pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    "display_clock_setting": pynvml.nvmlClocksThrottleReasonDisplayClockSetting,
}
# In nanoseconds. The driver's own name of the first is that of the reason (its field 74 has both names).
_VIOLATIONS = {
    "sw_power_cap": pynvml.NVML_PERF_POLICY_POWER,
    "thermal": pynvml.NVML_PERF_POLICY_THERMAL,
    "sync_boost": pynvml.NVML_PERF_POLICY_SYNC_BOOST,
    "board_limit": pynvml.NVML_PERF_POLICY_BOARD_LIMIT,
    "low_utilization": pynvml.NVML_PERF_POLICY_LOW_UTILIZATION,
    "reliability": pynvml.NVML_PERF_POLICY_RELIABILITY,
}
# Fields: id, family, values of its labels, what one of the driver's is in base units.
_FIELDS: dict[int, tuple[str, tuple[str, ...], float]] = {
    82: ("nvidia_gpu_memory_temperature_celsius", (), 1),
    197: ("nvidia_gpu_pcie_sent_bytes_total", (), 1),
    198: ("nvidia_gpu_pcie_received_bytes_total", (), 1),
    269: ("nvidia_gpu_throttle_seconds_total", ("sw_thermal_slowdown",), 1e-9),
    270: ("nvidia_gpu_throttle_seconds_total", ("hw_thermal_slowdown",), 1e-9),
    271: ("nvidia_gpu_throttle_seconds_total", ("hw_power_brake_slowdown",), 1e-9),
}
# By link, in KiB.
_LINK_FIELDS = {138: "nvidia_gpu_nvlink_sent_bytes_total", 139: "nvidia_gpu_nvlink_received_bytes_total"}
_KIBIBYTE = 1024
_LINK_ERRORS = {
    "replay": pynvml.NVML_NVLINK_ERROR_DL_REPLAY,
    "recovery": pynvml.NVML_NVLINK_ERROR_DL_RECOVERY,
    "crc_flit": pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT,
    "crc_data": pynvml.NVML_NVLINK_ERROR_DL_CRC_DATA,
    "ecc_data": pynvml.NVML_NVLINK_ERROR_DL_ECC_DATA,
}
_ENGINES = {
    "encoder": "EncoderUtilization",
    "decoder": "DecoderUtilization",
    "jpeg": "JpgUtilization",
    "ofa": "OfaUtilization",
}
_HIGHEST_STATE = 15
_MOST = 100


class Normal:
    """Reads the normal tier of one GPU.

    Args:
        calls: to the driver.
        mig: its instances.
    """

    def __init__(self, calls: Calls, mig: Mig) -> None:
        self._calls = calls
        self._mig = mig
        self._gpm = Gpm(calls, mig)
        # The time of the newest sample of the busy ratio, in the driver's microseconds; None before the first reading.
        self._seen: int | None = None

    def read(self) -> Iterator[Value]:
        """What the driver says now."""
        yield from self._heat()
        yield from self._clocks()
        yield from self._fans()
        if not self._mig.on():
            yield from self._engines()
        yield from self._buses()
        yield from self._mig.memory()
        yield from self._gpm.read()

    def _heat(self) -> Iterator[Value]:
        ask = self._calls.ask
        # The driver's library is to lose the first one.
        sensor = pynvml.NVML_TEMPERATURE_GPU
        degrees = self._calls.ask_either(("Temperature", sensor), ("TemperatureV", sensor))
        if degrees is not None:
            yield "nvidia_gpu_temperature_celsius", (), float(degrees)
        margin = ask("MarginTemperature")
        if margin is not None:
            yield "nvidia_gpu_temperature_margin_celsius", (), float(margin)

    def _clocks(self) -> Iterator[Value]:
        ask = self._calls.ask
        for clock, kind in CLOCKS.items():
            megahertz = ask("ClockInfo", kind)
            if megahertz is not None:
                yield "nvidia_gpu_clock_hertz", (clock,), 1e6 * megahertz
        # The second is for drivers before 535.
        bits = self._calls.ask_either(("CurrentClocksEventReasons",), ("CurrentClocksThrottleReasons",))
        if bits is not None:
            for reason, bit in _THROTTLES.items():
                yield "nvidia_gpu_throttle_active", (reason,), float(bool(bits & bit))
        for reason, policy in _VIOLATIONS.items():
            found = ask("ViolationStatus", policy)
            if found is not None:
                yield "nvidia_gpu_throttle_seconds_total", (reason,), found.violationTime / 1e9
        state = ask("PerformanceState")
        if state is not None and state <= _HIGHEST_STATE:  # 32 is "unknown"
            yield "nvidia_gpu_performance_state", (), float(state)

    def _fans(self) -> Iterator[Value]:
        ask = self._calls.ask
        fans = ask("NumFans")
        for fan in range(fans or 0):
            percent = ask("FanSpeed_v2", fan)
            if percent is not None:
                yield "nvidia_gpu_fan_speed_ratio", (str(fan),), percent / 100
        if fans is None:  # before driver 460
            percent = ask("FanSpeed")
            if percent is not None:
                yield "nvidia_gpu_fan_speed_ratio", ("0",), percent / 100
        turns = ask("FanSpeedRPM") if fans != 0 else None
        if turns is not None:
            yield "nvidia_gpu_fan_speed_rpm", ("0",), float(turns)

    def _engines(self) -> Iterator[Value]:
        for engine, call in _ENGINES.items():
            found = self._calls.ask(call)
            if found is not None and found[0] <= _MOST:
                yield "nvidia_gpu_engine_busy_ratio", (engine,), found[0] / 100
        before = self._seen
        found = self._calls.ask("Samples", pynvml.NVML_GPU_UTILIZATION_SAMPLES, before or 0)
        kind, samples = found if found is not None else (0, ())
        percents = []
        for one in samples:
            stamp = int(one.timeStamp)
            percent = number(one.sampleValue, kind)
            # What the first reading finds is of a time that nobody asked about.
            if before is not None and stamp > before and percent is not None and 0 <= percent <= _MOST:
                percents.append(percent)
            self._seen = max(self._seen or 0, stamp)
        self._seen = self._seen or 0
        if percents:
            yield "nvidia_gpu_busy_max_ratio", (), max(percents) / 100

    def _buses(self) -> Iterator[Value]:
        ask = self._calls.ask
        bar1 = ask("BAR1MemoryInfo")
        if bar1 is not None:
            yield "nvidia_gpu_bar1_memory_used_bytes", (), float(bar1.bar1Used)
        for name, call in (
            ("nvidia_gpu_pcie_link_generation", "CurrPcieLinkGeneration"),
            ("nvidia_gpu_pcie_link_width", "CurrPcieLinkWidth"),
            ("nvidia_gpu_pcie_replays_total", "PcieReplayCounter"),
        ):
            found = ask(call)
            if found is not None:
                yield name, (), float(found)
        links = []
        for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
            up = ask("NvLinkState", link)
            if up is None:  # links are numbered without gaps
                break
            links.append(link)
            yield "nvidia_gpu_nvlink_up", (str(link),), float(bool(up))
            for error, counter in _LINK_ERRORS.items():
                count = ask("NvLinkErrorCounter", link, counter)
                if count is not None:
                    yield "nvidia_gpu_nvlink_errors_total", (str(link), error), float(count)
        wanted = [(field, 0) for field in _FIELDS] + [(field, link) for field in _LINK_FIELDS for link in links]
        for (field, scope), value in self._calls.fields(wanted).items():
            if field in _FIELDS:
                name, labels, unit = _FIELDS[field]
                yield name, labels, value * unit
            else:
                yield _LINK_FIELDS[field], (str(scope),), value * _KIBIBYTE
