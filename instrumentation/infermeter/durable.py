"""Records that outlive their process: appended to the ring of a segment instead of a list.

Names are resolved and facts packed on the calling path. Where the ring takes no record (it is full while another thread
folds, or a signal handler interrupted an append) it waits in the list of the series as it would without a segment.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from infermeter.fold import PACKERS, Drop, class_counts, fold_confidences, packed_floats, stated
from infermeter.guard import Guard
from infermeter.observation import FLOATS, WIDTHS, Facts, Frame
from infermeter.payload import ANSWERED, BARE, FLOATS32, FLOATS64, PACKED, SIZE, Packed, tag
from infermeter.ring import Append
from infermeter.rows import Rows
from infermeter.series import Series, Totals

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Namer:
    """Packs inferences of one series.

    Args:
        series: whose inferences.
        rows: those of the process.
        guard: admits class names, error types and stages.
        drop: told the reason and number of values that were refused.
    """

    def __init__(self, series: Series, rows: Rows, guard: Guard, drop: Drop) -> None:
        self._series = series
        self._rows = rows
        self._guard = guard
        self._drop = drop

    def shown(self) -> bool:
        """Make what one frame without classes is counted in; whether that is what it should be counted in."""
        self._series.announce_detections()
        admitted = self._guard.admit_child("detections_total", self._series.labels, "class", "")
        self._series.totals.row("detections_total", admitted)
        return admitted == ""

    def packed(self, frame: Frame, facts: Facts | None) -> Packed:
        """What was reported of an inference: its first frame, if it has one, and the rest."""
        frames = [frame] if frame.dtype is not None else []
        told: list[tuple[int, float]] = []
        usd, exemplar = 0.0, None
        if facts is not None:
            frames += facts.frames or ()
            usd, exemplar = self._usd(facts), facts.exemplar
            for family, own, value in stated(facts):
                self._add(told, family, own, value)
        if not frames:
            return Packed(usd, told, exemplar=exemplar)
        for name, count in class_counts(frames).items():
            if count:
                self._add(told, "detections_total", name, count)
        self._series.announce_detections()
        sizes = [len(frame.confidences or ()) // WIDTHS[frame.dtype or "d"] for frame in frames]
        arrays = [self._array(frame) for frame in frames]
        if all(array.dtype == np.float32 for array in arrays):
            return Packed(usd, told, sizes, "f", b"".join([array.tobytes() for array in arrays]), exemplar=exemplar)
        doubles = b"".join([array.astype(np.float64).tobytes() for array in arrays])
        return Packed(usd, told, sizes, "d", doubles, exemplar=exemplar)

    def counted(self, packed: Packed) -> Packed:
        """The same, with its frames as what they add to the histograms: as long for a million detections as for one."""
        scratch = Rows(self._rows.edges, self._rows.modes, self._rows.buckets)
        totals = Totals(self._series.labels, scratch)
        fold_confidences(
            totals,
            self._drop,
            np.array(packed.sizes, np.float64),
            np.frombuffer(packed.confidences, packed.dtype),
        )
        wholes = []
        for family in ("detection_confidence", "objects_per_frame"):
            number = self._number(family, "")
            if number is not None:
                wholes.append((number, totals.row(family).whole()))
        return packed._replace(sizes=[], confidences=b"", wholes=wholes)

    def _usd(self, facts: Facts) -> float:
        cost = self._series.cost
        return cost.usd_for_tokens(facts.prompt_tokens, facts.completion_tokens) if cost is not None else 0.0

    def _array(self, frame: Frame) -> "NDArray[Any]":
        if frame.dtype == FLOATS:
            return packed_floats([frame.confidences], self._drop)  # type: ignore[list-item]
        return np.frombuffer(frame.confidences or b"", frame.dtype)  # type: ignore[arg-type]

    def _add(self, told: list[tuple[int, float]], family: str, own: str, value: float) -> None:
        if family == "detections_total":
            own = self._guard.admit_child(family, self._series.labels, "class", own)
        else:
            own = self._guard.admit_own(family, self._series.labels, own)
        number = self._number(family, own)
        if number is not None:
            told.append((number, value))

    def _number(self, family: str, own: str) -> int | None:
        shared = self._rows.row(family, self._series.labels, (own,)).shared
        if shared is None:
            self._drop("no_room", None, 1)
            return None
        return shared.number


def record_in(
    series: Series,
    number: int,
    append: Append,
    make_room: Callable[[], object],
    namer: Namer,
    longest: int,
    astray: list[None],
) -> None:
    """Have `series` record in a ring from now on.

    Args:
        series: whose inferences.
        number: of the shared row that tells whose they are.
        append: to the ring.
        make_room: has what waits in the ring folded.
        namer: packs those that reported more than one frame.
        longest: bytes that one payload may have.
        astray: has an item for each record of the process that waits elsewhere, of a signal handler for example; what
            was interrupted has it folded in the end.
    """
    bare, floats32, floats64, other = (tag(number, kind) for kind in (BARE, FLOATS32, FLOATS64, PACKED))
    keep_bare, keep_full = series.bare.append, series.full.extend
    simple: bool | None = None
    # Inferences of the same batch and input size share their facts, which are packed once then.
    last: Facts | None = None
    repeated = b""

    def record_bare(seconds: float) -> None:
        if append(bare, seconds, b""):
            if astray:
                make_room()
            return
        make_room()
        if not append(bare, seconds, b""):
            keep_bare(seconds)
            astray.append(None)

    def record_full(record: Iterable[Any]) -> None:
        nonlocal last, repeated
        seconds, dtype, confidences, class_dtype, classes, names, facts = record
        try:
            # What most models report, first.
            if facts is last and dtype is None and facts is not None:
                kind, payload = other, repeated
            elif simple and facts is None and class_dtype is None and dtype is not None:
                kind = floats32 if dtype == "f" else floats64
                payload = PACKERS[len(confidences)](*confidences) if dtype is FLOATS else confidences
                if len(payload) > longest:
                    kind, payload = other, packed(Frame(dtype, confidences, None, None, None), None)
            else:
                kind, payload = other, packed(Frame(dtype, confidences, class_dtype, classes, names), facts)
                if dtype is None:
                    last, repeated = facts, payload
        except Exception:  # the names are the user's objects, or a row is in the making: the next fold sees to it
            keep_full(record)
            astray.append(None)
            return
        if append(kind, seconds, payload):
            if astray:
                make_room()
            return
        make_room()
        if not append(kind, seconds, payload):
            keep_full(record)
            astray.append(None)

    def packed(frame: Frame, facts: Facts | None) -> bytes:
        nonlocal simple
        if simple is None and frame.confidences and frame.classes is None:
            simple = namer.shown()
        found = namer.packed(frame, facts)
        if len(found.confidences) + 4 * len(found.sizes) > longest:
            found = namer.counted(found)
        return found.packed()

    series.record_bare, series.record_full = record_bare, record_full


def answers_in(
    pairs: list[float], number: int, append: Append, make_room: Callable[[], object], astray: list[None]
) -> Callable[[float, float], None]:
    """What takes the seconds and the bytes of an HTTP request, and records it in a ring.

    Args:
        pairs: where those wait, in turns, that the ring does not take.
        number: of the shared row in which they are counted.
        append: to the ring.
        make_room: has what waits in the ring folded.
        astray: as of `record_in`.
    """
    tagged, packed = tag(number, ANSWERED), SIZE.pack

    def record(seconds: float, size: float) -> None:
        payload = packed(size)
        if append(tagged, seconds, payload):
            if astray:
                make_room()
            return
        make_room()
        if not append(tagged, seconds, payload):
            pairs.extend((seconds, size))
            astray.append(None)

    return record
