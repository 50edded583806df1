"""From records to totals: a batch of records becomes histogram counts and counters by vectorised arithmetic."""

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
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
from infermeter.observation import FLOATS, OBJECTS, STRIDE, WIDTHS, Facts, Frame
from infermeter.rows import Rows
from infermeter.series import Series

Drop = Callable[[str, BaseException | None, int], None]

STAGES = "inference_stage_duration_seconds"
# What is told outside inferences: the family, its labels, the value of its own label, the number.
Note = tuple[str, tuple[str, ...], str, float]

# Tuples of up to this length get a compiled packer of their own, kept for ever: two kilobytes each at most.
_LONGEST_PACKER = 1024


class _Packers(dict[int, Callable[..., bytes]]):
    """Length to the function that packs so many numbers as float64; three times as fast as NumPy looks at them."""

    def __missing__(self, length: int) -> Callable[..., bytes]:
        pack = struct.Struct(f"{length}d").pack
        if length <= _LONGEST_PACKER:
            self[length] = pack
        return pack


_PACKERS = _Packers()


def fold(series: Series, guard: Guard, drop: Drop) -> None:
    """Move every record of `series` into its totals. The caller holds the fold lock.

    Args:
        series: threads may append records to it meanwhile; those wait for the next fold.
        guard: admits class names and error types.
        drop: told the reason and number of values that were refused.
    """
    bare, left, full = take(series.bare), take(series.left), take(series.full)
    # After the records: a call that ends in between then counts as open for once, never as ended before it began.
    series.totals.started += len(take(series.opened)) + len(left)
    bare += left
    if bare:
        _fold_durations(series, bare, [])
    if full:
        try:
            _fold_full(series, guard, drop, full)
        except Exception as error:  # names and classes are the user's objects: one must not take a scrape with it
            drop("internal", error, len(full) // STRIDE)


def fold_notes(notes: list[Note], rows: Rows) -> None:
    """Move what was told outside inferences into rows. The caller holds the fold lock."""
    grouped: defaultdict[tuple[str, tuple[str, ...], str], list[float]] = defaultdict(list)
    for family, labels, own, value in notes:
        grouped[family, labels, own].append(value)
    for (family, labels, own), values in grouped.items():
        row = rows.row(family, labels, (own,))
        kind = FAMILIES[family].kind
        if kind == "gauge":
            row.set(values[-1])
        elif kind == "counter":
            row.add(sum(values))
        else:
            Histogram(row, rows.edges_of(family)).add_checked(np.array(values, dtype=np.float64))


def take(items: list[Any]) -> list[Any]:
    """What `items` holds now, moved out from its front; another thread may append meanwhile."""
    taken = items[:]
    del items[: len(taken)]
    return taken


def _fold_durations(series: Series, seconds: list[float], facts: list[Any]) -> None:
    totals = series.totals
    durations = np.array(seconds, dtype=np.float64)
    totals.add("inferences_total", len(seconds))
    histogram = totals.histogram("inference_duration")
    histogram.add_checked(durations)
    series.gate = gate(durations)
    found = take(series.exemplars)
    found += [
        fact.exemplar._replace(value=seconds[index])
        for index, fact in enumerate(facts)
        if fact is not None and fact.exemplar is not None
    ]
    if found:
        keep(histogram.row, histogram.edges, found)
    cost = series.cost
    if cost is not None:
        usd = durations * cost.usd_per_second
        for index, fact in enumerate(facts):
            if fact is not None:
                usd[index] += fact.prompt_tokens / 1000 * cost.usd_per_1k_prompt_tokens
                usd[index] += fact.completion_tokens / 1000 * cost.usd_per_1k_completion_tokens
        totals.histogram("inference_cost").add_checked(usd)


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
        _fold_classes(series, guard, [frame for frame in frames if frame.dtype is not None])


def _fold_facts(series: Series, guard: Guard, facts: list[Facts]) -> None:
    totals = series.totals
    sizes: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for fact in facts:
        if fact.error is not None:
            kind = guard.admit_child("model_errors_total", series.labels, "error_type", fact.error)
            totals.add("model_errors_total", 1, kind)
            totals.add("model_timeout_total", fact.error == "timeout")
        if fact.batch_size is not None:
            sizes["inference_batch_size", ""].append(fact.batch_size)
        if fact.input_size is not None:
            sizes["inference_input_size_bytes", ""].append(fact.input_size)
        if fact.first_item is not None:
            sizes["inference_time_to_first_item_seconds", ""].append(fact.first_item)
        for stage, seconds in fact.stages or ():
            name = guard.admit_child(STAGES, series.labels, "stage", stage)
            sizes[STAGES, name].append(seconds)
        totals.add("inference_tokens_total", fact.prompt_tokens, "prompt")
        totals.add("inference_tokens_total", fact.completion_tokens, "completion")
        totals.add("model_fallback_total", fact.fallbacks)
    for key, values in sizes.items():
        totals.histogram(*key).add_checked(np.array(values, dtype=np.float64))


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
        series.totals.histogram("objects_per_frame").add_checked(sizes / width)
        detections += int(sizes.sum()) // width
        values = _packed(chosen, drop) if dtype == FLOATS else np.frombuffer(b"".join(chosen), dtype=dtype)
        not_finite, negative = series.totals.histogram("detection_confidence").add(values)
        if not_finite:
            drop("non_finite", None, not_finite)
        if negative:
            drop("negative", None, negative)
    return detections


def _packed(tuples: list[tuple[float, ...]], drop: Drop) -> NDArray[np.float64]:
    """The numbers of `tuples` end to end."""
    try:
        joined = b"".join([_PACKERS[len(numbers)](*numbers) for numbers in tuples])
    except Exception:  # a list that began with a number goes on with something else, which is the user's object
        kept: list[float] = []
        for one in chain.from_iterable(tuples):
            try:
                kept.append(number(one))
            except Exception as error:
                drop("unreadable", error, 1)
        return np.array(kept, dtype=np.float64)
    return np.frombuffer(joined, dtype=np.float64)


def _fold_classes(series: Series, guard: Guard, frames: list[Frame]) -> None:
    """Count detections by class name; frames that share a type and one mapping of names are counted together."""
    groups: defaultdict[tuple[str | None, int], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.class_dtype, id(frame.names)].append(frame)
    counts: Counter[str] = Counter()
    for (class_dtype, _), group in groups.items():
        for name, count in _class_counts(class_dtype, group):
            counts[name] += count
    _count_classes(series, guard, counts)


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
