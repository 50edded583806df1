"""What inferences draw: joules and watts, from the page of a GPU exporter.

The counter of joules tells exactly what was drawn between two of its changes, however seldom the exporter reads the
device; a power that is asked for again and again only tells what was drawn at those moments. So the counter comes
first, where the page has one.
"""

from __future__ import annotations

import threading
import urllib.request
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.models.cases import CannotRun, Mistake, sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

JOULES, WATTS = "nvidia_gpu_energy_joules_total", "nvidia_gpu_power_draw"
PERIOD = 0.1
"""Seconds between two looks at the page."""
CHANGES = 2
"""Changes of the counter that are needed: the first one only tells when to begin."""


class Look(NamedTuple):
    """What the page showed at a moment, in seconds of `perf_counter`; None for what it has not."""

    moment: float
    joules: float | None
    watts: float | None


class Energy(Protocol):
    """Where watts come from."""

    def watts(self, work: Callable[[], object]) -> float | None:
        """Mean watts while `work` was done; None where nothing measures them, `CannotRun` where that failed."""


class Unmeasured:
    """Nothing measures energy: it is unknown, not 0."""

    def watts(self, work: Callable[[], object]) -> float | None:  # noqa: ARG002
        """None, and the work is not done."""
        return None


class GpuPage:
    """A page in Prometheus' text format with `nvidia_gpu_energy_joules_total` or `nvidia_gpu_power_draw`.

    Args:
        url: of the page, http or https.
        gpus: the values of the label `gpu` that count; empty for all.

    Raises:
        Mistake: no answer, or a page with neither metric of these GPUs.
    """

    def __init__(self, url: str, gpus: Sequence[str] = ()) -> None:
        if not url.startswith(("http://", "https://")):
            raise Mistake(f"--gpu-metrics {url!r} is no address that begins with http:// or https://")
        self._url, self._gpus = url, frozenset(gpus)
        try:
            look = self._look()
        except (OSError, ValueError) as error:
            raise Mistake(f"{url}, the page of the GPU exporter, cannot be read: {sentence(error)}") from None
        if look.joules is None and look.watts is None:
            whose = f" of gpu {', '.join(sorted(gpus))}" if gpus else ""
            raise Mistake(f"{url} has neither {JOULES} nor {WATTS}{whose}")

    def watts(self, work: Callable[[], object]) -> float | None:
        """Mean watts of the GPUs while the work was done, idle power included.

        Raises:
            CannotRun: the page could not be read, or too little changed on it in that time.
            Exception: what the work raised.
        """
        looks: list[Look] = []
        failures: list[Exception] = []
        stop = threading.Event()

        def watch() -> None:
            while not failures:
                try:
                    looks.append(self._look())
                except (OSError, ValueError) as error:
                    failures.append(error)
                if stop.wait(PERIOD):
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            work()
        finally:
            stop.set()
            watcher.join()
        if failures:
            raise CannotRun(f"the page of the GPU exporter could not be read: {sentence(failures[0])}")
        return mean_watts(looks)

    def _look(self) -> Look:
        with urllib.request.urlopen(self._url, timeout=10) as answer:  # noqa: S310 - http or https, see above
            page = answer.read().decode()
        found: dict[str, list[float]] = {JOULES: [], WATTS: []}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name in found and (not self._gpus or sample.labels.get("gpu") in self._gpus):
                    found[sample.name].append(sample.value)
        joules, watts = (sum(values) if values else None for values in found.values())
        return Look(perf_counter(), joules, watts)


def mean_watts(looks: Sequence[Look]) -> float:
    """Watts between the first and the last change of the counter; without a counter the mean power over time.

    Raises:
        CannotRun: fewer than two changes of the counter, or fewer than two looks.
    """
    counted = [(look.moment, look.joules) for look in looks if look.joules is not None]
    if counted:
        changes = [later for earlier, later in pairwise(counted) if later[1] != earlier[1]]
        if len(changes) < CHANGES:
            raise CannotRun(f"{JOULES} changed less than {CHANGES} times: give --energy-seconds more")
        (began, first), (ended, last) = changes[0], changes[-1]
        if last < first:
            raise CannotRun(f"{JOULES} fell: the exporter was started anew")
        return (last - first) / (ended - began)
    drawn = [(look.moment, look.watts) for look in looks if look.watts is not None]
    if len(drawn) < CHANGES:
        raise CannotRun(f"{WATTS} was seen less than {CHANGES} times: give --energy-seconds more")
    joules = sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(drawn))
    return joules / (drawn[-1][0] - drawn[0][0])
