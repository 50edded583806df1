"""The stub of the driver's library, read through the real nvidia-ml-py in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.gpu.nvml_stub import Scenario, a100_mig, build, consumer, h100x8_busy, hung, no_driver, t4

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ = """
import pynvml as n
n.nvmlInit()
first = n.nvmlDeviceGetHandleByIndex(0)
"""


def run(scenario: Scenario, library: Path, code: str) -> subprocess.CompletedProcess[str]:
    """What a program says that reads the stub."""
    environment = scenario.save().environment(library)
    command = [sys.executable, "-c", READ + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize(("preset", "said"), [(h100x8_busy, "8 60"), (t4, "1 60"), (consumer, "1 60"), (hung, "1 60")])
def test_a_preset_is_readable(
    nvml_library: Path, tmp_path: Path, preset: Callable[[Path], Scenario], said: str
) -> None:
    """Its GPUs are counted and used."""
    code = "print(n.nvmlDeviceGetCount(), n.nvmlDeviceGetUtilizationRates(first).gpu)"
    assert run(preset(tmp_path / "scenario"), nvml_library, code).stdout.strip() == said


def test_without_the_driver_nothing_begins(nvml_library: Path, tmp_path: Path) -> None:
    """The library says why."""
    assert "NVMLError_DriverNotLoaded" in run(no_driver(tmp_path / "scenario"), nvml_library, "").stderr


def test_instances_have_names_and_processes(nvml_library: Path, tmp_path: Path) -> None:
    """Each of its own; memory that the driver does not tell is None."""
    code = """
for at in range(2):
    part = n.nvmlDeviceGetMigDeviceHandleByIndex(first, at)
    held = [(p.pid, p.usedGpuMemory) for p in n.nvmlDeviceGetComputeRunningProcesses(part)]
    print(n.nvmlDeviceGetName(part)[-7:], held)
"""
    said = run(a100_mig(tmp_path / "scenario"), nvml_library, code).stdout
    assert said == "3g.20gb [(5000, 1073741824)]\n1g.5gb [(5001, None)]\n".replace("1g.5gb", " 1g.5gb")


def test_one_lost_gpu_leaves_the_others(nvml_library: Path, tmp_path: Path) -> None:
    """And comes back when the file is replaced under a running program."""
    scenario = h100x8_busy(tmp_path / "scenario")
    scenario.lose(0, lost=False)
    scenario.tell("nvmlDeviceGetPowerUsage", 1, 15)
    code = f"""
path = {str(scenario.path)!r}
def power(gpu):
    try:
        return n.nvmlDeviceGetPowerUsage(n.nvmlDeviceGetHandleByIndex(gpu))
    except n.NVMLError as error:
        return error.value
before = [power(0), power(1), power(2)]
text = open(path).read()
open(path + "2", "w").write(text.replace("gpu 0 lost 0", "gpu 0 lost 1"))
import os; os.replace(path + "2", path)
print(before, [power(0), power(1), power(2)])
"""
    assert run(scenario, nvml_library, code).stdout.strip() == "[420000, 15, 420000] [15, 15, 420000]"


def test_a_crash_ends_the_process(nvml_library: Path, tmp_path: Path) -> None:
    """By the signal that the scenario names."""
    scenario = t4(tmp_path / "scenario")
    scenario.crash("nvmlDeviceGetTemperature", 0, 11)
    assert run(scenario, nvml_library, "n.nvmlDeviceGetTemperature(first, 0)").returncode == -11


def test_what_hangs_holds_up_no_other_thread(nvml_library: Path, tmp_path: Path) -> None:
    """Another thread is answered meanwhile."""
    code = """
import os, threading
threading.Thread(target=n.nvmlDeviceGetPowerUsage, args=(first,), daemon=True).start()
print(n.nvmlDeviceGetTemperature(first, 0), threading.active_count(), flush=True)
os._exit(0)
"""
    assert run(hung(tmp_path / "scenario"), nvml_library, code).stdout.strip() == "55 2"


def test_an_error_of_a_gpu_comes_once(nvml_library: Path, tmp_path: Path) -> None:
    """To a set that was there before it."""
    scenario = t4(tmp_path / "scenario")
    code = f"""
events = n.nvmlEventSetCreate()
n.nvmlDeviceRegisterEvents(first, n.nvmlEventTypeXidCriticalError, events)
open({str(scenario.path)!r}, "a").write("xid 1 gpu 0 79\\n")
print(n.nvmlEventSetWait_v2(events, 1000).eventData)
try:
    n.nvmlEventSetWait_v2(events, 20)
except n.NVMLError as error:
    print(error.value)
"""
    assert run(scenario, nvml_library, code).stdout == "79\n10\n"


def test_an_old_driver_lacks_a_symbol(nvml_library: Path, tmp_path: Path) -> None:
    """And nvidia-ml-py says that the function is not found."""
    library = build(nvml_library.parent, without=("nvmlDeviceGetMemoryInfo_v2",))
    code = "print(n.nvmlDeviceGetMemoryInfo(first).total)\nn.nvmlDeviceGetMemoryInfo(first, n.nvmlMemory_v2)"
    found = run(t4(tmp_path / "scenario"), library, code)
    assert (found.stdout.strip(), "FunctionNotFound" in found.stderr) == (str(15 << 30), True)
