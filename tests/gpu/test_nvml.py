"""What the driver says becomes readings, in base units: nvidia-ml-py's real calls into the stub of the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from infermeter_exporters.gpu.catalogue import DEVICE, FAMILIES
from infermeter_exporters.gpu.readings import TIERS, Machine
from tests.gpu.nvml_reading import Nvml
from tests.gpu.nvml_stub import EVERY, GIB, a100_mig, build, consumer, h100x8_busy, t4

UUID = "GPU-00000000-0000-4000-8000-000000000000"
# Not from the library, or from what is counted between readings.
ELSEWHERE = {
    "nvidia_gpu_devices",
    "nvidia_gpu_pci_devices",
    "nvidia_gpu_cost_usd_total",
    "nvidia_gpu_workload_info",
    "nvidia_gpu_xid_last_timestamp_seconds",
    "nvidia_gpu_xid_errors_total",
    "nvidia_gpu_up",
    "nvidia_gpu_status",
}
# What the board makes of the parts of a reading that are no values.
PARTS = {
    "nvidia_gpu_busy_ratio",
    "nvidia_gpu_energy_joules_total",
    "nvidia_gpu_memory_used_bytes",
    "nvidia_gpu_power_draw",
    "nvidia_gpu_process_memory_used_bytes",
    "nvidia_gpu_process_sm_utilization",
    "nvidia_gpu_processes",
    "nvidia_gpu_service_energy_joules_total",
    "nvidia_gpu_service_processes",
    "nvidia_gpu_service_sm_seconds_total",
    "nvidia_gpu_service_sm_utilization",
    "nvidia_gpu_utilization",
}


@pytest.fixture
def h100(nvml_library: Path, tmp_path: Path) -> Nvml:
    """Eight H100."""
    return Nvml(h100x8_busy(tmp_path / "scenario"), nvml_library)


def test_the_machine(h100: Nvml) -> None:
    """How many GPUs there are, and the versions of the driver; names are uuids, which do not change."""
    with h100:
        versions = ("550.54.15", "12.550.54.15", "12.4")
        assert h100.open() == Machine("nvml", 8, [("nvidia_gpu_driver_info", versions, 1.0)])
        assert h100.ask("units") == [f"GPU-{gpu:08d}-0000-4000-8000-000000000000" for gpu in range(8)]


def test_the_fast_tier(h100: Nvml) -> None:
    """Memory without what the driver reserves, joules and watts."""
    with h100:
        h100.open()
        read = h100.read("fast")
    assert (read.uuid, read.number, read.pci, read.state, read.errors) == (UUID, 0, "0000:10:00.0", "ok", [])
    assert (read.busy, read.memory_used, read.power) == (0.6, 20 * GIB, 420.0)
    assert read.energy is not None
    assert 1000 <= read.energy < 1000 + 420 * 60
    assert read.processes is not None
    assert [process.pid for process in read.processes] == [10_000, 10_001]
    assert {name: value for name, _, value in read.values} == {
        "nvidia_gpu_memory_busy_ratio": 0.3,
        "nvidia_gpu_memory_reserved_bytes": GIB / 2,
        "nvidia_gpu_memory_total_bytes": 80 * GIB,
        "nvidia_gpu_memory_free_bytes": 59.5 * GIB,
        "nvidia_gpu_memory_usage_percent": 25.0,
        "nvidia_gpu_runtime_suspended": 0.0,
    }


def test_the_normal_tier(h100: Nvml) -> None:
    """Hertz, seconds, bytes, ratios."""
    with h100:
        h100.open()
        h100.read("normal")
        found = h100.values("normal")
    errors: dict[tuple[str, ...], float] = {
        ("nvlink_errors_total", str(link), name): float(counter)
        for link in range(18)
        for counter, name in enumerate(("replay", "recovery", "crc_flit", "crc_data", "ecc_data"))
    }
    sent: dict[tuple[str, ...], float] = {
        (f"nvlink_{way}_bytes_total", str(link)): 1024.0 * 1000 * (link + 1)
        for way in ("sent", "received")
        for link in range(18)
    }
    up: dict[tuple[str, ...], float] = {("nvlink_up", str(link)): float(link < 17) for link in range(18)}
    assert {key: value for key, value in found.items() if key[0].startswith("nvlink")} == up | sent | errors
    expected: dict[tuple[str, ...], float] = {
        ("temperature_celsius",): 55,
        ("temperature_margin_celsius",): 32,
        ("memory_temperature_celsius",): 61,
        ("clock_hertz", "graphics"): 1.5e9,
        ("clock_hertz", "sm"): 1.5e9,
        ("clock_hertz", "memory"): 2e9,
        ("clock_hertz", "video"): 1.4e9,
        ("throttle_active", "sw_power_cap"): 1,
        **{
            ("throttle_active", reason): 0
            for reason in (
                "applications_clocks_setting",
                "hw_slowdown",
                "sync_boost",
                "sw_thermal_slowdown",
                "hw_thermal_slowdown",
                "hw_power_brake_slowdown",
                "display_clock_setting",
            )
        },
        ("throttle_seconds_total", "sw_power_cap"): 2.5,
        ("throttle_seconds_total", "thermal"): 0.5,
        ("throttle_seconds_total", "sync_boost"): 0,
        ("throttle_seconds_total", "board_limit"): 0,
        ("throttle_seconds_total", "sw_thermal_slowdown"): 1.5,
        ("throttle_seconds_total", "hw_thermal_slowdown"): 0,
        ("throttle_seconds_total", "hw_power_brake_slowdown"): 0.25,
        ("performance_state",): 0,
        ("engine_busy_ratio", "encoder"): 0,
        ("engine_busy_ratio", "decoder"): 0.12,
        ("engine_busy_ratio", "jpeg"): 0.03,
        ("engine_busy_ratio", "ofa"): 0,
        ("busy_max_ratio",): 0.9,
        ("sm_active_ratio",): 0.55,
        ("sm_occupancy_ratio",): 0.4,
        ("tensor_active_ratio",): 0.2,
        ("dram_active_ratio",): 0.35,
        ("fp64_active_ratio",): 0,
        ("fp32_active_ratio",): 0.1,
        ("fp16_active_ratio",): 0.05,
        ("bar1_memory_used_bytes",): 2 * GIB,
        ("pcie_sent_bytes_total",): 5e9,
        ("pcie_received_bytes_total",): 9e9,
        ("pcie_link_generation",): 5,
        ("pcie_link_width",): 16,
        ("pcie_replays_total",): 3,
    }
    assert {key: value for key, value in found.items() if not key[0].startswith("nvlink")} == expected


def test_the_slow_tier(h100: Nvml) -> None:
    """What it is, its limits, and how well its memory is."""
    with h100:
        h100.open()
        found = h100.values("slow")
    assert found == {
        (
            "info",
            *("NVIDIA H100 80GB HBM3", "0000:10:00.0", "1650000000001", "0", "Tesla", "Hopper", "9.0"),
            *("96.00.61.00.01", "0", "none", "false"),
        ): 1,
        ("power_limit_watts", "enforced"): 700,
        ("power_limit_watts", "default"): 700,
        ("power_limit_watts", "min"): 200,
        ("power_limit_watts", "max"): 700,
        ("temperature_threshold_celsius", "shutdown"): 92,
        ("temperature_threshold_celsius", "slowdown"): 89,
        ("temperature_threshold_celsius", "gpu_max"): 87,
        ("clock_max_hertz", "graphics"): 1.98e9,
        ("clock_max_hertz", "sm"): 1.98e9,
        ("clock_max_hertz", "memory"): 2.619e9,
        ("clock_max_hertz", "video"): 1.545e9,
        ("pcie_link_generation_max",): 5,
        ("pcie_link_width_max",): 16,
        ("ecc_mode",): 1,
        ("ecc_errors_total", "corrected", "volatile"): 2,
        ("ecc_errors_total", "corrected", "aggregate"): 7,
        ("ecc_errors_total", "uncorrected", "volatile"): 0,
        ("ecc_errors_total", "uncorrected", "aggregate"): 1,
        ("remapped_rows", "corrected"): 1,
        ("remapped_rows", "uncorrected"): 2,
        ("remap_pending",): 1,
        ("remap_failure",): 0,
        ("retired_pages", "single_bit"): 0,
        ("retired_pages", "double_bit"): 2,
        ("retired_pages_pending",): 0,
        ("persistence_mode",): 1,
        ("recovery_action",): 0,
        ("fabric_state",): 3,
    }


def test_every_family_has_a_source(nvml_library: Path, tmp_path: Path) -> None:
    """Each that is of a device is read on one of these machines, with its labels, and nothing else."""
    seen: set[str] = set()
    for machine in (h100x8_busy, a100_mig, consumer):
        scenario = machine(tmp_path / "scenario")
        scenario.gpu(EVERY, "fan_rpm", "1200")
        scenario.gpu(EVERY, "gpm", 1)
        scenario.gpu(EVERY, "gpm_part", "1 2 30.0", "7 2 60.0")
        with Nvml(scenario, nvml_library) as source:
            for name, _, _ in source.open().values:
                seen.add(name)
            for tier in (*TIERS, *TIERS):
                for name, labels, _ in source.read(tier).values:
                    seen.add(name)
                    assert len(DEVICE + labels) == len(FAMILIES[name].labels)
    ours = {name for name in FAMILIES if not name.startswith("nvidia_gpu_exporter_")}
    assert seen == ours - ELSEWHERE - PARTS - {"gpu_seconds_total"}


def test_instances_of_a_divided_gpu(nvml_library: Path, tmp_path: Path) -> None:
    """Each has memory and, where the GPU counts it, a ratio of its own; the whole GPU has no busy ratio."""
    scenario = a100_mig(tmp_path / "scenario")
    scenario.gpu(0, "utilization", 0)  # which some drivers say instead of nothing
    scenario.gpu(0, "memory_utilization", 0)
    scenario.gpu(0, "gpm", 1)
    scenario.gpu(0, "gpm_part", "1 2 30.0", "7 2 60.0")
    first, second = (f"MIG-{at:08d}-0000-4000-8000-000000000000" for at in range(2))
    with Nvml(scenario, nvml_library) as source:
        source.open()
        slow = source.values("slow")
        source.values("normal")
        normal = source.values("normal")
        fast = source.read("fast")
    assert {key: value for key, value in slow.items() if key[0].startswith("mig")} == {
        ("mig_mode",): 1,
        ("mig_info", first, "1", "0", "3g.20gb"): 1,
        ("mig_info", second, "7", "0", "1g.5gb"): 1,
    }
    assert {key: value for key, value in normal.items() if key[0].startswith("mig")} == {
        ("mig_memory_used_bytes", first, "1"): GIB,
        ("mig_memory_total_bytes", first, "1"): 20 * GIB,
        ("mig_memory_used_bytes", second, "7"): GIB,
        ("mig_memory_total_bytes", second, "7"): 5 * GIB,
        ("mig_sm_active_ratio", first, "1"): 0.3,
        ("mig_sm_active_ratio", second, "7"): 0.6,
    }
    assert ("sm_active_ratio",) not in normal
    assert (fast.busy, [name for name, _, _ in fast.values if "busy" in name]) == (None, [])
    assert fast.processes is not None
    assert [(process.pid, process.memory, process.sm) for process in fast.processes] == [
        (5000, GIB, None),
        (5001, None, None),
    ]


def test_what_is_not_supported_is_absent_and_not_asked_again_until_the_next_slow_reading(
    nvml_library: Path, tmp_path: Path
) -> None:
    """A new driver or another mode may support it."""
    with Nvml(consumer(tmp_path / "scenario"), nvml_library) as source:
        source.open()
        source.read("normal")
        first = source.ask("calls", 0)
        assert ("pcie_replays_total",) not in source.values("normal")
        again = source.ask("calls", 0) - first
        assert again < first / 2
        source.scenario.gpu(0, "pcie_replays", 4)
        source.scenario.save()
        assert ("pcie_replays_total",) not in source.values("normal")
        source.read("slow")
        assert source.values("normal")["pcie_replays_total",] == 4


def test_an_old_driver(nvml_library: Path, tmp_path: Path) -> None:
    """It lacks newer symbols: older ones are used, and their values are right."""
    missing = (
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetNumFans",
        "nvmlGpmQueryDeviceSupport",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetGpuFabricInfoV",
        "nvmlDeviceGetMarginTemperature",
    )
    library = build(nvml_library.parent, without=missing)
    scenario = t4(tmp_path / "scenario")
    scenario.gpu(0, "fan_speed", 35)
    scenario.gpu(0, "event_reasons", 0x4)
    with Nvml(scenario, library) as source:
        source.open()
        fast, normal = source.read("fast"), source.values("normal")
        source.values("slow")
    assert fast.memory_used == 15 * GIB // 4 + GIB // 2  # it counts what is reserved as used
    assert fast.processes is not None
    assert [(process.pid, process.memory) for process in fast.processes] == [(4000, 2 * GIB)]
    assert normal["fan_speed_ratio", "0"] == 0.35
    assert normal["throttle_active", "sw_power_cap"] == 1
    assert fast.errors == []


def test_samples_of_the_ratios_are_freed(h100: Nvml) -> None:
    """Two thousand readings hold no more memory than a thousand."""

    def resident() -> int:
        return int(Path(f"/proc/{h100.pid}/statm").read_text().split()[1])

    with h100:
        h100.open()
        for _ in range(1000):
            h100.read("normal")
        before = resident()
        for _ in range(1000):
            h100.read("normal")
        assert resident() - before < 16  # pages of 4 KiB; a sample that leaks at each reading would be more
