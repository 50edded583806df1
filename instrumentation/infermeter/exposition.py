"""The families of a recorder as prometheus_client metrics."""

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.utils import floatToGoString

from infermeter.catalogue import FAMILIES, SERVICE_LABELS, Family
from infermeter.version import __version__

if TYPE_CHECKING:
    from infermeter.recorder import Recorder
    from infermeter.series import Series


def describe() -> Iterator[Metric]:
    """Every family without samples; a registry reads the names from it when it registers us."""
    for family in FAMILIES.values():
        yield _metric(family)


def expose(recorder: "Recorder") -> Iterator[Metric]:
    """Every family that has samples, in the order of the catalogue; the caller holds the fold lock."""
    # The announced ones first: what is called for the first time in between is then in both, not in neither.
    announced = recorder.announced()
    every = [*(announced | recorder.series).values()]
    constant = recorder.settings.labels
    for family in FAMILIES.values():
        metric = _metric(family)
        if family.labels[: len(SERVICE_LABELS)] == SERVICE_LABELS:
            for series in every:
                _add_series(metric, family, series, {**constant, **series.labels._asdict()})
        else:
            _add_own(metric, family, recorder)
        if metric.samples:
            yield metric


def _metric(family: Family) -> Metric:
    suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
    return Metric(family.name.removesuffix(suffix), family.help, family.kind)


def _add_series(metric: Metric, family: Family, series: "Series", labels: dict[str, str]) -> None:
    if family.kind == "gauge":
        metric.add_sample(family.name, labels, series.in_flight())
    elif family.kind == "counter":
        own = family.labels[len(SERVICE_LABELS) :]
        for (name, value), count in list(series.totals.counters.items()):  # a first call may add zeros meanwhile
            if name == family.name:
                metric.add_sample(name, labels | dict.fromkeys(own, value), count)
    else:
        histogram = series.totals.histograms.get(family.name)
        if histogram is None:
            return
        edges = [*map(floatToGoString, histogram.edges), "+Inf"]
        for edge, count in zip(edges, [*histogram.cumulative.tolist(), histogram.count], strict=True):
            metric.add_sample(family.name + "_bucket", labels | {"le": edge}, count)
        metric.add_sample(family.name + "_count", labels, histogram.count)
        metric.add_sample(family.name + "_sum", labels, histogram.total)


def _add_own(metric: Metric, family: Family, recorder: "Recorder") -> None:
    if family.name == "infermeter_build_info":
        python = platform.python_version()
        metric.add_sample(family.name, {"version": __version__, "python_version": python}, 1)
    elif family.name == "infermeter_fold_seconds":
        metric.add_sample(family.name + "_count", {}, recorder.folds)
        metric.add_sample(family.name + "_sum", {}, recorder.fold_seconds)
    else:
        counts = recorder.dropped if family.labels == ("reason",) else recorder.folded
        for value, count in sorted(counts.items()):
            metric.add_sample(family.name, {family.labels[0]: value}, count)
