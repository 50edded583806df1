"""`python -m demo` beside its real Prometheus: the numbers are those of the frames that it is known to have seen."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from infermeter import buckets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.centerface import Faces
    from demo.photographs import Frame
    from tests.prometheus.conftest import Prometheus, Scrape

PATIENCE = 60
"""Seconds; it takes some 10 until the rates are there."""


@pytest.fixture(scope="module")
def urls(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the running demo says that its service and its Prometheus are."""
    from demo.__main__ import PACKAGES

    if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        reason = f"the demo's packages are not installed: {', '.join(missing)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "demo", "--face-detection-port=0", "--prometheus-port=0"]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with (folder / "errors").open("wb") as errors:
        demo = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield announced(demo, folder / "errors")
    finally:
        demo.terminate()
        try:
            demo.communicate(timeout=PATIENCE)
        finally:
            demo.kill()  # which does nothing to a process that has ended


def announced(demo: subprocess.Popen[str], errors: Path) -> dict[str, str]:
    """Read the addresses that the demo prints, by name."""
    assert demo.stdout is not None
    found: dict[str, str] = {}
    for line in demo.stdout:
        if match := re.match(r"(face-detection|Prometheus): (\S+)", line):
            found[match[1]] = match[2].removesuffix("/graph")
        if len(found) == 2:
            return found
    pytest.fail(f"the demo ended, having said:\n{errors.read_text()}")


@pytest.fixture(scope="module")
def scrape(urls: dict[str, str], connect: type[Prometheus]) -> Iterator[Scrape]:
    """The second scrape of the service: from then on there are rates."""
    prometheus = connect(urls["Prometheus"], job="infermeter-demo")
    with prometheus.client:
        prometheus.next_scrape()
        yield prometheus.next_scrape()


@pytest.fixture(scope="module")
def seen(scrape: Scrape) -> list[tuple[Frame, Faces]]:
    """The frames that the service has seen up to the scrape, and what the network finds in them."""
    from demo.centerface import CenterFace
    from demo.photographs import frames

    network = CenterFace()
    return [(frame, network.detect(frame.pixels)) for frame in islice(frames(0), int(scrape.value("inferences_total")))]


def test_the_page_shows_durations_and_detections(urls: dict[str, str], scrape: Scrape) -> None:
    """As `curl http://127.0.0.1:8002/metrics | grep -E "(inference_duration|detections_total)"` does."""
    page = httpx.get(urls["face-detection"], trust_env=False).text
    names = re.findall(r"^(inference_duration\w*|detections_total)\{", page, re.MULTILINE)

    assert set(names) == {f"inference_duration_{part}" for part in ("bucket", "count", "sum")} | {"detections_total"}


def test_the_latency_that_prometheus_tells_is_plausible(scrape: Scrape) -> None:
    """A frame takes some time, and less than 10 s, where the edges end."""
    answer = scrape.value('histogram_quantile(0.95, rate(inference_duration_bucket{model="centerface"}[1m]))')

    assert 0 < answer < 10


def test_the_mean_number_of_objects_is_plausible(scrape: Scrape) -> None:
    """There are 0 to 4 faces in a frame; the first scrape is not part of a rate, so the truth is not exact here."""
    answer = scrape.value("rate(objects_per_frame_sum[1m]) / rate(objects_per_frame_count[1m])")

    assert 0 <= answer < 5


def test_the_counts_are_those_of_the_frames_seen(scrape: Scrape, seen: list[tuple[Frame, Faces]]) -> None:
    """Faces, frames of so many faces, confidences and bytes: the seed tells which frames there were, exactly."""
    confidences = [confidence for _, faces in seen for confidence in faces.confidences.tolist()]
    objects = [len(faces) for _, faces in seen]

    assert scrape.vector("detections_total")[0][0]["class"] == "face"
    assert scrape.value("detections_total") == len(confidences)
    assert scrape.by("le", "objects_per_frame_bucket") == {
        **{str(edge): sum(number <= edge for number in objects) for edge in buckets.OBJECTS}, "+Inf": len(seen),
    }  # fmt: skip
    assert scrape.by("le", "detection_confidence_bucket") == {
        **{str(edge): sum(value <= edge for value in confidences) for edge in buckets.CONFIDENCE},
        "+Inf": len(confidences),
    }
    assert scrape.value("detection_confidence_sum") == pytest.approx(sum(confidences))
    assert scrape.value("inference_input_size_bytes_sum") == sum(frame.pixels.nbytes for frame, _ in seen)


def test_the_cost_is_that_of_the_time_taken(scrape: Scrape) -> None:
    """2.10 USD an hour, for every second that was measured."""
    assert scrape.value("inference_cost_sum / inference_duration_sum") == pytest.approx(2.10 / 3600)
