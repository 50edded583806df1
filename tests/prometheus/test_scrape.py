"""What Prometheus stores of a scrape is what the page says, all of it and under the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

    from tests.prometheus.conftest import Prometheus, Scrape, Service

TEXT = "text/plain;version=0.0.4"
OPEN_METRICS = "application/openmetrics-text;version=1.0.0"
PARSERS: dict[str, Callable[[str], Iterable[Metric]]] = {TEXT: parse_text, OPEN_METRICS: parse_open_metrics}

Series: TypeAlias = tuple[str, frozenset[tuple[str, str]]]


def named(name: str, labels: dict[str, str]) -> Series:
    """What identifies a series in Prometheus, to which an empty label is none."""
    return name, frozenset((label, value) for label, value in labels.items() if value)


def served(service: Service, accept: str) -> dict[Series, float]:
    """The samples of its page in a format."""
    found = [sample for family in PARSERS[accept](service.page(accept)) for sample in family.samples]
    values = {named(sample.name, sample.labels): sample.value for sample in found}
    assert len(values) == len(found), "a sample is there twice"
    return values


def stored(scrape: Scrape) -> dict[Series, float]:
    """The samples that Prometheus took, without those and the labels that are its own."""
    values = {}
    for labels, value in scrape.vector('{job="service", __name__!~"up|scrape_.*"}'):
        assert (labels.pop("job"), labels.pop("instance")[:10]) == ("service", "127.0.0.1:")
        values[named(labels.pop("__name__"), labels)] = value
    return values


def idle(values: dict[Series, float]) -> dict[Series, float]:
    """The samples that do not change while the service does nothing: not those of Python, the process and folding."""
    changing = ("python_", "process_", "infermeter_fold_")
    return {series: value for series, value in values.items() if not series[0].startswith(changing)}


def test_every_scrape_succeeds(service: Service, prometheus: Prometheus) -> None:
    """The target is up, and Prometheus has no error to tell."""
    scrape = prometheus.next_scrape()
    (target,) = prometheus.client.get("/api/v1/targets").json()["data"]["activeTargets"]

    assert scrape.value("up") == 1
    assert (target["health"], target["lastError"], target["labels"]["instance"]) == ("up", "", service.target)


def test_every_sample_of_the_page_is_stored(service: Service, prometheus: Prometheus) -> None:
    """The same series with the same values, and as many as Prometheus says it took."""
    service.do("detect_all", frames=[[(0.5, 1)]])
    scrape = prometheus.next_scrape()
    page = served(service, TEXT)

    assert stored(scrape).keys() == page.keys()
    assert idle(stored(scrape)) == idle(page)
    assert scrape.value("scrape_samples_post_metric_relabeling") == len(page)


def test_openmetrics_and_text_are_the_same_series(service: Service) -> None:
    """Whichever format a scraper asks for, it stores the same; Prometheus asks for OpenMetrics."""
    page, other = served(service, OPEN_METRICS), served(service, TEXT)

    assert service.page(OPEN_METRICS).endswith("# EOF\n")
    assert page.keys() == other.keys()
    assert idle(page) == idle(other)


def test_the_service_label_arrives_as_service(prometheus: Prometheus) -> None:
    """Nothing of the target displaces it, which would empty every join."""
    scrape = prometheus.next_scrape()

    assert scrape.by("service", 'count by (service) ({model!=""})').keys() == {"prometheus-test"}
    assert scrape.vector('{exported_service!=""}') == []
