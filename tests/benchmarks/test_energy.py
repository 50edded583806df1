"""Joules and watts from the page of a GPU exporter."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from benchmarks.gpu_benchmark import main
from benchmarks.models.cases import CannotRun, Mistake
from benchmarks.models.energy import GpuPage, Look, Unmeasured, mean_watts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DETECTOR = "demo/detector.onnx"
QUICK = ("--providers", "cpu", "--seconds", "0.1", "--rounds", "2", "--warm-up", "1", "--threads", "1")
WATTS = {"0": 50, "1": 150}


@contextmanager
def serving(page: Callable[[], str]) -> Iterator[str]:
    """Serves what `page` gives at the moment; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def counters() -> str:
    """What two GPUs have drawn, as an exporter tells that reads them ten times a second."""
    moment = int(time.monotonic() * 10) / 10
    lines = [f'nvidia_gpu_energy_joules_total{{gpu="{gpu}"}} {watts * moment}' for gpu, watts in WATTS.items()]
    return "\n".join(["# TYPE nvidia_gpu_energy_joules_total counter", *lines, ""])


def powers() -> str:
    """What two GPUs draw, from an exporter whose devices have no counter."""
    lines = [f'nvidia_gpu_power_draw{{gpu="{gpu}"}} {watts}' for gpu, watts in WATTS.items()]
    return "\n".join(["# TYPE nvidia_gpu_power_draw gauge", *lines, ""])


def test_watts_are_joules_between_changes_of_the_counter() -> None:
    """What an exporter that reads seldom shows between its readings neither adds nor takes."""
    looks = [
        Look(0.0, 100, None),
        Look(1.0, 100, None),
        Look(2.0, 140, None),  # from here
        Look(3.0, 140, None),
        Look(4.0, 200, None),
        Look(5.0, 200, None),
        Look(6.0, 260, None),  # to here
        Look(7.0, 260, None),
    ]
    assert mean_watts(looks) == 30


def test_without_a_counter_watts_are_the_mean_power_over_time() -> None:
    """Weighted by how long it lasted, not by how often it was looked at."""
    assert mean_watts([Look(0.0, None, 100), Look(1.0, None, 100), Look(4.0, None, 300)]) == 175
    assert mean_watts([Look(0.0, 0, 999), Look(1.0, 5, 999), Look(2.0, 10, 999)]) == 5


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        ([Look(0.0, 100, None), Look(1.0, 110, None)], "nvidia_gpu_energy_joules_total changed less than 2 times"),
        ([Look(0.0, 9, None), Look(1.0, 10, None), Look(2.0, 1, None)], "nvidia_gpu_energy_joules_total fell"),
        ([Look(0.0, None, 100)], "nvidia_gpu_power_draw was seen less than 2 times"),
    ],
)
def test_too_little_is_unknown(looks: list[Look], reason: str) -> None:
    """One sentence that says what to do, instead of a number that means nothing."""
    with pytest.raises(CannotRun, match=reason):
        mean_watts(looks)


def test_without_a_source_nothing_is_known() -> None:
    """Not 0."""
    assert Unmeasured().watts(lambda: None) is None


@pytest.mark.parametrize(
    ("page", "gpus", "watts"), [(counters, (), 200), (counters, ("1",), 150), (powers, (), 200), (powers, ("0",), 50)]
)
def test_a_page_tells_the_watts_of_the_gpus_that_count(
    page: Callable[[], str], gpus: tuple[str, ...], watts: float
) -> None:
    """All of them, unless some are chosen; by the counter, and by the power where there is no counter."""
    with serving(page) as url:
        found = GpuPage(url, gpus).watts(lambda: time.sleep(1))
    assert found == pytest.approx(watts, rel=0.4)


def test_a_page_without_the_gpu_is_a_mistake() -> None:
    """Before anything is measured."""
    with (
        serving(powers) as url,
        pytest.raises(Mistake, match="has neither nvidia_gpu_energy_joules_total nor nvidia_gpu_power_draw of gpu 7"),
    ):
        GpuPage(url, ["7"])


def test_figures_follow_from_the_watts(tmp_path: Path) -> None:
    """Joules an inference, inferences a watt and USD agree with the watts and the speed, rent and energy together."""
    written = tmp_path / "figures.json"
    with serving(powers) as url:
        code = main([
            DETECTOR, *QUICK, "--gpu-metrics", url, "--gpu", "0", "--energy-seconds", "0.5",
            "--usd-per-hour", "1", "--usd-per-kwh", "20", "--json", str(written),
        ])  # fmt: skip

    assert code == 0
    (row,) = json.loads(written.read_text())["rows"]
    figures = row["figures"]
    assert figures["watts"] == pytest.approx(50)
    assert figures["joules_per_inference"] * figures["inferences_per_second_per_watt"] == pytest.approx(1)
    # An hour costs 1 for the machine and 50 W x 20 a kWh = 1 for the energy.
    assert figures["usd_per_1000"] == pytest.approx(1000 * 2 / 3600 / figures["inferences_per_second"])


def test_energy_that_is_not_known_is_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A counter that stands still fails the case by name; USD that would lack the energy are absent, times stay."""
    written = tmp_path / "figures.json"
    with serving(lambda: 'nvidia_gpu_energy_joules_total{gpu="0"} 5\n') as url:
        code = main([
            DETECTOR, *QUICK, "--gpu-metrics", url, "--energy-seconds", "0.3", "--usd-per-kwh", "1",
            "--json", str(written),
        ])  # fmt: skip

    assert code == 1
    assert (
        "nvidia_gpu_energy_joules_total changed less than 2 times: give --energy-seconds more"
        in capsys.readouterr().out
    )
    (row,) = json.loads(written.read_text())["rows"]
    assert {"watts", "joules_per_inference", "usd_per_1000"} & set(row["figures"]) == set()
    assert row["figures"]["calls"] > 0
