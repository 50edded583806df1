"""Native histograms of a real Prometheus are compared bucket by bucket, without a bound that anybody chose."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infermeter import Recorder
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.evaluation import Comparison, Key, evaluated
from infermeter_exporters.drift.prometheus import Access, Family, Prometheus
from infermeter_exporters.drift.psi import psi
from tests.prometheus.conftest import ask, running

if TYPE_CHECKING:
    from pathlib import Path

    from infermeter_exporters.drift.layout import Histogram

pytestmark = pytest.mark.alone
KEY = Key("vision", "yolo", "detection_confidence")


def test_native_histograms(program: str, tmp_path: Path) -> None:
    """Of two scrapes the difference is what was observed between them, in buckets that both times have."""
    recorder = Recorder(service="vision", registry=CollectorRegistry(), histograms="native")
    track = recorder.track(model="yolo")
    chance = np.random.default_rng(6)

    def observe(values: np.ndarray) -> None:
        call = track.begin()
        call.detections(values)
        track.finish(call, 0.001)

    server = recorder.serve(0)
    jobs = f"  - {{job_name: vision, static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]}}\n"
    family = Family("detection_confidence", kind="native", match='job="vision"')
    try:
        observe(np.array([0.5]))  # the first value of a series is no increase
        with running(program, tmp_path, jobs, "--enable-feature=native-histograms") as address:
            source = Prometheus("prometheus", Access(f"http://{address}"), [family], ())
            with closing(source), httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
                found = []
                for values in (chance.beta(8, 2, 4000), chance.beta(5, 3, 4000)):
                    begin = scraped(client)
                    observe(values)
                    end = scraped(client)
                    found.append((source.counted(begin - 0.5, end)[KEY], values))
        reference, current = (histogram for histogram, _ in found)
        (finding,) = evaluated([Comparison(KEY, "previous", reference, current)], Gates())
        for histogram, values in found:
            assert shares(histogram) == pytest.approx(of_values(histogram, values), abs=2e-3)
        edges = np.quantile(found[0][1], np.arange(1, 10) / 10)
        counts = [np.bincount(np.searchsorted(edges, values), minlength=10) for _, values in found]
        assert finding.status == "ok"
        assert finding.statistics["psi"] == pytest.approx(float(psi(counts[0], counts[1])), rel=0.25)
    finally:
        server.close()


def scraped(client: httpx.Client) -> float:
    """The moment of a scrape that begins after now."""
    now = time.time()
    while True:
        for series in ask(client, 'up{job="vision"}[1m]'):
            for moment, _ in series["values"]:
                if moment > now:
                    return float(moment)
        time.sleep(0.05)


def shares(histogram: Histogram) -> list[float]:
    """What part is at most each edge."""
    found: list[float] = (np.cumsum(histogram.counts[: histogram.layout.bins]) / histogram.samples).tolist()
    return found


def of_values(histogram: Histogram, values: np.ndarray) -> list[float]:
    """The same of values."""
    return [float((values <= edge).mean()) for edge in (*histogram.layout.edges, np.inf)]
