"""A real Prometheus that takes native histograms, and what it makes of our messages."""

from __future__ import annotations

import http.server
import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Metric, Summary, core
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from infermeter import protobuf
from infermeter.buckets import DURATION_SECONDS
from infermeter.native import Native, merge, width
from infermeter.negotiation import CONTENT_TYPES, negotiate
from tests.prometheus.conftest import ADDRESS, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.prometheus.conftest import Prometheus, Scrape

RATE = 'rate(taken{process="merged"}[1m])'
"""Of durations that are around 60 ms, and have a long tail."""


class Foreign:
    """A collector of families that somebody made by hand."""

    def collect(self) -> Iterator[Metric]:
        yield core.HistogramMetricFamily("by_hand", "edges spelt by hand", [("1", 1), ("2.50", 2), ("+Inf", 3)], 4.5)
        yield core.HistogramMetricFamily("canonical", "edges as Prometheus spells them", [("0.5", 1), ("+Inf", 3)], 4.5)
        yield core.HistogramMetricFamily("no_sum", "values below zero", [("-1.0", 1), ("+Inf", 3)], -4.5)
        yield core.GaugeHistogramMetricFamily("waiting", "ages of what waits", [("1.0", 1), ("+Inf", 3)], 7.5)
        quantiles = core.SummaryMetricFamily("quantiles", "-", 2, 3)
        for quantile, value in (("0.5", 1.0), ("0.99", math.nan), ("1.0", 1e300)):
            quantiles.add_sample("quantiles", {"quantile": quantile}, value)
        yield quantiles


def foreign_registry() -> CollectorRegistry:
    """One family of each kind, by prometheus_client and by hand."""
    registry = CollectorRegistry()
    Counter("jobs", "jobs", ["kind"], registry=registry).labels("a").inc(2.5)
    Gauge("depth", 'with "quotes", a \\ and\na new line', ["label"], registry=registry).labels('"\\\n\u00fc').set(-3)
    Gauge("nothing", "not a number", registry=registry).set(math.nan)
    edges = [1e-9, 0.0001, 0.25, 1, 100000, 1e6, 12345678.5, 1e22]
    histogram = Histogram("seconds", "-", ["model"], registry=registry, buckets=edges)
    for value in (0.5, 3, 2e6, 1e30):
        histogram.labels("m").observe(value)
    Histogram("idle", "never observed", registry=registry)
    Summary("size", "-", registry=registry).observe(7)
    Info("build", "-", registry=registry).info({"version": "1", "empty": ""})
    Enum("state", "-", states=["on", "off"], registry=registry).state("off")
    registry.register(Foreign())
    return registry


class Page:
    """What is served: our messages to those who like them best, else a page of text.

    Attributes:
        values: all that has been recorded.
    """

    def __init__(self) -> None:
        self.foreign = foreign_registry()
        self.values = np.zeros(0)
        self._processes = [np.zeros(width()), np.zeros(width())]

    def record(self, values: Any) -> None:
        """Spread over two processes."""
        self.values = np.concatenate((self.values, values))
        for number, view in enumerate(self._processes):
            Native(view).add(values[number::2])

    def messages(self) -> bytes:
        """Native histograms, a classic one, and the foreign registry."""
        series = []
        for process, view in zip(("0", "1", "merged"), [*self._processes, merge(self._processes)], strict=True):
            native = Native(view)
            labels = protobuf.labels({"process": process})
            series.append(protobuf.histogram(labels, native.count, native.total, sparse=native.sparse()))
        count, total = len(self.values), float(self.values.sum())
        cumulative = np.sort(self.values).searchsorted(DURATION_SECONDS, side="right").tolist()
        classic = protobuf.histogram(b"", count, total, edges=DURATION_SECONDS, cumulative=cumulative)
        families = [
            protobuf.family("taken", "-", "histogram", series),
            protobuf.family("classic", "-", "histogram", [classic]),
            protobuf.family("empty", "no series", "gauge", []),
        ]
        return b"".join((*families, *map(protobuf.convert, self.foreign.collect())))


@contextmanager
def served(page: Page) -> Iterator[str]:
    """Serve the page, and give host and port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = negotiate(self.headers["Accept"])
            body = page.messages() if asked == "protobuf" else generate_latest(page.foreign)
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPES[asked if asked == "protobuf" else "text"])
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((ADDRESS, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{ADDRESS}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def page() -> Page:
    """The page that is scraped."""
    return Page()


@pytest.fixture(scope="module")
def native(
    program: str, page: Page, connect: type[Prometheus], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus with native histograms switched on that has scraped the page once."""
    folder = tmp_path_factory.mktemp("native")
    with served(page) as target:
        jobs = f"  - {{job_name: page, static_configs: [{{targets: ['{target}']}}]}}\n"
        with (
            running(program, folder, jobs, "--enable-feature=native-histograms") as address,
            connect(f"http://{address}", job="page") as found,
        ):
            found.next_scrape()
            yield found


@pytest.fixture(scope="module")
def recorded(page: Page, native: Prometheus) -> Scrape:
    """The scrape after durations have been recorded, some of them 0; the one before has seen none."""
    durations = np.random.default_rng(7).lognormal(math.log(0.04), 0.35, 20_000)
    page.record(np.concatenate((durations, np.zeros(40))))
    return native.next_scrape()


def test_a_quantile_is_right(page: Page, recorded: Scrape) -> None:
    """Within 5 % of that of the recorded values, where the classic buckets of durations are off by more than 10 %."""
    for quantile in (0.5, 0.95, 0.99):
        truth = np.quantile(page.values, quantile)
        assert recorded.value(f"histogram_quantile({quantile}, {RATE})") == pytest.approx(truth, rel=0.05)
    truth = np.quantile(page.values, 0.95)
    classic = recorded.value("histogram_quantile(0.95, rate(classic_bucket[1m]))")
    assert abs(classic / truth - 1) > 0.1


def test_count_sum_and_fractions_are_right(page: Page, recorded: Scrape) -> None:
    """Exactly, for a fraction that ends at a bound."""
    values = page.values
    assert recorded.value('histogram_count(taken{process="merged"})') == len(values)
    assert recorded.value('histogram_sum(taken{process="merged"})') == pytest.approx(values.sum(), rel=1e-9)
    for upper in (2.0**-128, 2.0**-5, 2.0**-4.5, 0.125):
        fraction = recorded.value(f"histogram_fraction(-1, {upper!r}, {RATE})")
        assert fraction == pytest.approx(np.mean(values <= upper), rel=1e-6)


def test_merged_here_is_added_up_there(recorded: Scrape) -> None:
    """What we merge of two processes is what Prometheus makes of their sum."""
    parts = 'sum(rate(taken{process!="merged"}[1m]))'
    for quantile in (0.1, 0.5, 0.9, 0.999):
        ours = recorded.value(f"histogram_quantile({quantile}, {RATE})")
        assert recorded.value(f"histogram_quantile({quantile}, {parts})") == pytest.approx(ours, rel=1e-9)


def test_a_wide_range_of_values_is_still_taken(page: Page, native: Prometheus, recorded: Scrape) -> None:
    """A resolution that falls while it is scraped neither ends the scrapes nor loses a value."""
    page.record(10.0 ** np.arange(-30.0, 30.0))
    scrape = native.next_scrape()

    assert scrape.value("up") == 1
    assert scrape.value('histogram_count(taken{process="merged"})') == len(page.values)


def test_a_foreign_registry_is_stored_as_from_its_page_of_text(page: Page, native: Prometheus) -> None:
    """Every series of the page, under the same name and labels, with the same value, and none besides."""
    families = text_string_to_metric_families(generate_latest(page.foreign).decode())
    samples = [sample for family in families for sample in family.samples]
    expected = {named(sample.name, sample.labels): repr(float(sample.value)) for sample in samples}
    found = {}
    for labels, value in native.next_scrape().vector('{job="page", __name__!~"up|scrape_.*|taken|classic_.*"}'):
        name, own = labels["__name__"], labels.keys() - {"__name__", "job", "instance"}
        found[named(name, {label: labels[label] for label in own})] = repr(value)

    assert found == expected


def named(name: str, labels: dict[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    """What identifies a series in Prometheus, to which an empty label is none."""
    return name, frozenset((label, value) for label, value in labels.items() if value)
