"""`python -m demo` beside its real Prometheus: the numbers are those of the frames that it is known to have seen."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest
import yaml

from infermeter import buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.prometheus.conftest import Prometheus, Scrape

RULES = Path(__file__).parents[2] / "rules"
SERVICES = ("face-detection", "object-detection")
PATIENCE = 30
"""Scrapes, one a second, until there are rates: the second, if nothing is slow."""


@pytest.fixture(scope="module")
def urls(
    running_demo: Callable[[Path], AbstractContextManager[dict[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Where the services and the Prometheus of a running demo are."""
    with running_demo(tmp_path_factory.mktemp("demo")) as found:
        yield found


class Seen(NamedTuple):
    """What is found in one frame, and its size in bytes."""

    confidences: list[float]
    classes: list[str]
    size: int


@pytest.fixture(scope="module", params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    """Each of the services."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def scrape(urls: dict[str, str], service: str, connect: type[Prometheus]) -> Iterator[Scrape]:
    """The first scrape of the service at which there are rates, and series recorded from them."""
    instance = urls[service].removeprefix("http://")
    prometheus = connect(urls["Prometheus"], job="infermeter-demo", instance=instance)
    with prometheus.client:
        for _ in range(PATIENCE):
            scrape = prometheus.next_scrape()
            if scrape.vector(f'objects_per_frame{{service="{service}"}}'):
                break
        yield scrape


@pytest.fixture(scope="module")
def seen(scrape: Scrape, service: str) -> list[Seen]:
    """The frames that the service has seen up to the scrape: its seed tells which ones there were, exactly."""
    number = int(scrape.value(f'inferences_total{{service="{service}"}}'))
    return list(islice(faces() if service == "face-detection" else objects(), number))


def faces() -> Iterator[Seen]:
    """What the face detector finds in its photographs."""
    from demo.centerface import CenterFace
    from demo.photographs import frames

    model = CenterFace()
    for frame in frames(0):
        found = model.detect(frame.pixels).confidences.tolist()
        yield Seen(found, ["face"] * len(found), frame.pixels.nbytes)


def objects() -> Iterator[Seen]:
    """What the object detector finds in its street."""
    from demo.detector import CLASSES, Detector
    from demo.scenes import Camera

    model = Detector()
    for frame in Camera(0).frames():
        found = model.detect(frame.pixels)
        classes = [CLASSES[index] for index in found.classes.tolist()]
        yield Seen(found.confidences.tolist(), classes, frame.pixels.nbytes)


def test_the_page_shows_durations_and_detections(urls: dict[str, str], service: str) -> None:
    """As `curl http://127.0.0.1:8002/metrics | grep -E "(inference_duration|detections_total)"` does."""
    page = httpx.get(f"{urls[service]}/metrics", trust_env=False).text
    names = re.findall(r"^(inference_duration\w*|detections_total)\{", page, re.MULTILINE)

    assert set(names) == {f"inference_duration_{part}" for part in ("bucket", "count", "sum")} | {"detections_total"}


def test_the_latency_that_prometheus_tells_is_plausible(scrape: Scrape, service: str) -> None:
    """A frame takes some time, and less than 10 s, where the edges end."""
    answer = scrape.value(f'histogram_quantile(0.95, rate(inference_duration_bucket{{service="{service}"}}[1m]))')

    assert 0 < answer < 10


def test_the_counts_are_those_of_the_frames_seen(scrape: Scrape, service: str, seen: list[Seen]) -> None:
    """Objects by class, frames of so many objects, confidences and bytes."""
    confidences = [confidence for frame in seen for confidence in frame.confidences]
    numbers = [len(frame.confidences) for frame in seen]
    mine = f'{{service="{service}"}}'

    assert scrape.by("class", f"detections_total{mine}") == Counter(name for frame in seen for name in frame.classes)
    assert scrape.by("le", f"objects_per_frame_bucket{mine}") == {
        **{str(edge): sum(number <= edge for number in numbers) for edge in buckets.OBJECTS}, "+Inf": len(seen),
    }  # fmt: skip
    assert scrape.by("le", f"detection_confidence_bucket{mine}") == {
        **{str(edge): sum(value <= edge for value in confidences) for edge in buckets.CONFIDENCE},
        "+Inf": len(confidences),
    }
    assert scrape.value(f"detection_confidence_sum{mine}") == pytest.approx(sum(confidences))
    assert scrape.value(f"inference_input_size_bytes_sum{mine}") == sum(frame.size for frame in seen)


def test_objects_per_frame_are_the_truth(scrape: Scrape, service: str, seen: list[Seen]) -> None:
    """`avg_over_time(objects_per_frame[5m])` is the mean of what was in the frames of each minute."""
    mine = f'{{service="{service}"}}'
    scrapes = scrape.samples(f"objects_per_frame_count{mine}[5m]")
    expected = []
    for moment, _ in scrape.samples(f"objects_per_frame{mine}[5m]"):
        counted = [int(count) for seconds, count in scrapes if moment - 60 <= seconds <= moment]
        frames = seen[counted[0] : counted[-1]]
        expected.append(sum(len(frame.confidences) for frame in frames) / len(frames))
    answer = scrape.value(f"avg_over_time(objects_per_frame{mine}[5m])")

    assert len(expected) > 0
    assert answer == pytest.approx(sum(expected) / len(expected))
    assert 0 < answer < 20


def test_the_cost_is_that_of_the_time_taken(scrape: Scrape, service: str) -> None:
    """2.10 USD an hour, for every second that was measured."""
    mine = f'{{service="{service}"}}'
    assert scrape.value(f"inference_cost_sum{mine} / inference_duration_sum{mine}") == pytest.approx(2.10 / 3600)


def test_nothing_is_wrong(scrape: Scrape, urls: dict[str, str]) -> None:
    """The rules are loaded, and no alert is pending or firing while the demo just runs."""
    rules = httpx.get(f"{urls['Prometheus']}/api/v1/rules", trust_env=False).json()["data"]["groups"]

    written = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES.glob("*.rules.yml")]
    assert {group["name"] for group in rules} == {group["name"] for content in written for group in content["groups"]}
    # Those with an interval of minutes may not have had their turn yet.
    assert [
        rule["name"]
        for group in rules
        for rule in group["rules"]
        if rule["health"] not in ({"ok"} if group["interval"] == 1 else {"ok", "unknown"})
    ] == []
    # Drift has nothing to compare with at first, which is told a day later.
    assert scrape.vector('ALERTS{alertname!="DriftUnknown"}') == []
    assert scrape.vector('ALERTS{alertstate="firing"}') == []
