"""The families of a ledger as prometheus_client metrics, for pages that others make."""

from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import Exemplar
from prometheus_client.utils import floatToGoString

from infermeter.catalogue import FAMILIES, Family
from infermeter.rows import HistogramRow, Row, Rows, labels_of


def describe() -> Iterator[Metric]:
    """Every family without samples; a registry reads the names from it when it registers us."""
    for family in FAMILIES.values():
        yield _metric(family)


def expose(rows: Rows, constant: Mapping[str, str]) -> Iterator[Metric]:
    """Every family that has rows, in the order of the catalogue; the caller holds the fold lock.

    Args:
        rows: whose rows.
        constant: labels that every family of a service carries besides its own.
    """
    for name, family in FAMILIES.items():
        metric = _metric(family)
        for row in rows.of(name):
            _add(metric, row, labels_of(row, constant), rows.edges.get(name, ()))
        if metric.samples:
            yield metric


def _metric(family: Family) -> Metric:
    suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
    return Metric(family.name.removesuffix(suffix), family.help, family.kind)


def _add(metric: Metric, row: Row, labels: dict[str, str], edges: tuple[float, ...]) -> None:
    name = row.family.name
    values = row.values.tolist()
    if row.family.kind == "histogram":
        exemplars = row.exemplars if isinstance(row, HistogramRow) else {}
        for place, edge in enumerate([*map(floatToGoString, edges), "+Inf"]):
            example = exemplars.get(place)
            exemplar = Exemplar(example.labels, example.value, example.time) if example is not None else None
            metric.add_sample(name + "_bucket", labels | {"le": edge}, values[place], exemplar=exemplar)
    if row.family.kind in {"histogram", "summary"}:
        metric.add_sample(name + "_count", labels, values[-2])
        metric.add_sample(name + "_sum", labels, values[-1])
    else:
        metric.add_sample(name, labels, values[0])
