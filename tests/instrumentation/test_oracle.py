"""prometheus_client is the oracle: one observe() per value there must show what our bulk arithmetic shows."""

from __future__ import annotations

import array
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from infermeter import CostModel, Recorder
from infermeter.catalogue import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.instrumentation.conftest import NewRecorder, Scrape

EDGES = FAMILIES["detection_confidence"].edges
FLOAT32_EDGES = [np.float32(edge) for edge in EDGES]
EXTREMES = [
    *EDGES,
    *(math.nextafter(edge, -math.inf) for edge in EDGES),
    *(math.nextafter(edge, math.inf) for edge in EDGES),
    *(float(edge) for edge in FLOAT32_EDGES),
    *(float(np.nextafter(edge, np.float32(-np.inf))) for edge in FLOAT32_EDGES),
    *(float(np.nextafter(edge, np.float32(np.inf))) for edge in FLOAT32_EDGES),
    *(0.0, -0.0, 5e-324, 1e-310, 1.4e-45, 6e-8, 1.5, 17.0, 1e30),
]
REFUSED = [math.nan, math.inf, -math.inf, -1e-9, -0.5, -5e-324]

ordinary = st.one_of(st.sampled_from(EXTREMES), st.floats(0, 1), st.floats(0, 1, width=16))
anything = st.one_of(ordinary, st.sampled_from(REFUSED))

CONTAINERS: dict[str, Any] = {
    "list": list,
    "tuple": tuple,
    "float16": lambda values: np.array(values, np.float64).astype(np.float16),
    "float32": lambda values: np.array(values, np.float64).astype(np.float32),
    "float64": lambda values: np.array(values, np.float64),
    "column": lambda values: np.array(values, np.float32).reshape(-1, 1),
    "big-endian": lambda values: np.array(values, ">f4"),
    "every second": lambda values: np.repeat(np.array(values, np.float32), 2)[::2],
    "memoryview": lambda values: memoryview(array.array("d", values)),
    "array": lambda values: array.array("f", values),
    "ints": lambda values: [int(value) for value in values if math.isfinite(value)],
    "mixed": lambda values: [1, *values],
    "float32 scalars": lambda values: [np.float32(value) for value in values],
}


class Oracle:
    """The same three families, kept by prometheus_client."""

    def __init__(self) -> None:
        labels = ("service", "model", "version")
        self.registry = CollectorRegistry()
        self.confidence = Histogram("detection_confidence", "-", labels, buckets=EDGES, registry=self.registry)
        objects = FAMILIES["objects_per_frame"].edges
        self.objects = Histogram("objects_per_frame", "-", labels, buckets=objects, registry=self.registry)
        self.detections = Counter("detections_total", "-", (*labels, "class"), registry=self.registry)
        self.dropped = {"non_finite": 0, "negative": 0}

    def frame(self, values: list[float]) -> None:
        """One frame; the values that no histogram can hold are counted instead."""
        labels = ("test", "m", "")
        confidence = self.confidence.labels(*labels)
        self.objects.labels(*labels).observe(len(values))
        if values:
            self.detections.labels(*labels, "").inc(len(values))
        for value in values:
            if not math.isfinite(value):
                self.dropped["non_finite"] += 1
            elif value < 0:
                self.dropped["negative"] += 1
            else:
                confidence.observe(value)


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], Any]:
    """What a registry shows of the three families; sums as such that differ by rounding only are equal."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): (
            pytest.approx(sample.value, rel=1e-9, abs=0) if sample.name.endswith("_sum") else sample.value
        )
        for metric in registry.collect()
        if metric.name in {"detection_confidence", "objects_per_frame", "detections"}
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def dropped(recorder: Recorder) -> dict[str, float]:
    """The reasons for which observations were dropped, with their number."""
    families = {family.name: family for family in recorder.collect()}
    samples = families["infermeter_observations_dropped"].samples
    return {sample.labels["reason"]: sample.value for sample in samples if sample.value}


def agree(recorder: Recorder, calls: Iterable[Iterable[Any]]) -> None:
    """Report `calls`, each a sequence of frames, to both, and compare."""
    oracle = Oracle()
    track = recorder.track(model="m")
    for frames in calls:
        with track as call:
            for frame in frames:
                call.detections(frame)
                oracle.frame([float(value) for value in np.asarray(frame).ravel().tolist()])
    assert recorder.settings.registry is not None
    assert samples(recorder.settings.registry) == samples(oracle.registry)
    assert dropped(recorder) == {reason: count for reason, count in oracle.dropped.items() if count}


@st.composite
def frames(draw: st.DrawFn) -> Any:
    """One frame, in any container that the library takes."""
    values = draw(st.lists(anything, max_size=12))
    with np.errstate(over="ignore"):
        return CONTAINERS[draw(st.sampled_from(sorted(CONTAINERS)))](values)


@settings(max_examples=250, deadline=None)
@given(calls=st.lists(st.lists(frames(), max_size=3), max_size=6))
def test_small_frames_of_every_container_agree(new_recorder: NewRecorder, calls: list[list[Any]]) -> None:
    """Buckets, counts and sums are those of prometheus_client; what it cannot hold is counted by its reason."""
    agree(new_recorder(), calls)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.sampled_from([0, 1, 513, 1000, 2499, 2500, 2501, 6000]), min_size=1, max_size=3),
    container=st.sampled_from(["list", "tuple", "float16", "float32", "float64", "memoryview"]),
    refused=st.booleans(),
)
def test_large_frames_agree(
    new_recorder: NewRecorder, *, seed: int, sizes: list[int], container: str, refused: bool
) -> None:
    """Thousands of values in one fold take another way through the arithmetic, to the same result."""
    source = np.random.default_rng(seed)
    pool = np.array([*EXTREMES, *source.random(100), *(REFUSED if refused else [])])
    with np.errstate(over="ignore"):
        agree(new_recorder(), [[CONTAINERS[container](source.choice(pool, size).tolist())] for size in sizes])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("copies", [1, 100])
def test_every_edge_and_its_neighbours_agree(recorder: Recorder, dtype: str, copies: int) -> None:
    """A value on an edge belongs to the bucket of that edge, its upper neighbour to the next, in every precision."""
    with np.errstate(over="ignore"):
        values = np.array(EXTREMES).astype(dtype)
    neighbours = [values, np.nextafter(values, values.dtype.type(np.inf)), np.nextafter(values, values.dtype.type(0))]
    agree(recorder, [[np.concatenate(neighbours * copies)]])


def test_many_small_calls_agree(recorder: Recorder) -> None:
    """What many calls left is folded together, in floats, doubles and lists, and nothing of it is lost."""
    source = np.random.default_rng(7)
    kinds = ["list", "float32", "float64", "tuple"]
    agree(recorder, [[CONTAINERS[kinds[n % 4]](source.choice(EXTREMES, n % 40).tolist())] for n in range(900)])


def test_the_sum_of_ten_million_equal_values_does_not_drift(recorder: Recorder) -> None:
    """float32 values are summed as doubles: the average of 0.1 stays the float32 that is nearest to 0.1."""
    values = np.full(100_000, 0.1, np.float32)
    for _ in range(100):
        with recorder.track(model="m") as call:
            call.detections(values)
    recorder.fold()
    (series,) = recorder.series.values()
    histogram = series.totals.histogram("detection_confidence")
    assert histogram.count == 10_000_000
    assert histogram.total == pytest.approx(histogram.count * float(np.float32(0.1)), rel=1e-9, abs=0)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20, unique=True), st.lists(st.floats(0, 1e4), max_size=50))
@settings(max_examples=60, deadline=None)
def test_edges_of_ones_own_agree(new_recorder: NewRecorder, edges: list[float], values: list[float]) -> None:
    """Whatever edges are configured, the buckets are those of prometheus_client, for doubles and for floats."""
    edges = sorted(edges)
    for dtype in (np.float32, np.float64):
        given_values = np.array([*values, *edges]).astype(dtype)
        registry = CollectorRegistry()
        oracle = Histogram(
            "detection_confidence", "-", ("service", "model", "version"), buckets=edges, registry=registry
        )
        for value in given_values.tolist():
            oracle.labels("test", "m", "").observe(value)
        recorder = new_recorder(buckets={"detection_confidence": edges})
        with recorder.track(model="m") as call:
            call.detections(given_values)
        assert recorder.settings.registry is not None
        ours = samples(recorder.settings.registry)
        expected = samples(registry)
        assert {key: ours[key] for key in expected} == expected


def test_calls_durations_and_costs_agree(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """Every call is in the count and in the last bucket of duration and cost, and cost is duration times price."""
    cost = CostModel(usd_per_hour=3600, usd_per_kwh=0.5, watts=400, concurrency=4)
    recorder = new_recorder(cost=cost)

    @recorder.track(model="m")
    def infer() -> int:
        return sum(range(50))

    for _ in range(1000):
        infer()
    page = scrape(recorder)
    assert page.value("inferences_total") == 1000
    for family in ("inference_duration", "inference_cost"):
        assert page.value(f"{family}_count") == 1000
        assert page.value(f"{family}_bucket", le="+Inf") == 1000
    assert page.value("inference_duration_sum") > 0
    expected = page.value("inference_duration_sum") * cost.usd_per_second
    assert page.value("inference_cost_sum") == pytest.approx(expected, rel=1e-9, abs=0)
