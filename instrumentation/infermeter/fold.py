"""From records to totals: a batch of records becomes histogram counts and counters by vectorised arithmetic."""

import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermeter.arrays import number
from infermeter.catalogue import FAMILIES
from infermeter.class_names import class_name, printed
from infermeter.exemplars import gate, keep
from infermeter.guard import Guard
from infermeter.histogram import Histogram
from infermeter.observation import FLOATS, OBJECTS, STRIDE, WIDTHS, Exemplar, Facts, Frame
from infermeter.rows import HistogramRow, Row, Rows
from infermeter.series import Series, Totals

Drop = Callable[[str, BaseException | None, int], None]

Floats = NDArray[np.float64]
Values = Floats | NDArray[np.float32]

# Under what something is told that is no inference: the family, its labels, the value of its own label.
Name = tuple[str, tuple[str, ...], str]

# Tuples of up to this length get a compiled packer of their own, kept for ever: two kilobytes each at most.
_LONGEST_PACKER = 1024


class _Packers(dict[int, Callable[..., bytes]]):
    """Length to the function that packs so many numbers as float64; three times as fast as NumPy looks at them."""

    def __missing__(self, length: int) -> Callable[..., bytes]:
        pack = struct.Struct(f"{length}d").pack
        if length <= _LONGEST_PACKER:
            self[length] = pack
        return pack


PACKERS = _Packers()


def fold(series: Series, guard: Guard, drop: Drop) -> None:
    """Move every record of `series` into its totals. The caller holds the fold lock.

    Args:
        series: threads may append records to it meanwhile; those wait for the next fold.
        guard: admits class names and error types.
        drop: told the reason and number of values that were refused.
    """
    bare, full = take(series.bare), take(series.full)
    alike = [(facts, take(seconds)) for facts, seconds in list((series.alike or {}).items())]
    # After the records: a call that ends in between then counts as open for once, never as ended before it began.
    series.totals.started += len(take(series.opened))
    if bare:
        _fold_durations(series, bare, [])
    for facts, seconds in alike:
        if seconds:
            _fold_durations(series, seconds, [])
            for family, own, value in stated(facts):
                series.totals.histogram(family, own).add_checked(np.full(len(seconds), value))
    if full:
        try:
            _fold_full(series, guard, drop, full)
        except Exception as error:  # names and classes are the user's objects: one must not take a scrape with it
            drop("internal", error, len(full) // STRIDE)


def fold_notes(notes: list[tuple[*Name, float]], rows: Rows) -> None:
    """Move what was told outside inferences into rows. The caller holds the fold lock."""
    grouped: defaultdict[tuple[str, tuple[str, ...], str], list[float]] = defaultdict(list)
    for family, labels, own, value in notes:
        grouped[family, labels, own].append(value)
    for (family, labels, own), values in grouped.items():
        told(rows, rows.row(family, labels, (own,)), values, time.time())


def told(rows: Rows, row: Row, values: list[float], moment: float) -> None:
    """Add `values` to a counter or a histogram of `rows`, or set a gauge to the last of them, told at `moment`."""
    if row.family.kind == "gauge":
        row.tell(values[-1], moment)
    elif not isinstance(row, HistogramRow):
        row.add(sum(values))
    else:
        Histogram(row, rows.edges_of(row.family.name)).add_checked(np.array(values, dtype=np.float64))


def fold_requests(rows: Rows, row: Row, seconds: list[float], sizes: list[float]) -> None:
    """Count HTTP requests of one method, endpoint and status.

    Args:
        rows: those of the process.
        row: in which their number is counted; it has the labels of the others.
        seconds: how long each took.
        sizes: bytes of the body of each.
    """
    row.add(len(seconds))
    for family, values in (("http_request_duration_seconds", seconds), ("http_request_size_bytes", sizes)):
        histogram = Histogram(rows.histogram_row(family, row.labels, ()), rows.edges_of(family))
        histogram.add_checked(np.array(values, dtype=np.float64))


def take(items: list[Any]) -> list[Any]:
    """What `items` holds now, moved out from its front; another thread may append meanwhile."""
    taken = items[:]
    del items[: len(taken)]
    return taken


def _fold_durations(series: Series, seconds: list[float], facts: list[Any]) -> None:
    durations = np.array(seconds, dtype=np.float64)
    cost = series.cost
    usd = np.zeros(len(seconds))
    if cost is not None:
        for index, fact in enumerate(facts):
            if fact is not None:
                usd[index] = cost.usd_for_tokens(fact.prompt_tokens, fact.completion_tokens)
    fold_durations(series.totals, cost.usd_per_second if cost is not None else None, durations, usd)
    fold_exemplars(
        series,
        durations,
        [
            fact.exemplar._replace(value=seconds[index])
            for index, fact in enumerate(facts)
            if fact is not None and fact.exemplar is not None
        ],
    )


def fold_durations(totals: Totals, usd_per_second: float | None, seconds: Floats, usd: Floats) -> None:
    """Count inferences that took so many `seconds`, and cost `usd` besides what their time costs; both shape (n,)."""
    totals.ended += len(seconds)
    totals.add("inferences_total", len(seconds))
    totals.histogram("inference_duration").add_checked(seconds)
    if usd_per_second is not None:
        totals.histogram("inference_cost").add_checked(seconds * usd_per_second + usd)


def fold_exemplars(series: Series, seconds: Floats, given: list[Exemplar]) -> None:
    """Show the slowest of the exemplars that were `given` and found, and set the gate for the next ones."""
    series.gate = gate(seconds)
    found = take(series.exemplars) + given if series.exemplars else given
    if found:
        histogram = series.totals.histogram("inference_duration")
        keep(histogram.row, histogram.edges, found)


def _fold_full(series: Series, guard: Guard, drop: Drop, records: list[Any]) -> None:
    seconds, dtypes, confidences, class_dtypes, classes, names, facts = (
        records[slot::STRIDE] for slot in range(STRIDE)
    )
    if facts.count(None) == len(facts):
        facts = []
    _fold_durations(series, seconds, facts)
    reported: list[Facts] = [fact for fact in facts if fact is not None]
    _fold_facts(series, guard, reported)
    for frame in (frame for fact in reported for frame in fact.frames or ()):
        for column, value in zip((dtypes, confidences, class_dtypes, classes, names), frame, strict=True):
            column.append(value)
    detections = _fold_confidences(series, drop, dtypes, confidences)
    if class_dtypes.count(None) == len(class_dtypes):
        _count_classes(series, guard, {"": detections})
    else:
        frames = map(Frame, dtypes, confidences, class_dtypes, classes, names)
        _count_classes(series, guard, class_counts([frame for frame in frames if frame.dtype is not None]))


def _fold_facts(series: Series, guard: Guard, facts: list[Facts]) -> None:
    told: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for fact in facts:
        for family, own, value in stated(fact):
            told[family, guard.admit_own(family, series.labels, own)].append(value)
    for (family, own), values in told.items():
        if FAMILIES[family].kind == "counter":
            series.totals.add(family, sum(values), own)
        else:
            series.totals.histogram(family, own).add_checked(np.array(values, dtype=np.float64))


def stated(fact: Facts) -> Iterator[tuple[str, str, float]]:
    """What the facts of a call add to which family, under which value of its own label."""
    if fact.error is not None:
        yield "model_errors_total", fact.error, 1
        if fact.error == "timeout":
            yield "model_timeout_total", "", 1
    if fact.batch_size is not None:
        yield "inference_batch_size", "", fact.batch_size
    if fact.input_size is not None:
        yield "inference_input_size_bytes", "", fact.input_size
    if fact.first_item is not None:
        yield "inference_time_to_first_item_seconds", "", fact.first_item
    if fact.per_token is not None:
        yield "inference_time_per_token_seconds", "", fact.per_token
    for stage, seconds in fact.stages or ():
        yield "inference_stage_duration_seconds", stage, seconds
    if fact.prompt_tokens:
        yield "inference_tokens_total", "prompt", fact.prompt_tokens
    if fact.completion_tokens:
        yield "inference_tokens_total", "completion", fact.completion_tokens
    if fact.fallbacks:
        yield "model_fallback_total", "", fact.fallbacks


def _fold_confidences(series: Series, drop: Drop, dtypes: list[Any], payloads: list[Any]) -> int:
    """Count the detections of each frame and the confidence of each detection; gives the number of detections."""
    detections = 0
    for dtype, width in WIDTHS.items():
        number = dtypes.count(dtype)
        if number == 0:
            continue
        if number == len(dtypes):
            chosen = payloads
        else:
            chosen = [payload for kind, payload in zip(dtypes, payloads, strict=True) if kind == dtype]
        sizes = np.fromiter(map(len, chosen), np.float64, number)
        values = packed_floats(chosen, drop) if dtype == FLOATS else np.frombuffer(b"".join(chosen), dtype=dtype)
        fold_confidences(series.totals, drop, sizes / width, values)
        detections += int(sizes.sum()) // width
    return detections


def fold_confidences(totals: Totals, drop: Drop, sizes: Floats, values: Values) -> None:
    """Count the detections of frames, `sizes` of shape (m,), and their confidences, `values` of shape (n,)."""
    totals.histogram("objects_per_frame").add_checked(sizes)
    not_finite, negative = totals.histogram("detection_confidence").add(values)
    if not_finite:
        drop("non_finite", None, not_finite)
    if negative:
        drop("negative", None, negative)


def packed_floats(tuples: list[tuple[float, ...]], drop: Drop) -> Floats:
    """The numbers of `tuples` end to end."""
    try:
        joined = b"".join([PACKERS[len(numbers)](*numbers) for numbers in tuples])
    except Exception:  # a list that began with a number goes on with something else, which is the user's object
        kept: list[float] = []
        for one in chain.from_iterable(tuples):
            try:
                kept.append(number(one))
            except Exception as error:
                drop("unreadable", error, 1)
        return np.array(kept, dtype=np.float64)
    return np.frombuffer(joined, dtype=np.float64)


def class_counts(frames: list[Frame]) -> Counter[str]:
    """Detections by class name; frames that share a type and one mapping of names are counted together."""
    groups: defaultdict[tuple[str | None, int], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.class_dtype, id(frame.names)].append(frame)
    counts: Counter[str] = Counter()
    for (class_dtype, _), group in groups.items():
        for name, count in _class_counts(class_dtype, group):
            counts[name] += count
    return counts


def _count_classes(series: Series, guard: Guard, counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        if count:
            admitted = guard.admit_child("detections_total", series.labels, "class", name)
            series.totals.add("detections_total", count, admitted)


def _class_counts(class_dtype: str | None, frames: list[Frame]) -> Iterable[tuple[str, int]]:
    if class_dtype is None:
        return [("", sum(len(frame.confidences or ()) // WIDTHS[frame.dtype or "d"] for frame in frames))]
    counts: Counter[Any] = Counter()
    if class_dtype == OBJECTS:
        for frame in frames:
            try:
                counts.update(Counter(frame.classes))
            except Exception:  # what cannot be hashed is no class name, but still a detection; it is the user's object
                counts.update(map(printed, frame.classes or ()))
    else:
        joined = b"".join(frame.classes for frame in frames)  # type: ignore[misc]
        values: NDArray[Any] = np.frombuffer(joined, dtype=class_dtype)
        unique, numbers = np.unique(values, return_counts=True)
        counts.update(dict(zip(unique.tolist(), numbers.tolist(), strict=True)))
    names = frames[0].names
    return [(class_name(key, names), count) for key, count in counts.items()]
