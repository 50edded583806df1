"""The families of a ledger as prometheus_client metrics."""

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.utils import floatToGoString

from infermeter.catalogue import CACHE_LABELS, FAMILIES, SERVICE_LABELS, Family
from infermeter.guard import encodable
from infermeter.version import __version__

if TYPE_CHECKING:
    from infermeter.histogram import Histogram
    from infermeter.ledger import Ledger
    from infermeter.series import Series


def describe() -> Iterator[Metric]:
    """Every family without samples; a registry reads the names from it when it registers us."""
    for family in FAMILIES.values():
        yield _metric(family)


def expose(ledger: "Ledger") -> Iterator[Metric]:
    """Every family that has samples, in the order of the catalogue; the caller holds the fold lock."""
    # The announced ones first: what is called for the first time in between is then in both, not in neither.
    announced = ledger.announced()
    every = [*(announced | ledger.series).values()]
    constant = ledger.settings.labels
    for family in FAMILIES.values():
        metric = _metric(family)
        if family.labels[: len(SERVICE_LABELS)] == SERVICE_LABELS:
            for series in every:
                _add_series(metric, family, series, {**constant, **series.labels._asdict()})
        elif family.labels == CACHE_LABELS:
            for (name, cache), count in sorted(ledger.caches.items()):
                if name == family.name:
                    metric.add_sample(name, {**constant, "service": encodable(ledger.service()), "cache": cache}, count)
        else:
            _add_own(metric, family, ledger)
        if metric.samples:
            yield metric


def _metric(family: Family) -> Metric:
    suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
    return Metric(family.name.removesuffix(suffix), family.help, family.kind)


def _add_series(metric: Metric, family: Family, series: "Series", labels: dict[str, str]) -> None:
    own = family.labels[len(SERVICE_LABELS) :]
    totals = series.totals
    if family.kind == "histogram":
        for (name, value), histogram in list(totals.histograms.items()):  # a first call may add some meanwhile
            if name == family.name:
                _add_histogram(metric, family, histogram, labels | dict.fromkeys(own, value))
    elif family.name == "inferences_in_flight":
        if series.infers:
            metric.add_sample(family.name, labels, series.in_flight())
    elif family.name == "model_queue_length":
        if series.queues:
            metric.add_sample(family.name, labels, sum(len(queue.waiting) for queue in list(series.queues)))
    elif family.name == "model_info":
        if totals.info is not None:
            metric.add_sample(family.name, labels | dict(zip(own, totals.info, strict=True)), 1)
    else:
        for (name, value), number in [*totals.counters.items(), *totals.gauges.items()]:
            if name == family.name:
                metric.add_sample(name, labels | dict.fromkeys(own, value), number)


def _add_histogram(metric: Metric, family: Family, histogram: "Histogram", labels: dict[str, str]) -> None:
    edges = [*map(floatToGoString, histogram.edges), "+Inf"]
    for edge, count in zip(edges, [*histogram.cumulative.tolist(), histogram.count], strict=True):
        metric.add_sample(family.name + "_bucket", labels | {"le": edge}, count)
    metric.add_sample(family.name + "_count", labels, histogram.count)
    metric.add_sample(family.name + "_sum", labels, histogram.total)


def _add_own(metric: Metric, family: Family, ledger: "Ledger") -> None:
    if family.name == "infermeter_build_info":
        python = platform.python_version()
        metric.add_sample(family.name, {"version": __version__, "python_version": python}, 1)
    elif family.name == "infermeter_fold_seconds":
        metric.add_sample(family.name + "_count", {}, ledger.folds)
        metric.add_sample(family.name + "_sum", {}, ledger.fold_seconds)
    else:
        counts = ledger.dropped if family.labels == ("reason",) else ledger.folded
        for value, count in sorted(counts.items()):
            metric.add_sample(family.name, {family.labels[0]: value}, count)
