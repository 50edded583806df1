"""The numbers of the table, worked out by hand."""

from __future__ import annotations

import math

import pytest

from demo.window import SECONDS, Window, counts, histogram_quantile

BUCKETS = [(0.1, 10), (0.2, 30), (0.5, 40), (math.inf, 50)]
"""10 observations up to 0.1, 20 more up to 0.2, 10 more up to 0.5 and 10 above."""


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (0.1, 0.05),  # rank 5 of the 10 between 0 and 0.1
        (0.2, 0.1),  # rank 10: the upper edge of the first bucket
        (0.5, 0.175),  # rank 25: 15 of the 20 between 0.1 and 0.2
        (0.7, 0.35),  # rank 35: 5 of the 10 between 0.2 and 0.5
        (0.8, 0.5),  # rank 40: the last finite edge
        (0.99, 0.5),  # rank 49.5 lies above all finite edges: the highest of them
    ],
)
def test_quantiles_are_interpolated_like_in_promql(q: float, expected: float) -> None:
    """Linear inside the bucket that holds the rank q x count."""
    assert histogram_quantile(q, BUCKETS) == pytest.approx(expected)


def test_the_order_of_the_buckets_does_not_matter() -> None:
    """Edges are sorted as numbers first."""
    assert histogram_quantile(0.5, reversed(BUCKETS)) == pytest.approx(0.175)


def test_empty_buckets_are_stepped_over() -> None:
    """The rank falls into the first bucket that reaches it, however many empty ones come before."""
    assert histogram_quantile(0.5, [(1, 0), (2, 0), (4, 10), (math.inf, 10)]) == pytest.approx(3)


def test_a_lowest_bucket_at_or_below_zero_is_a_point() -> None:
    """Like PromQL, which knows no lower edge for it."""
    assert histogram_quantile(0.5, [(0, 10), (1, 15), (math.inf, 15)]) == 0


@pytest.mark.parametrize("buckets", [[], [(math.inf, 5)], [(1, 5), (2, 5)], [(1, 0), (math.inf, 0)]])
def test_what_cannot_be_known_is_nan(buckets: list[tuple[float, float]]) -> None:
    """No buckets, no finite edge, no +Inf, no observations."""
    assert math.isnan(histogram_quantile(0.5, buckets))


def exposition(inferences: int, version: str = "1") -> str:
    """Return a page of metrics: each inference took under 0.1 s, found 2 objects of confidence 0.9, cost 1e-5 USD."""
    labels = f'service="s",model="m",version="{version}"'
    lines = [f"inferences_total{{{labels}}} {inferences}"]
    lines += [f'inference_duration_bucket{{{labels},le="{edge}"}} {inferences}' for edge in ("0.1", "+Inf")]
    for family, count, total in (
        ("objects_per_frame", inferences, 2 * inferences),
        ("detection_confidence", 2 * inferences, 1.8 * inferences),
        ("inference_cost", inferences, 1e-5 * inferences),
    ):
        lines += [f"{family}_count{{{labels}}} {count}", f"{family}_sum{{{labels}}} {total}"]
    return "\n".join([*lines, ""])


def test_a_row_is_what_grew_between_the_oldest_scrape_and_the_newest() -> None:
    """From 100 inferences to 150 within 10 s: 5 a second."""
    window = Window()
    window.add(0, exposition(100))
    window.add(4, exposition(110))
    window.add(10, exposition(150))

    (row,) = window.rows()

    assert (row.service, row.model) == ("s", "m")
    assert row.rate == pytest.approx(5)
    assert (row.p50, row.p95, row.p99) == pytest.approx((0.05, 0.095, 0.099))
    assert row.objects == pytest.approx(2)
    assert row.confidence == pytest.approx(0.9)
    assert row.cost == pytest.approx(0.01)


def test_scrapes_older_than_the_window_are_forgotten() -> None:
    """A burst that is over does not count for ever."""
    window = Window()
    window.add(0, exposition(0))
    window.add(5, exposition(1000))
    window.add(5 + SECONDS, exposition(1000 + int(SECONDS)))

    assert window.length == SECONDS
    assert [row.rate for row in window.rows()] == [pytest.approx(1)]


def test_a_model_that_appears_later_began_at_zero() -> None:
    """The first scrape may come before the first inference."""
    window = Window()
    window.add(0, "")
    window.add(2, exposition(10))

    assert [row.rate for row in window.rows()] == [pytest.approx(5)]


def test_an_idle_model_has_a_rate_of_zero_and_no_other_numbers() -> None:
    """Nothing was counted, so nothing is known."""
    window = Window()
    window.add(0, exposition(10))
    window.add(1, exposition(10))

    (row,) = window.rows()

    assert row.rate == 0
    assert all(map(math.isnan, (row.p50, row.p95, row.p99, row.objects, row.confidence, row.cost)))


def test_one_scrape_is_no_window() -> None:
    """A rate needs two."""
    window = Window()
    assert window.rows() == []
    window.add(0, exposition(10))
    assert window.rows() == []


def test_versions_of_a_model_are_one_row() -> None:
    """Counts are summed over every label but service and model."""
    found = counts(exposition(1, version="1") + exposition(2, version="2"))

    assert found["s", "m"]["inferences_total", 0.0] == 3
