"""What the variables of a dashboard select, and expressions over it.

An expression is absent where there was nothing to count: a model that is idle leaves a gap, never NaN. Expressions keep
to what Prometheus 2.42 understands.
"""

from __future__ import annotations

from typing import NamedTuple

STEP = "$__rate_interval"
"""The window of a line: wide enough for a rate, as narrow as the zoom allows."""
ALERTED = "5m"
"""The window of a number with a colour, and of most alerts: both judge the same."""
MODEL = "service, model"


class Selection(NamedTuple):
    """Series limited to the chosen values of some labels; each label is a variable of the same name."""

    metric: str
    """The metric whose label values there are to choose from."""
    labels: tuple[str, ...]
    """Each limits the choice of those behind it."""

    def query(self, label: str) -> str:
        """What asks Prometheus for the values of a label."""
        before = self.labels[: self.labels.index(label)]
        matchers = f"{{{', '.join(map(chosen, before))}}}" if before else ""
        return f"label_values({self.metric}{matchers}, {label})"

    def alerts(self, severity: str) -> str:
        """Alerts that fire at one severity: those of what is chosen, and those that have no such label."""
        limits = "".join(f', {label}=~"${label}|"' for label in self.labels)
        return f'ALERTS{{alertstate="firing", severity="{severity}"{limits}}}'

    def series(self, metric: str, *matchers: str) -> str:
        """The chosen series of a metric."""
        return f"{metric}{{{', '.join((*map(chosen, self.labels), *matchers))}}}"

    def rate(self, counter: str, *matchers: str, by: str = MODEL, window: str = STEP) -> str:
        """How fast a counter grows, a second."""
        return total(f"rate({self.series(counter, *matchers)}[{window}])", by)

    def ratio(self, part: str, whole: str, *matchers: str, by: str = MODEL, window: str = STEP) -> str:
        """One rate in another; the matchers limit the part."""
        return f"{self.rate(part, *matchers, by=by, window=window)} / ({self.rate(whole, by=by, window=window)} > 0)"

    def mean(self, histogram: str, by: str = MODEL, window: str = STEP) -> str:
        """The mean of what a histogram has observed in the window."""
        return self.ratio(f"{histogram}_sum", f"{histogram}_count", by=by, window=window)

    def quantile(self, q: float, histogram: str, by: str = MODEL, window: str = STEP) -> str:
        """A quantile of what a histogram has observed in the window."""
        rate = self.rate(f"{histogram}_bucket", by=f"{by}, le", window=window)
        return f"histogram_quantile({q:g}, {rate}) >= 0"


def chosen(label: str) -> str:
    """The matcher that limits a series to the chosen values of a label."""
    return f'{label}=~"${label}"'


def total(expression: str, by: str = MODEL) -> str:
    """A sum by some labels, or of all."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"
