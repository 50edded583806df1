"""Exemplars: which trace a slow inference belongs to.

Asking OpenTelemetry for the current span costs as much as recording an inference, so only those are asked about that
are slower than a gate, which each fold sets to what the slowest took before. Without OpenTelemetry the gate is shut.
"""

import math
import sys
import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from infermeter.observation import Exemplar
from infermeter.rows import HistogramRow

# Exemplars of a series, at most.
MOST = 4
SHUT = math.inf
_TRACE = "opentelemetry.trace"


def current(seconds: float) -> Exemplar | None:
    """The exemplar of an inference of so many seconds that ends now, if a span of OpenTelemetry is recording."""
    trace = sys.modules.get(_TRACE)
    if trace is None:
        return None
    try:
        span = trace.get_current_span()
        if not span.is_recording():
            return None
        context = span.get_span_context()
        labels = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    except Exception:  # foreign code: an example is not worth an inference
        return None
    return Exemplar(seconds, time.time(), labels)


def first_gate() -> float:
    """The gate of a series that has recorded nothing."""
    return 0.0 if _TRACE in sys.modules else SHUT


def gate(durations: NDArray[np.float64]) -> float:
    """Seconds above which the next inferences are asked for their trace, after a fold of `durations`, shape (n,)."""
    if _TRACE not in sys.modules:
        return SHUT
    return float(np.partition(durations, -MOST)[-MOST]) if len(durations) > MOST else 0.0


def keep(row: HistogramRow, edges: NDArray[np.float64], found: list[Exemplar]) -> None:
    """Show the slowest of what was `found` since the last fold: one a bucket, and some of before if there is room."""
    slowest = sorted(found, key=lambda one: one.value)[-MOST:]
    places = np.searchsorted(edges, [one.value for one in slowest], side="left").tolist()
    newest = dict(zip(places, slowest, strict=True))
    older = sorted(row.exemplars.items(), key=lambda item: item[1].time, reverse=True)
    for place, one in older:
        if len(newest) < MOST:
            newest.setdefault(place, one)
    row.exemplars = newest
    row.changed()


def placed(edges: NDArray[np.float64], found: Iterable[Exemplar]) -> dict[int, Exemplar]:
    """The latest exemplars by the index of their bucket, one a bucket."""
    shown: dict[int, Exemplar] = {}
    for one in sorted(found, key=lambda one: one.time, reverse=True):
        if len(shown) < MOST:
            shown.setdefault(int(edges.searchsorted(one.value, side="left")), one)
    return shown


# In a shared row: value, time, length of the text, and the text; and after all of them the time of the latest.
_TEXT = 160  # bytes: all that is allowed in ASCII, with what separates it; longer ones are not told to other processes
_ONE = 3 + _TEXT // 8
WIDTH = MOST * _ONE + 1


def packed(found: Iterable[Exemplar]) -> NDArray[np.float64]:
    """Up to MOST exemplars as numbers, of which nothing but copies may be made."""
    numbers = np.zeros(WIDTH)
    at = 0
    for value, moment, labels in found:
        text = "\0".join([part for label in labels.items() for part in label]).encode()
        if len(text) <= _TEXT:
            numbers[at : at + 3] = value, moment, len(text)
            numbers[at + 3 : at + _ONE] = np.frombuffer(text.ljust(_TEXT, b"\0"), np.float64)
            numbers[-1] = max(numbers[-1], moment)
            at += _ONE
    return numbers


def unpacked(numbers: NDArray[np.float64]) -> list[Exemplar]:
    """What `packed` made of it, as far as it did."""
    found = []
    for at in range(0, len(numbers) - 1, _ONE):
        value, moment, length = numbers[at : at + 3].tolist()
        if length:
            parts = numbers[at + 3 : at + _ONE].tobytes()[: int(length)].decode(errors="replace").split("\0")
            found.append(Exemplar(value, moment, dict(zip(parts[::2], parts[1::2], strict=False))))
    return found
