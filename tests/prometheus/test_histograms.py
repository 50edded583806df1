"""Native histograms of a recorder, ingested by a real Prometheus that asks for protobuf."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from infermeter import Recorder
from tests.prometheus.conftest import ADDRESS, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.prometheus.conftest import Prometheus, Scrape

CLASSIC = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Twelve edges, as people have them."""


class Watched(NamedTuple):
    """Recorders, the page of each, and what was recorded in all of them."""

    targets: dict[str, str]
    pages: dict[str, str]
    seconds: np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture(scope="module")
def watched() -> Iterator[tuple[Watched, dict[str, Recorder]]]:
    """A recorder for each mode, all served; nothing is recorded yet but the zeros."""
    recorders, servers = {}, []
    for mode in ("classic", "native", "both"):
        registry = CollectorRegistry()
        Counter("orders", "Not ours.", ["kind"], registry=registry).labels("a").inc(3)
        Gauge("free", "Not ours.", registry=registry).set(0.5)
        Histogram("theirs", "Not ours.", registry=registry, buckets=(1, 2.5)).observe(2)
        recorder = Recorder(service=mode, registry=registry, histograms=mode, buckets={"inference_duration": CLASSIC})
        recorder.track(model="m")(lambda: None)
        recorders[mode] = recorder
        servers.append(recorder.serve(0, addr=ADDRESS))
    seconds = np.random.default_rng(7).lognormal(-3.0, 0.5, 4000)
    targets = {mode: f"{ADDRESS}:{server.port}" for mode, server in zip(recorders, servers, strict=True)}
    yield Watched(targets, {}, seconds), recorders
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def scrapes(
    program: str,
    watched: tuple[Watched, dict[str, Recorder]],
    connect: type[Prometheus],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Scrape]]:
    """The first scrape of each after everything was recorded, by a Prometheus that had scraped the zeros."""
    known, recorders = watched
    folder = tmp_path_factory.mktemp("native")
    jobs = {mode: (target, "{}") for mode, target in known.targets.items()}
    jobs["by-hand"] = (known.targets["both"], "{histograms: [classic]}")
    lines = [
        f"  - {{job_name: {job}, params: {params}, static_configs: [{{targets: ['{target}']}}]}}\n"
        for job, (target, params) in jobs.items()
    ]
    with (
        running(program, folder, "".join(lines), "--enable-feature=native-histograms") as address,
        ExitStack() as stack,
    ):
        clients = {job: stack.enter_context(connect(f"http://{address}", job=job)) for job in jobs}
        for client in clients.values():
            client.next_scrape()
        for recorder in recorders.values():
            track = recorder.track(model="m")
            for seconds in known.seconds.tolist():
                track.finish(track.begin(), seconds)
        yield {job: client.next_scrape() for job, client in clients.items()}


@pytest.mark.parametrize("mode", ["native", "both"])
def test_the_quantile_is_that_of_the_values(
    scrapes: dict[str, Scrape], watched: tuple[Watched, dict[str, Recorder]], mode: str
) -> None:
    """Within 5 %, where twelve classic buckets are off by more than 20 %."""
    true = float(np.quantile(watched[0].seconds, 0.95))
    native = scrapes[mode].value(f'histogram_quantile(0.95, rate(inference_duration{{job="{mode}"}}[1m]))')
    classic = scrapes["classic"].value('histogram_quantile(0.95, rate(inference_duration_bucket{job="classic"}[1m]))')

    assert native == pytest.approx(true, rel=0.05)
    assert abs(classic / true - 1) > 0.2


def test_count_sum_and_fraction_are_exact(
    scrapes: dict[str, Scrape], watched: tuple[Watched, dict[str, Recorder]]
) -> None:
    """The fraction at a bound of the buckets."""
    seconds = watched[0].seconds
    mine = 'inference_duration{job="native"}'

    assert scrapes["native"].value(f"histogram_count({mine})") == len(seconds)
    assert scrapes["native"].value(f"histogram_sum({mine})") == pytest.approx(seconds.sum())
    fraction = scrapes["native"].value(f"histogram_fraction(0, 0.0625, {mine})")
    assert fraction == pytest.approx((seconds <= 0.0625).mean())


def test_classic_buckets_stay_available(
    scrapes: dict[str, Scrape], watched: tuple[Watched, dict[str, Recorder]]
) -> None:
    """This Prometheus takes native buckets or classic ones; who needs the others scrapes `?histograms=classic` too."""
    expected = {str(edge): float((watched[0].seconds <= edge).sum()) for edge in CLASSIC} | {"+Inf": 4000}

    assert scrapes["by-hand"].by("le", 'inference_duration_bucket{job="by-hand"}') == expected
    assert scrapes["classic"].by("le", 'inference_duration_bucket{job="classic"}') == expected
    assert scrapes["native"].vector('inference_duration_bucket{job="native"}') == []
    assert scrapes["by-hand"].vector('inference_duration{job="by-hand"}') == []


def test_no_series_is_lost_with_the_text_format(
    scrapes: dict[str, Scrape], watched: tuple[Watched, dict[str, Recorder]]
) -> None:
    """Everything on the text page, ours and that of others, is stored of the protobuf page under the same name."""
    _, recorders = watched
    page = b"".join(recorders["classic"].wsgi_app()({"REQUEST_METHOD": "GET"}, lambda _status, _headers: None))
    families = text_string_to_metric_families(page.decode())
    told = {
        (sample.name, frozenset((label, text) for label, text in sample.labels.items() if text))
        for family in families
        for sample in family.samples
    }
    stored = {
        (labels.pop("__name__"), frozenset((label, text) for label, text in labels.items() if label not in OURS))
        for labels, _ in scrapes["classic"].vector('{job="classic", __name__!~"up|scrape_.*"}')
    }

    assert {name for name, _ in told} >= {"orders_total", "free", "theirs_bucket"}
    assert stored == told


OURS = {"job", "instance"}
