"""A page of metrics, as Prometheus reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from infermeter import Recorder


class Page:
    """One scrape, parsed back from the text that Prometheus gets."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self.samples = [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of `name` that have `labels`; there must be one."""
        found = [value for other, own, value in self.samples if other == name and labels.items() <= own.items()]
        assert found, f"no sample of {name} with {labels}"
        return sum(found)

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The samples of `name` that have `labels`, by the value of `label`."""
        return {
            own[label]: value for other, own, value in self.samples if other == name and labels.items() <= own.items()
        }

    def dropped(self) -> dict[str, float]:
        """The reasons for which observations were dropped, with their number."""
        reasons = self.by("reason", "infermeter_observations_dropped_total")
        return {reason: number for reason, number in reasons.items() if number}

    @classmethod
    def of(cls, recorder: Recorder) -> Page:
        """The page that Prometheus would get of the registry of `recorder`."""
        assert recorder.settings.registry is not None
        return cls(generate_latest(recorder.settings.registry).decode())

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {name for name, _, _ in self.samples}
