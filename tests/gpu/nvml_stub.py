"""The stub of the NVIDIA driver's library, built and driven: `libnvidia-ml.so.1` that says what a scenario says.

    library = build(folder)                     # a folder with libnvidia-ml.so.1; build(folder, without=("nvml...",))
    scenario = h100x8_busy(folder / "scenario")  # or Scenario(path), and scenario.gpu(0, "power", 300_000)
    scenario.save()                             # replaced at once; running processes see it at their next call
    subprocess.run(..., env=scenario.environment(library))

In this process: set INFERMETER_NVML_SCENARIO, then `ctypes.CDLL(library / "libnvidia-ml.so.1")` before pynvml.
Values are in the library's units: bytes, milliwatts, millijoules, MHz, percent. What is not set is not supported.
A number may be written "BASE+RATE", which grows by RATE in a second since the scenario was made.
"""

from __future__ import annotations

import os
import subprocess
import time
from hashlib import sha256
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "stubs" / "nvml"
LIBRARY = "libnvidia-ml.so.1"
GIB = 1 << 30
EVERY = "*"


def build(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """The folder with the library, that lacks some symbols as an old driver does; built once."""
    home = folder / (sha256(" ".join(sorted(without)).encode()).hexdigest()[:16] if without else "whole")
    if (home / LIBRARY).exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    script = home / "symbols"
    script.write_text("{ local: " + "".join(f"{name}; " for name in (*without, "_none_")) + "};\n")
    command = ["cc", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    command += [f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={script}", "-o", str(home / "new")]
    subprocess.run([*command, *map(str, sorted(SOURCES.glob("*.c"))), "-lpthread"], check=True)
    (home / "new").replace(home / LIBRARY)
    return home


class Scenario:
    """What the stub says, as lines of a file; nothing changes for those who read it before `save`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = time.time()
        self.facts: dict[tuple[str, str], list[str]] = {}
        self.rules: dict[tuple[str, str, str], str] = {}
        self.xids: list[str] = []

    def machine(self, key: str, value: object) -> None:
        """A fact of no GPU: gpus, driver_version, nvml_version, cuda_version."""
        self.facts["", key] = [str(value)]

    def gpu(self, gpu: int | str, key: str, *values: object) -> None:
        """A fact of one GPU, or of all ("*"): one value, or the rows of a list; without any it is not supported."""
        self.facts[f"gpu {gpu} ", key] = [str(value) for value in values]

    def tell(self, function: str, gpu: int | str, code: int) -> None:
        """A function returns a code for a GPU; "*" stands for all of either."""
        self.rules["return", function, str(gpu)] = str(code)

    def hang(self, function: str, gpu: int | str, seconds: float | None = None, *, deaf: bool = False) -> None:
        """A function does not return until `forget`, or for so many seconds; deaf: the process ignores SIGTERM."""
        self.rules["hang", function, str(gpu)] = (
            f"{'' if seconds is None else seconds} {'deaf' if deaf else ''}".strip()
        )

    def crash(self, function: str, gpu: int | str, signal: int = 6) -> None:
        """A function ends the process by a signal."""
        self.rules["crash", function, str(gpu)] = str(signal)

    def forget(self, function: str, gpu: int | str) -> None:
        """A function is well again."""
        self.rules = {key: value for key, value in self.rules.items() if key[1:] != (function, str(gpu))}

    def lose(self, gpu: int, *, lost: bool = True) -> None:
        """All calls for a GPU return GPU_IS_LOST; or no longer."""
        self.gpu(gpu, "lost", int(lost))

    def xid(self, gpu: int, code: int) -> None:
        """An error of a GPU, which every event set that exists gets once."""
        self.xids.append(f"xid {len(self.xids) + 1} gpu {gpu} {code}")

    def save(self) -> Scenario:
        """Replace the file."""
        lines = [f"start {self.start:.6f}"]
        lines += [f"{of}{key} {row}" for (of, key), rows in self.facts.items() for row in rows]
        lines += [f"{verb} {function} gpu {gpu} {rest}" for (verb, function, gpu), rest in self.rules.items()]
        new = self.path.with_name(self.path.name + ".new")
        new.write_text("\n".join([*lines, *self.xids]) + "\n")
        new.replace(self.path)
        return self

    def environment(self, library: Path) -> dict[str, str]:
        """Of a process that loads the stub and follows this scenario."""
        return {**os.environ, "LD_LIBRARY_PATH": str(library), "INFERMETER_NVML_SCENARIO": str(self.path)}


def _base(path: Path, gpus: int, name: str, gib: int, watts: int) -> Scenario:
    """A machine of equal GPUs with what every one of them supports."""
    made = Scenario(path)
    for key, value in (("gpus", gpus), ("driver_version", "550.54.15"), ("nvml_version", "12.550.54.15")):
        made.machine(key, value)
    made.machine("cuda_version", 12040)
    facts = {"name": name, "memory_total": gib * GIB, "memory_reserved": GIB // 2, "memory_used": gib * GIB // 4}
    facts |= {"utilization": 60, "memory_utilization": 30, "power": watts * 600, "power_limit": watts * 1000}
    facts |= {"energy": f"1000000+{watts * 600}", "temperature": 55, "clocks": "1500 1500 2000 1400"}
    facts |= {"clocks_max": "1980 1980 2619 1545", "event_reasons": 0, "performance_state": 0, "event_types": 31}
    for key, fact in facts.items():
        made.gpu(EVERY, key, fact)
    for gpu in range(gpus):
        made.gpu(gpu, "uuid", f"GPU-{gpu:08d}-0000-4000-8000-000000000000")
        made.gpu(gpu, "pci", f"0000:{0x10 + gpu:02x}:00.0")
        made.gpu(gpu, "minor", gpu)
    return made


def datacenter(made: Scenario) -> None:
    """What a GPU of a data centre tells beyond the others, on all GPUs of a machine."""
    facts: dict[str, object] = {
        "serial": "1650000000001",
        "brand": 2,
        "architecture": 9,
        "vbios_version": "96.00.61.00.01",
    }
    facts |= {"compute_capability": "9.0", "numa_node": 0, "virtualization": 0, "persistence": 1, "compute_mode": 0}
    facts |= {"power_limit_default": 700_000, "power_limit_min": 200_000, "power_limit_max": 700_000}
    facts |= {"temperature_margin": 32, "temperature_thresholds": "92 89 - 87 -", "event_reasons": 0x4}
    facts |= {"violation_0": 2_500_000_000, "violation_1": 500_000_000, "violation_2": 0, "violation_3": 0}
    facts |= {"encoder": 0, "decoder": 12, "jpeg": 3, "ofa": 0, "bar1_total": 128 * GIB, "bar1_used": 2 * GIB}
    facts |= {"pcie_generation": 5, "pcie_generation_max": 5, "pcie_width": 16, "pcie_width_max": 16, "pcie_replays": 3}
    facts |= {"ecc_mode": 1, "ecc_corrected_volatile": 2, "ecc_corrected_aggregate": 7, "ecc_uncorrected_volatile": 0}
    facts |= {"ecc_uncorrected_aggregate": 1, "remapped_rows": "1 2 1 0", "retired_pages_0": 0, "retired_pages_1": 2}
    facts |= {"retired_pages_pending": 0, "fabric_state": 3, "gpm": 1, "nvlink": " ".join(["1"] * 17 + ["0"])}
    for key, fact in facts.items():
        made.gpu(EVERY, key, fact)
    for counter in range(5):
        made.gpu(EVERY, f"nvlink_errors_{counter}", " ".join([str(counter)] * 18))
    made.gpu(EVERY, "gpm_metric", "2 55.0", "3 40.0", "5 20.0", "10 35.0", "11 0.0", "12 10.0", "13 5.0")
    fields = ["82 0 1 61", "197 0 3 5000000000", "198 0 3 9000000000", "230 0 1 0"]
    fields += ["269 0 3 1500000000", "270 0 3 0", "271 0 3 250000000"]
    fields += [f"{field} {link} 3 {1000 * (link + 1)}" for field in (138, 139) for link in range(18)]
    made.gpu(EVERY, "field", *fields)
    made.gpu(EVERY, "sampled", "1 70 0.05", "1 90 0.02")


def h100x8_busy(path: Path) -> Scenario:
    """Eight H100 with processes of several services on each, GPM and NVLink."""
    made = _base(path, 8, "NVIDIA H100 80GB HBM3", 80, 700)
    datacenter(made)
    for gpu in range(8):
        pids = (10_000 + 10 * gpu, 10_001 + 10 * gpu)
        made.gpu(gpu, "process", *(f"{pid} compute {9 * GIB}" for pid in pids))
        made.gpu(gpu, "sample", f"{pids[0]} 40 20 0 0", f"{pids[1]} 20 10 0 0")
    return made


def t4(path: Path) -> Scenario:
    """One T4 with one process."""
    made = _base(path, 1, "Tesla T4", 15, 70)
    made.gpu(0, "process", f"4000 compute {2 * GIB}")
    made.gpu(0, "sample", "4000 60 30 0 0")
    return made


def a100_mig(path: Path) -> Scenario:
    """One A100 in two instances; it has no utilisation of its own then."""
    made = _base(path, 1, "NVIDIA A100-SXM4-40GB", 40, 400)
    made.gpu(0, "mig_mode", 1)
    made.gpu(0, "mig_max", 7)
    for key in ("utilization", "memory_utilization"):
        made.gpu(EVERY, key)
    made.gpu(0, "no_samples", 1)
    parts = ((0, 1, 2, 20, "3g.20gb"), (1, 7, 1, 5, "1g.5gb"))
    uuid = "0000-4000-8000-000000000000"
    rows = (
        f"{at} {gi} 0 {slices} {gib * GIB} {GIB} MIG-{at:08d}-{uuid} NVIDIA A100-SXM4-40GB MIG {name}"
        for at, gi, slices, gib, name in parts
    )
    made.gpu(0, "mig", *rows)
    made.gpu(0, "process", f"5000 compute {GIB} 1 0", "5001 compute na 7 0")
    return made


def consumer(path: Path) -> Scenario:
    """One GeForce, which does not support energy, samples of processes and their memory, ECC and much else."""
    made = _base(path, 1, "NVIDIA GeForce GTX 1650", 4, 75)
    for key in ("energy", "power", "power_limit", "memory_reserved"):
        made.gpu(EVERY, key)
    made.gpu(0, "no_samples", 1)
    made.gpu(0, "fans", 1)
    made.gpu(0, "fan_speed", 35)
    made.gpu(0, "process", "6000 graphics na")
    return made


def no_driver(path: Path) -> Scenario:
    """The library is there and the driver is not loaded."""
    made = Scenario(path)
    made.tell("nvmlInitWithFlags", EVERY, 9)
    return made


def hung(path: Path) -> Scenario:
    """A T4 whose driver does not return from the question for its power."""
    made = t4(path)
    made.hang("nvmlDeviceGetPowerUsage", 0)
    return made
