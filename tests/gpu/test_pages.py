"""Whole pages of the GPU exporter, of machines as the stub plays them, against the files in `tests/golden`.

Who changes a metric on purpose rewrites them with `pytest tests/gpu/test_pages.py --update-golden`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.gpu.exporting import QUICK, Root, exporting
from tests.gpu.nvml_stub import a100_mig, consumer, h100x8_busy, hung, no_driver, t4

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.gpu.nvml_stub import Scenario
    from tests.page import Page

GOLDEN = Path(__file__).parents[1] / "golden"
SERVICES = ("face-detection", "object-detection")
MACHINES: dict[str, Callable[[Path], Scenario]] = {
    "h100x8": h100x8_busy,
    "a100-mig": a100_mig,
    "t4": t4,
    "consumer": consumer,
    "no-driver": no_driver,
    "hung": hung,
}
# What depends on when one looks. The linter of Prometheus reads these pages: what stands for a number is one.
MASKS = [
    (r"^((?:gpu|\w+_sm|\w+_throttle)_seconds_total\{.*\}) .*$", r"\1 NaN"),
    (r"^(\w+_energy_joules_total\{.*\}) .*$", r"\1 NaN"),
    (r"^(\w+_cost_usd_total\{.*\}) .*$", r"\1 NaN"),
    (r"^(\w+_collections_total\{.*\}) .*$", r"\1 NaN"),
    (r"^(\w+_collect_duration_seconds\{.*\}) .*$", r"\1 NaN"),
    (r"^(\w+_build_info)\{.*\}", r"\1"),
    (r"^(\w+_restarts_total\{reason=\"hang\"\}) [1-9].*$", r"\1 NaN"),
]


def settled(machine: str, page: Page) -> bool:
    """Whether all has been said that will be."""
    names = {name for name, _, _ in page.samples}
    if machine == "no-driver":
        return page.by("source", "nvidia_gpu_exporter_source_active")["sysfs"] == 1
    if machine == "hung":
        return page.value("nvidia_gpu_exporter_worker_restarts_total", reason="hang") > 0
    tiers = page.by("tier", "nvidia_gpu_exporter_collections_total")
    known = "nvidia_gpu_exporter_unattributed_processes" not in names
    devices = page.value("nvidia_gpu_devices") if "nvidia_gpu_devices" in names else 0
    return bool(devices) and known and all(tiers.get(tier, 0) > 2 * devices for tier in ("fast", "normal", "slow"))


@pytest.mark.parametrize("machine", MACHINES)
def test_the_page_is_as_expected(
    request: pytest.FixtureRequest, nvml_library: Path, tmp_path: Path, machine: str
) -> None:
    """Every family, label, value and help, in the order of the catalogue."""
    scenario = MACHINES[machine](tmp_path / "scenario").save()
    root = Root(tmp_path / "root")
    pids = sorted({row.split()[0] for (_, key), rows in scenario.facts.items() if key == "process" for row in rows})
    for place, pid in enumerate(pids):
        root.process(int(pid), SERVICES[place % len(SERVICES)])
    for (_, key), rows in scenario.facts.items():
        if key == "pci":
            root.gpu(rows[0])
    prices = tmp_path / "gpu.yml"
    prices.write_text("usd_per_kwh: 0.25\nprices: [{gpu: '.*', usd_per_gpu_hour: 2.5}]\n")
    flags = (f"--path.rootfs={root.folder}", f"--config.file={prices}", "--attribution.top-processes=1")
    with exporting(tmp_path, scenario.environment(nvml_library), *QUICK, *flags) as exporter:
        exporter.until_page(lambda page: settled(machine, page))
        text = exporter.text()
        assert exporter.end() == 0
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text, flags=re.MULTILINE)
    file = GOLDEN / f"gpu-{machine}.prom"
    if request.config.getoption("update_golden"):
        file.write_text(text)
    assert file.exists(), f"{file} is not there: write it with --update-golden"
    assert text.splitlines() == file.read_text().splitlines()


def test_every_expected_page_is_of_a_machine() -> None:
    """No page of a machine that is gone is left behind."""
    assert {file.stem for file in GOLDEN.glob("gpu-*")} == {f"gpu-{machine}" for machine in MACHINES}
