"""The exporter outlives its GPUs, its driver, and the process that talks to it; what it cannot know it does not say."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.gpu.exporting import QUICK, Exporting, Root, exporting
from tests.gpu.nvml_stub import Scenario, h100x8_busy, no_driver, t4

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.page import Page

UP = "nvidia_gpu_up"
DEVICES = [str(number) for number in range(8)]
VALUES = {
    "nvidia_gpu_utilization",
    "nvidia_gpu_busy_ratio",
    "nvidia_gpu_memory_used_bytes",
    "nvidia_gpu_temperature_celsius",
    "nvidia_gpu_power_draw",
}


@pytest.fixture
def busy(nvml_library: Path, tmp_path: Path) -> Iterator[tuple[Scenario, Exporting]]:
    """Eight GPUs that work, and an exporter that has read them."""
    scenario = h100x8_busy(tmp_path / "scenario").save()
    root = Root(tmp_path / "root")
    for gpu in range(8):
        root.process(10_000 + 10 * gpu, "face-detection")
        root.process(10_001 + 10 * gpu, "object-detection")
    environment = scenario.environment(nvml_library)
    with exporting(tmp_path, environment, *QUICK, f"--path.rootfs={root.folder}") as exporter:
        exporter.until_page(lambda page: all_up(page) and page.by("gpu", "nvidia_gpu_temperature_celsius"))
        yield scenario, exporter


def up(page: Page) -> dict[str, float]:
    """Whether each GPU answers."""
    return page.by("gpu", UP)


def all_up(page: Page) -> bool:
    """Whether all eight do."""
    return up(page) == dict.fromkeys(DEVICES, 1.0)


def state(page: Page, gpu: str) -> str:
    """The state of a GPU."""
    [found] = [name for name, value in page.by("state", "nvidia_gpu_status", gpu=gpu).items() if value]
    return found


def restarts(page: Page) -> dict[str, float]:
    """How many workers were replaced, and why."""
    return page.by("reason", "nvidia_gpu_exporter_worker_restarts_total")


def values(page: Page, gpu: str) -> set[str]:
    """Which of some families have values of a GPU."""
    return {name for name, labels, _ in page.samples if name in VALUES and labels["gpu"] == gpu}


def energy(page: Page) -> dict[str, float]:
    """What each GPU used."""
    return page.by("gpu", "nvidia_gpu_energy_joules_total")


def test_one_lost_gpu_leaves_the_others(busy: tuple[Scenario, Exporting]) -> None:
    """It says that it is lost and has no values; what it used stays; it comes back by itself."""
    scenario, exporter = busy
    scenario.lose(3)
    scenario.save()
    page = exporter.until_page(lambda page: not up(page)["3"])
    assert up(page) == dict.fromkeys(DEVICES, 1.0) | {"3": 0.0}
    assert (state(page, "3"), values(page, "3")) == ("lost", set())
    assert [values(page, gpu) for gpu in DEVICES if gpu != "3"] == [VALUES] * 7
    assert page.value("nvidia_gpu_devices") == 8
    assert sorted(energy(page)) == DEVICES
    scenario.lose(3, lost=False)
    scenario.save()
    again = exporter.until_page(lambda page: all_up(page) and values(page, "3") == VALUES)
    assert energy(again)["3"] >= energy(page)["3"]
    assert restarts(again) == {"hang": 0, "crash": 0, "source": 0}


def test_one_gpu_that_hangs_leaves_the_others(busy: tuple[Scenario, Exporting]) -> None:
    """The worker is replaced without that GPU, which another one tries again until it answers."""
    scenario, exporter = busy
    scenario.hang("nvmlDeviceGetPowerUsage", 5)
    scenario.save()
    page = exporter.until_page(lambda page: state(page, "5") == "timeout")
    assert values(page, "5") == set()
    exporter.until_page(lambda page: restarts(page)["hang"] >= 1)
    page = exporter.until_page(lambda page: all(values(page, gpu) == VALUES for gpu in DEVICES if gpu != "5"))
    assert up(page) == dict.fromkeys(DEVICES, 1.0) | {"5": 0.0}
    assert exporter.ready()[0] == 200
    before = energy(page)
    scenario.forget("nvmlDeviceGetPowerUsage", 5)
    scenario.save()
    page = exporter.until_page(lambda page: all_up(page) and values(page, "5") == VALUES, 40)
    assert all(energy(page)[gpu] >= before[gpu] for gpu in DEVICES)


def test_a_driver_that_hangs_is_given_up_and_found_again(busy: tuple[Scenario, Exporting]) -> None:
    """No GPU has values while it hangs, scrapes are answered all the time, and counters never fall."""
    scenario, exporter = busy
    before = energy(exporter.page())
    scenario.hang("nvmlDeviceGetPowerUsage", "*", deaf=True)
    scenario.save()
    page = exporter.until_page(lambda page: not any(up(page).values()))
    assert {state(page, gpu) for gpu in DEVICES} == {"timeout"}
    assert all(values(page, gpu) == set() for gpu in DEVICES)
    page = exporter.until_page(lambda page: restarts(page)["hang"] >= 1)
    assert not any(up(page).values())
    scenario.forget("nvmlDeviceGetPowerUsage", "*")
    scenario.save()
    page = exporter.until_page(all_up, 60)
    assert all(energy(page)[gpu] >= before[gpu] for gpu in DEVICES)
    assert len(exporter.workers()) == 1


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_worker_that_dies_is_replaced(busy: tuple[Scenario, Exporting], number: signal.Signals) -> None:
    """And counters go on."""
    _, exporter = busy
    before, worker = energy(exporter.page()), exporter.worker
    os.kill(worker, number)
    page = exporter.until_page(lambda page: restarts(page)["crash"] and all_up(page) and exporter.worker != worker)
    assert restarts(page) == {"hang": 0, "crash": 1, "source": 0}
    assert all(energy(page)[gpu] >= before[gpu] for gpu in DEVICES)


def test_energy_goes_on_over_a_reload_of_the_driver(busy: tuple[Scenario, Exporting]) -> None:
    """The driver's counter starts over, and its library has to be loaded by a new process."""
    scenario, exporter = busy
    before = energy(exporter.page())
    for function in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"):
        scenario.tell(function, "*", 18)  # the library and the driver do not match
    scenario.tell("nvmlInitWithFlags", "*", 18)
    scenario.save()
    page = exporter.until_page(lambda page: page.by("source", "nvidia_gpu_exporter_source_up").get("nvml") == 0)
    assert restarts(page)["source"] >= 1
    assert "of different versions" in exporter.said
    scenario.rules.clear()
    scenario.gpu("*", "energy", "0+420000")
    scenario.save()
    page = exporter.until_page(lambda page: all_up(page) and energy(page) != before, 60)
    later = exporter.until_page(lambda page: energy(page)["0"] > before["0"])
    assert all(before[gpu] <= energy(page)[gpu] <= energy(later)[gpu] < before[gpu] + 60_000 for gpu in DEVICES)
    assert later.by("source", "nvidia_gpu_exporter_source_active")["nvml"] == 1


def test_a_suspended_gpu_is_left_alone(nvml_library: Path, tmp_path: Path) -> None:
    """It would be woken by any question: it says that it sleeps, and what it is, and nothing else."""
    scenario = t4(tmp_path / "scenario").save()
    root = Root(tmp_path / "root")
    root.gpu("0000:10:00.0")
    environment = scenario.environment(nvml_library)
    with exporting(tmp_path, environment, *QUICK, f"--path.rootfs={root.folder}") as exporter:
        exporter.until_page(lambda page: "nvidia_gpu_temperature_celsius" in page.names)
        root.gpu("0000:10:00.0", "suspended")
        page = exporter.until_page(lambda page: page.by("gpu", "nvidia_gpu_runtime_suspended").get("0") == 1)
        page = exporter.until_page(lambda page: not values(page, "0"))
        assert (up(page), page.value("nvidia_gpu_info")) == ({"0": 1}, 1)
        assert exporter.ready()[0] == 200
        root.gpu("0000:10:00.0", "active")
        exporter.until_page(lambda page: values(page, "0") == VALUES)


def test_without_any_gpu_it_runs_and_says_so_once(nvml_library: Path, tmp_path: Path) -> None:
    """None is a number like any other; a driver that appears is found."""
    scenario = no_driver(tmp_path / "scenario").save()
    root = Root(tmp_path / "root")
    environment = scenario.environment(nvml_library)
    with exporting(tmp_path, environment, *QUICK, f"--path.rootfs={root.folder}") as exporter:
        page = exporter.until_page(lambda page: "nvidia_gpu_devices" in page.names)
        assert (page.value("nvidia_gpu_devices"), UP in page.names) == (0, False)
        assert exporter.ready()[0] == 200
        new = t4(tmp_path / "scenario")
        new.save()
        page = exporter.until_page(lambda page: page.value("nvidia_gpu_devices") == 1 and UP in page.names, 60)
        assert exporter.said.count("the NVIDIA driver is not loaded") == 1


def test_a_worker_ends_with_its_exporter(busy: tuple[Scenario, Exporting]) -> None:
    """Even if the exporter is killed, and a thread of the worker hangs in the driver."""
    scenario, exporter = busy
    worker = exporter.worker
    scenario.hang("nvmlDeviceGetPowerUsage", "*", deaf=True)
    scenario.save()
    exporter.process.kill()
    exporter.process.wait()
    exporter.until(lambda: not Path(f"/proc/{worker}").exists())


def test_it_ends_while_the_driver_hangs(busy: tuple[Scenario, Exporting]) -> None:
    """At once, with code 0."""
    scenario, exporter = busy
    scenario.hang("nvmlDeviceGetPowerUsage", "*", deaf=True)
    scenario.save()
    exporter.until_page(lambda page: restarts(page)["hang"] >= 1)
    try:
        assert exporter.end() == 0
    except subprocess.TimeoutExpired:
        pytest.fail(f"it did not end, having said:\n{exporter.said}")
