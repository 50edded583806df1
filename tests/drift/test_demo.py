"""Night falls on the demo's street camera, in compressed time: the drift exporter says so, and was silent by day.

Everything is real: the detector, its library, the Prometheus that scrapes it, the exporter that reads Prometheus.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.drift.exporting import exporting
from tests.prometheus.conftest import ask, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WINDOW, LEARN, HEALTHY = 8, 16, 4
"""Seconds of a window, of the reference, and how many windows pass by day."""
DAY = 15 + LEARN + WINDOW * (HEALTHY + 1)
"""Seconds of day, the start of everything included."""

pytestmark = pytest.mark.skipif(
    not os.environ.get("INFERMETER_DEMO_DRIFT"),
    reason="takes two minutes: part of make test-all (INFERMETER_DEMO_DRIFT)",
)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[tuple[str, float]]:
    """Host and port of the service, and when its night falls."""
    port = free_port()
    command = [sys.executable, "-m", "demo.object_detection", f"--port={port}", "--rate=30", f"--night-after={DAY}"]
    with (tmp_path / "camera.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        with httpx.Client(trust_env=False) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    if "detection_confidence_bucket" in client.get(f"http://127.0.0.1:{port}/metrics").text:
                        break
                except httpx.TransportError:
                    pass
                assert time.monotonic() < deadline, (tmp_path / "camera.log").read_text()
                time.sleep(0.1)
        yield f"127.0.0.1:{port}", time.time() + DAY
    finally:
        process.kill()
        process.wait()


def test_night_is_drift(camera: tuple[str, float], program: str, tmp_path: Path) -> None:
    """Flagged in the second window that is dark as a whole, at the latest; no window before it is."""
    target, dusk = camera
    folder = tmp_path / "prometheus"
    folder.mkdir()
    config = tmp_path / "drift.yml"
    jobs = f"  - {{job_name: camera, static_configs: [{{targets: ['{target}']}}]}}\n"
    with ExitStack() as stack:
        address = stack.enter_context(running(program, folder, jobs))
        client = stack.enter_context(httpx.Client(base_url=f"http://{address}", trust_env=False))
        while not ask(client, f"count_over_time(detection_confidence_count[1m]) > {LEARN}"):
            assert time.time() < dusk
            time.sleep(0.2)
        config.write_text(
            f"interval: 2s\nwindow: {WINDOW}s\ndelay: 2s\nstore: {tmp_path}/drift.sqlite\nsources:\n"
            f"- {{type: prometheus, url: 'http://{address}', baselines: [frozen]}}\n"
        )
        made = subprocess.run(
            [sys.executable, "-m", "infermeter_exporters", "drift", "baseline", "create", f"--config.file={config}",
             f"--last={LEARN}s"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert made.stdout.startswith("frozen version 1 of prometheus: 1 features, ")
        exporter = stack.enter_context(exporting(tmp_path, f"--config.file={config}"))
        seen: dict[float, tuple[float, float]] = {}
        deadline = dusk + 6 * WINDOW
        while time.time() < deadline:
            ended = exporter.value("drift_last_success_timestamp_seconds") or 0.0
            active = exporter.value("drift_active", feature="detection_confidence", baseline="frozen")
            index = exporter.value("drift_psi", feature="detection_confidence", baseline="frozen")
            if active is not None and index is not None and ended % WINDOW == 0:
                seen[ended] = active, index
            time.sleep(0.2)
            if active and seen:
                break
        by_day = {ended: found for ended, found in seen.items() if ended <= dusk}
        print({round(ended - dusk): (active, round(index, 3)) for ended, (active, index) in seen.items()})
        assert len(by_day) >= HEALTHY - 1, exporter.said
        assert {active for active, _ in by_day.values()} == {0.0}
        assert max(index for _, index in by_day.values()) < 0.1
        flagged = min(ended for ended, (active, _) in seen.items() if active)
        dark = (flagged - dusk) // WINDOW  # windows that are dark as a whole
        assert dark <= 2
        assert exporter.value("drift_detected_total", feature="detection_confidence") == 1
        (one,) = exporter.drift()
        assert (one["service"], one["model"], one["active"]) == ("object-detection", "scenes-s", True)
        assert one["verdict"].startswith("It drifts: the index is ")
        page = exporter.client.get("/").text
        assert 'class="drifts"' in page
        assert page.count("<svg") == 1
