"""A limit on label values, so that a label filled with request ids cannot take Prometheus down."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from infermeter.catalogue import ANNOUNCED_ERRORS, FAMILIES

REST = "_other"
# The error types that do not fit are counted under a value that every series announces at 0.
_REST_OF = {"error_type": "other"}
GUARDED = ("model", "version", "class", "error_type", "stage", "device", "cache", "endpoint")
DEFAULT_VALUES = 100
DEFAULT_SERIES = 1000


class Labels(NamedTuple):
    """The values of the labels that every family of a service carries."""

    service: str
    model: str
    version: str


class Guard:
    """Admits label values first come, first served; what does not fit becomes `_other` (`other` for error types).

    One table per label name serves all families, so that a model folds everywhere or nowhere. `service` never folds.

    Args:
        values: limit of distinct values per label name; a label that is missing has `DEFAULT_VALUES`.
        series: limit of series per family.
        folded: called with the label name each time a value is folded.
    """

    def __init__(self, values: Mapping[str, int], series: int, folded: Callable[[str], None]) -> None:
        self._values = values
        self._series = series
        self._folded = folded
        self._admitted: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._admitted["error_type"] = dict.fromkeys(ANNOUNCED_ERRORS)
        self._children: defaultdict[str, set[tuple[tuple[str, ...], str]]] = defaultdict(set)
        self._bases: dict[Labels, Labels] = {}

    def admit(self, label: str, value: str) -> str:
        """`value` where the table of `label` has or takes it, else the value for the rest.

        Takes no lock, so that it can run in a signal handler; threads that race for the last place may all win it.
        """
        table = self._admitted[label]
        if not value or value in table:
            return value
        value = encodable(value)
        if value in table or len(table) < self._values.get(label, DEFAULT_VALUES):
            table[value] = None
            return value
        self._folded(label)
        return _REST_OF.get(label, REST)

    def admit_base(self, service: str, model: str, version: str) -> Labels:
        """The labels of a series, folded where the values run out, and `version` where the series run out."""
        key = Labels(encodable(service), self.admit("model", model), self.admit("version", version))
        if key not in self._bases and len(self._bases) >= self._series:
            self._folded("version")
            key = key._replace(version=REST)
        return self._bases.setdefault(key, key)

    def admit_own(self, family: str, labels: tuple[str, ...], value: str) -> str:
        """`admit_child` for the own label of `family`, if that is one that is guarded."""
        label = FAMILIES[family].labels[-1]
        return self.admit_child(family, labels, label, value) if value and label in GUARDED else value

    def admit_child(self, family: str, labels: tuple[str, ...], label: str, value: str) -> str:
        """The value of `label` for one series of `family`, folded where the values or the series run out."""
        admitted = self.admit(label, value)
        if label == "error_type" and admitted in ANNOUNCED_ERRORS:
            return admitted
        children = self._children[family]
        if (labels, admitted) not in children:
            if len(children) >= self._series:
                if admitted != _REST_OF.get(label, REST):
                    self._folded(label)
                return _REST_OF.get(label, REST)
            children.add((labels, admitted))
        return admitted


def encodable(value: str) -> str:
    """`value` without lone surrogates, which no exposition format can carry."""
    return value.encode("utf-8", "replace").decode()
