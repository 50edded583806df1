"""A service that crashes and comes back: its counters begin again, and what Prometheus computes from them is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.prometheus.conftest import Prometheus, Service


def test_rates_survive_a_restart(service: Service, prometheus: Prometheus) -> None:
    """10 inferences, a crash in the middle of a call, 5 more: the increase is 15, and nothing is ever negative."""
    service.do("record", model="restarted", durations=[0.5] * 10)
    service.do("hold")
    before = prometheus.next_scrape()
    service.crash()
    service.restart()
    again = prometheus.next_scrape()
    service.do("record", model="restarted", durations=[0.5] * 5)
    after = prometheus.next_scrape()

    scrapes = (before, again, after)
    assert [scrape.value('inferences_total{model="restarted"}') for scrape in scrapes] == [10, 0, 5]
    assert [scrape.value('inferences_in_flight{model="held"}') for scrape in scrapes] == [1, 0, 0]
    for counter in ("inferences_total", "inference_duration_count"):
        assert after.value(f'increase({counter}{{model="restarted"}}[1m])') == pytest.approx(15)
    assert after.value('rate(inference_duration_sum{model="restarted"}[1m])') == pytest.approx(15 * 0.5 / 60)
    assert after.vector('max_over_time(count({job="service"} < 0)[1m:1s])') == []
