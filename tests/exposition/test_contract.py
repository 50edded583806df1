"""The expected pages against the catalogue: all that it declares is exposed, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text

from infermeter.catalogue import FAMILIES, SERVICE_LABELS, Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric
    from prometheus_client.samples import Sample

GOLDEN = Path(__file__).parents[1] / "golden"
PAGES = sorted([*GOLDEN.glob("instrumentation-*.prom"), *GOLDEN.glob("instrumentation-*.om.txt")])
LABELS_OF_ITS_OWN = {"instrumentation-labels": {"site", "path"}, "instrumentation-serving": {"site"}}
EDGES_OF_ITS_OWN = {("instrumentation-llm", "inference_duration")}

every_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def exposed(page: Path) -> Iterator[tuple[Family, Metric]]:
    """What the catalogue declares for every family of a page, and the family; parsers cut `_total` and `_info` off."""
    parse = text if page.suffix == ".prom" else open_metrics
    for metric in parse(page.read_text()):
        names = {metric.name, f"{metric.name}_total", f"{metric.name}_info"} & FAMILIES.keys()
        assert len(names) == 1, f"{metric.name} is not declared"
        yield FAMILIES[names.pop()], metric


def labels(sample: Sample) -> set[str]:
    """The names of a sample's labels, without the edge of a bucket."""
    assert ("le" in sample.labels) == sample.name.endswith("_bucket")
    return sample.labels.keys() - {"le"}


@pytest.mark.parametrize("ending", [".prom", ".om.txt"])
def test_all_that_is_declared_is_exposed(ending: str) -> None:
    """Every family of the catalogue is on some page."""
    pages = [page for page in PAGES if page.name.endswith(ending)]

    assert {family.name for page in pages for family, _ in exposed(page)} == FAMILIES.keys()


@every_page
def test_all_that_is_exposed_is_declared(page: Path) -> None:
    """Name, type, help and labels of every family are those of the catalogue, and no family is there twice."""
    families = list(exposed(page))
    own = LABELS_OF_ITS_OWN.get(page.name.split(".")[0], set())

    assert len({family.name for family, _ in families}) == len(families)
    for family, metric in families:
        kind = "gauge" if page.suffix == ".prom" and family.kind == "info" else family.kind
        expected = {*family.labels, *own} if family.labels[:1] == SERVICE_LABELS[:1] else {*family.labels}
        assert (metric.type, metric.documentation) == (kind, family.help)
        for sample in metric.samples:
            assert (sample.name, labels(sample)) == (sample.name, expected)


@every_page
def test_every_histogram_has_the_edges_declared(page: Path) -> None:
    """In every series the buckets end at the edges of the catalogue, and at infinity."""
    for family, metric in exposed(page):
        if family.edges and (page.name.split(".")[0], family.name) not in EDGES_OF_ITS_OWN:
            series = [sample for sample in metric.samples if sample.name.endswith("_count")]
            edges = [float(sample.labels["le"]) for sample in metric.samples if "le" in sample.labels]
            assert edges == [*family.edges, float("inf")] * len(series)


@every_page
def test_nothing_has_a_time(page: Path) -> None:
    """No sample carries a timestamp, and no series tells when a counter was created."""
    samples = [sample for _, metric in exposed(page) for sample in metric.samples]

    assert [sample for sample in samples if sample.timestamp is not None or sample.name.endswith("_created")] == []


@every_page
def test_a_unit_is_stated_only_where_it_is_in_the_name(page: Path) -> None:
    """OpenMetrics forbids a `# UNIT` that is not the name's suffix, and the seed's names have none."""
    units = [line.split()[2:] for line in page.read_text().splitlines() if line.startswith("# UNIT")]

    assert all(name.endswith(f"_{unit}") for name, unit in units)
