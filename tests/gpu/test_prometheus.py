"""What people ask of GPUs, asked of a real Prometheus that scrapes the exporter."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.gpu.exporting import QUICK, exporting
from tests.gpu.nvml_stub import GIB, h100x8_busy
from tests.prometheus.conftest import ask, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICES = ("face-detection", "object-detection", "ocr")
PATIENCE = 30


@contextmanager
def process(service: str) -> Iterator[int]:
    """A real process of a service, which does nothing."""
    child = subprocess.Popen(["sleep", "1000"], env=os.environ | {"INFERMETER_SERVICE": service})
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


@pytest.fixture(scope="module")
def client(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory, program: str) -> Iterator[httpx.Client]:
    """A Prometheus that knows for some seconds what three real processes do on each of eight GPUs."""
    folder = tmp_path_factory.mktemp("asked")
    scenario = h100x8_busy(folder / "scenario")
    prices = folder / "gpu.yml"
    prices.write_text("prices: [{gpu: NVIDIA H100.*, usd_per_gpu_hour: 3.6}]\nusd_per_kwh: 0.36\n")
    (folder / "prometheus").mkdir()
    with ExitStack() as stack:
        pids = [stack.enter_context(process(service)) for service in SERVICES]
        for gpu in range(8):
            scenario.gpu(gpu, "process", *(f"{pid} compute {4 * GIB}" for pid in pids))
            scenario.gpu(gpu, "sample", *(f"{pid} {sm} 0 0 0" for pid, sm in zip(pids, (20, 10, 5), strict=True)))
            scenario.gpu(gpu, "utilization", 40)
        environment = scenario.save().environment(nvml_library)
        exporter = stack.enter_context(exporting(folder, environment, *QUICK, f"--config.file={prices}"))
        exporter.until_page(lambda page: "ocr" in page.by("service", "nvidia_gpu_utilization"))
        target = exporter.url.removeprefix("http://")
        job = f"  - {{job_name: gpu, static_configs: [{{targets: ['{target}']}}]}}\n"
        address = stack.enter_context(running(program, folder / "prometheus", job))
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=PATIENCE) as found:
            deadline = time.monotonic() + PATIENCE
            while vector(found, "min(count_over_time(gpu_seconds_total[1m]))").get("", 0) < 9:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield found


def vector(client: httpx.Client, query: str, label: str = "service") -> dict[str, float]:
    """An answer by the values of a label."""
    found: list[Any] = ask(client, query)
    return {series["metric"].get(label, ""): float(series["value"][1]) for series in found}


def test_a_series_for_each_service(client: httpx.Client) -> None:
    """The question that this exporter was made for, on each GPU."""
    found = ask(client, 'nvidia_gpu_utilization{service=~"face-.*|object-.*"}')
    assert {(one["metric"]["gpu"], one["metric"]["service"], one["value"][1]) for one in found} == {
        (str(gpu), service, value)
        for gpu in range(8)
        for service, value in (("face-detection", "20"), ("object-detection", "10"))
    }


def test_services_add_up(client: httpx.Client) -> None:
    """To what the GPU is busy, and to the memory that is used."""
    assert vector(client, "sum by (gpu) (nvidia_gpu_utilization)", "gpu") == {str(gpu): 40 for gpu in range(8)}
    assert ask(client, "sum by (gpu) (nvidia_gpu_utilization) != on (gpu) 100 * nvidia_gpu_busy_ratio") == []
    assert vector(client, "sum by (gpu) (nvidia_gpu_memory_used_bytes) / 2^30", "gpu") == {
        str(gpu): 20 for gpu in range(8)
    }


def test_gpus_of_a_service(client: httpx.Client) -> None:
    """Seconds of whole GPUs in a second, which are how many GPUs a service keeps busy."""
    found = vector(client, "sum by (service) (rate(nvidia_gpu_service_sm_seconds_total[6s]))")
    assert found["face-detection"] == pytest.approx(8 * 0.20, rel=0.1)
    assert found["face-detection"] == pytest.approx(2 * found["object-detection"], rel=1e-9)


def test_the_bill_is_paid(client: httpx.Client) -> None:
    """What services and nobody pay is the hours of the GPUs and the energy; idle hours are nobody's."""
    rates = vector(client, "sum by (service) (rate(nvidia_gpu_cost_usd_total[6s]))")
    bill = vector(
        client, "sum(rate(gpu_seconds_total[6s])) * 0.001 + sum(rate(nvidia_gpu_energy_joules_total[6s])) * 1e-7"
    )
    assert sum(rates.values()) == pytest.approx(bill[""], rel=1e-6)
    assert set(rates) == {*SERVICES, "_unattributed", "_idle"}
    assert rates["_idle"] > rates["face-detection"] > rates["ocr"] > 0


def test_names_are_as_they_should_be(client: httpx.Client) -> None:
    """Prometheus renamed none of our labels, and the series of the exporter itself are few."""
    assert ask(client, '{exported_service!=""}') == []
    assert vector(client, "count({__name__=~'nvidia_gpu_exporter_.+'})")[""] < 40
