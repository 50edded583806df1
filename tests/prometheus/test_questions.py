"""The questions that teams ask about their models: Prometheus answers them with the numbers that are true."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infermeter import buckets

if TYPE_CHECKING:
    from tests.prometheus.conftest import Prometheus, Scrape, Service

NAMES = ("person", "dog", "car")


@pytest.fixture(scope="module")
def frames() -> list[list[tuple[float, int]]]:
    """500 frames of 0 to 6 objects; confidences of two digits, so that many lie exactly on an edge."""
    chance = random.Random(7)
    return [
        [(round(chance.random() ** 0.3, 2), chance.randrange(3)) for _ in range(chance.randrange(7))]
        for _ in range(500)
    ]


@pytest.fixture(scope="module")
def detected(service: Service, prometheus: Prometheus, frames: list[list[tuple[float, int]]]) -> Scrape:
    """The scrape after the detector has seen all frames."""
    service.do("detect_all", frames=frames)
    return prometheus.next_scrape()


def test_confidences_are_counted_up_to_every_edge(detected: Scrape, frames: list[list[tuple[float, int]]]) -> None:
    """Each `le` holds exactly the detections of that confidence or less."""
    confidences = [confidence for frame in frames for confidence, _ in frame]
    expected = {str(edge): sum(confidence <= edge for confidence in confidences) for edge in buckets.CONFIDENCE}

    assert detected.by("le", 'detection_confidence_bucket{model="detector"}') == {**expected, "+Inf": len(confidences)}
    assert detected.value('detection_confidence_sum{model="detector"}') == pytest.approx(sum(confidences))


def test_inferences_per_second(detected: Scrape) -> None:
    """The rate over a minute, by model, is the number of inferences over 60; nothing is lost or made up."""
    rates = detected.by("model", "sum by (model) (rate(inferences_total[1m]))")

    assert rates["detector"] == pytest.approx(500 / 60)
    assert detected.value('increase(inferences_total{model="detector"}[1m])') == pytest.approx(500)
    assert detected.value('inferences_total{model="detector"}') == 500


def test_objects_per_frame(detected: Scrape, frames: list[list[tuple[float, int]]]) -> None:
    """The mean is that of all frames, empty ones included, and each `le` holds exactly the frames of so many."""
    objects = list(map(len, frames))
    expected = {str(edge): sum(number <= edge for number in objects) for edge in buckets.OBJECTS}
    mean = detected.value(
        'rate(objects_per_frame_sum{model="detector"}[1m]) / rate(objects_per_frame_count{model="detector"}[1m])'
    )

    assert mean == pytest.approx(sum(objects) / 500)
    assert detected.by("le", 'objects_per_frame_bucket{model="detector"}') == {**expected, "+Inf": 500}


def test_detections_by_class(detected: Scrape, frames: list[list[tuple[float, int]]]) -> None:
    """Every detection is counted under the name of its class."""
    expected = Counter(NAMES[index] for frame in frames for _, index in frame)

    assert detected.by("class", 'detections_total{model="detector"}') == expected


def test_95th_percentile_of_known_durations(service: Service, prometheus: Prometheus) -> None:
    """`histogram_quantile` gives what is worked out by hand from the true counts."""
    service.do("record", model="known", durations=[0.004] * 50 + [0.02] * 40 + [0.2] * 10)
    scrape = prometheus.next_scrape()

    def quantile(q: float) -> float:
        return scrape.value(f'histogram_quantile({q}, rate(inference_duration_bucket{{model="known"}}[1m]))')

    assert quantile(0.25) == pytest.approx(0.0025 + 0.0025 * 25 / 50)  # the 25th of the 50 between 2.5 and 5 ms
    assert quantile(0.70) == pytest.approx(0.01 + 0.015 * 20 / 40)  # the 20th of the 40 between 10 and 25 ms
    assert quantile(0.95) == pytest.approx(0.1 + 0.15 * 5 / 10)  # the 5th of the 10 between 100 and 250 ms
    assert scrape.value('inference_duration_sum{model="known"}') == pytest.approx(3)


def test_95th_percentile_of_measured_durations(service: Service, prometheus: Prometheus) -> None:
    """Of inferences that took real time, it is what the counts on the service's own page say."""
    service.do("sleep_all", durations=[0.001] * 30 + [0.006] * 10 + [0.03] * 10)
    scrape = prometheus.next_scrape()
    counts = [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(service.page("text/plain"))
        for sample in family.samples
        if sample.name == "inference_duration_bucket" and sample.labels["model"] == "sleeper"
    ]
    index = next(index for index, (_, count) in enumerate(counts) if count >= 0.95 * 50)
    (low, below), (high, up_to) = counts[index - 1 : index + 1]
    answer = scrape.value('histogram_quantile(0.95, rate(inference_duration_bucket{model="sleeper"}[1m]))')

    assert counts[-1] == (float("inf"), 50)
    assert low >= 0.025  # each sleeps at least as long as it was told
    assert answer == pytest.approx(low + (high - low) * (0.95 * 50 - below) / (up_to - below))


COST_PER_1K = """
    1000 * sum(rate(inference_cost_sum{{model="{model}"}}[1m])) / sum(rate(inference_cost_count{{model="{model}"}}[1m]))
"""


def test_dollars_per_thousand_inferences(service: Service, prometheus: Prometheus) -> None:
    """At 7.20 USD an hour shared by two, a second costs 0.001 USD."""
    service.do("record", model="priced", durations=[0.25] * 30 + [1.5] * 10)
    scrape = prometheus.next_scrape()

    assert scrape.value(COST_PER_1K.format(model="priced")) == pytest.approx(1000 * 22.5 * 0.001 / 40)


def test_dollars_per_thousand_completions(service: Service, prometheus: Prometheus) -> None:
    """At 0.50 USD per 1K tokens read and 1.50 USD per 1K generated, the cost follows from the tokens alone."""
    service.do("complete_all", calls=[(1000, 200), (3000, 0), (0, 400)])
    scrape = prometheus.next_scrape()

    assert scrape.value(COST_PER_1K.format(model="llm")) == pytest.approx(1000 * (4 * 0.5 + 0.6 * 1.5) / 3)
    assert scrape.by("type", 'increase(inference_tokens_total{model="llm"}[1m])') == {
        "prompt": pytest.approx(4000),
        "completion": pytest.approx(600),
    }


def test_the_first_error_is_seen(service: Service, prometheus: Prometheus) -> None:
    """A model that never failed shows 0, so that its very first timeout is an increase."""
    timeouts = ('model_errors_total{model="flaky", error_type="timeout"}', 'model_timeout_total{model="flaky"}')
    before = prometheus.next_scrape()
    service.do("fail")
    after = prometheus.next_scrape()

    assert [before.value(counter) for counter in timeouts] == [0, 0]
    assert [after.value(f"increase({counter}[1m])") for counter in timeouts] == pytest.approx([1, 1])
    assert after.by("error_type", 'model_errors_total{model="flaky"}') == {
        "timeout": 1, "cuda_oom": 0, "cancelled": 0, "other": 0,
    }  # fmt: skip
    assert after.value('inferences_total{model="flaky"}') == 1


def test_what_is_in_flight(service: Service, prometheus: Prometheus) -> None:
    """A call counts from its start to its end, and before and after there is none."""
    query = 'inferences_in_flight{model="held"}'
    before = prometheus.next_scrape()
    service.do("hold")
    during = prometheus.next_scrape()
    service.do("release")
    after = prometheus.next_scrape()

    assert [scrape.value(query) for scrape in (before, during, after)] == [0, 1, 0]


def test_exemplars_lead_to_traces(service: Service, prometheus: Prometheus) -> None:
    """Slow inferences are found by their trace, each at the bucket of its duration."""
    start = time.time() - 1  # Prometheus has milliseconds only
    durations = [0.3, 0.02, 7.0, 0.8]
    traces = dict(zip(durations, service.do("record_traced", durations=durations), strict=True))
    prometheus.next_scrape()
    found = prometheus.exemplars('inference_duration_bucket{model="traced"}', start)

    assert {(one["labels"]["trace_id"], float(one["value"]), one["series"]["le"]) for one in found} == {
        (traces[seconds], seconds, edge)
        for seconds, edge in ((0.02, "0.025"), (0.3, "0.5"), (0.8, "1.0"), (7.0, "10.0"))
    }
