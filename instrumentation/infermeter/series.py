"""One series: what waits to be folded, what is open, and the totals so far, of one service, model and version."""

from time import time
from types import FrameType
from typing import Any

from infermeter.call import LOCAL_STARTED, Call
from infermeter.catalogue import ANNOUNCED_ERRORS, TOKEN_TYPES
from infermeter.cost import CostModel
from infermeter.exemplars import current, first_gate
from infermeter.guard import Labels
from infermeter.histogram import Histogram
from infermeter.observation import NO_FRAME, Exemplar, Facts
from infermeter.rows import Row, Rows

LOCAL_TRACK = "_infermeter_track"


class Totals:
    """What has been counted: the rows of a series, by family and the value of its own label ("" where it has none).

    Attributes:
        started: calls of plain functions that began, and calls of everything else that ended.
        ended: calls that ended.
    """

    __slots__ = ("_info", "_labels", "_store", "ended", "started")

    def __init__(self, labels: Labels, rows: Rows) -> None:
        self._labels = labels
        self._store = rows
        self._info: Row | None = None
        self.started = self.ended = 0

    def row(self, family: str, own: str = "") -> Row:
        """The row of a family, made at first use."""
        return self._store.row(family, self._labels, (own,))

    def add(self, family: str, number: float, own: str = "") -> None:
        """Count `number` more."""
        self.row(family, own).add(number)

    def value(self, family: str, own: str = "") -> float:
        """What has been counted, or the latest value of a gauge."""
        return float(self.row(family, own).values[0])

    def histogram(self, family: str, own: str = "") -> Histogram:
        """The histogram of `family`, made at first use."""
        return Histogram(self._store.histogram_row(family, self._labels, (own,)), self._store.edges_of(family))

    def tell(self, runs_on: tuple[str, str, str]) -> None:
        """Show what the model runs on, instead of what was told before."""
        row = self._store.row("model_info", self._labels, runs_on)
        row.set(1)
        if self._info is not None and self._info is not row:
            self._store.remove(self._info)
        self._info = row


class Series:
    """The state of one series.

    The lists are written by the threads that infer, with one atomic operation each and no lock, and are never
    replaced; a fold takes what they hold from their front. `totals` belongs to whoever holds the fold lock.

    After a fork the child drops every series and makes new ones: calls that were open keep theirs, and end unseen.

    Attributes:
        opened: one item per call of a plain function that began; those calls are held by their frame alone.
        open: calls of everything else that run now.
        alike: seconds of inferences that reported nothing but the same facts, by these.
        bare, full: records; everything but plain functions adds to `opened` then, not before.
        on_stack_calls: frame of a wrapper to the call that `current` gave to code under it.
        gate: seconds from which on an inference is asked for its trace.
        exemplars: those found since the last fold.
        shown_in_flight: calls that are open according to the row that says so.
        infers: whether inferences are watched here; a process may only load a model, or only queue for it.
    """

    __slots__ = (
        "alike",
        "bare",
        "cost",
        "exemplars",
        "full",
        "gate",
        "infers",
        "labels",
        "on_stack_calls",
        "open",
        "opened",
        "record_bare",
        "record_full",
        "shown_in_flight",
        "start",
        "totals",
    )

    def __init__(self, labels: Labels, rows: Rows) -> None:
        self.labels = labels
        self.cost: CostModel | None = None
        self.infers = False
        self.shown_in_flight = 0
        self.gate = first_gate()
        self.exemplars: list[Exemplar] | None = None
        self.opened: list[None] = []
        self.bare: list[float] = []
        self.full: list[Any] = []
        self.alike: dict[Facts, list[float]] | None = None
        self.open: dict[Call, None] = {}  # a set takes three times as much
        self.on_stack_calls: dict[FrameType, Call] = {}
        self.start = self.opened.append
        self.record_bare = self.bare.append
        self.record_full = self.full.extend
        self.totals = Totals(labels, rows)

    def announce_inferences(self, cost: CostModel | None) -> None:
        """Expose the counters of inferences before the first one, and take its price; the first one counts."""
        if self.infers:
            return
        self.cost = cost
        for family in ("inferences_total", "inferences_in_flight", "model_timeout_total", "model_fallback_total"):
            self.totals.row(family)
        for kind in ANNOUNCED_ERRORS:
            self.totals.row("model_errors_total", kind)
        for kind in TOKEN_TYPES:
            self.totals.row("inference_tokens_total", kind)
        self.totals.histogram("inference_duration")
        if cost is not None:
            self.totals.histogram("inference_cost")
        self.infers = True

    def announce_detections(self) -> None:
        """Expose the histograms of detections before the first one."""
        self.totals.histogram("detection_confidence")
        self.totals.histogram("objects_per_frame")

    def waits(self) -> bool:
        """Whether a fold has something to do."""
        return bool(self.bare or self.full or self.opened) or any((self.alike or {}).values())

    def durations_of(self, facts: Facts) -> list[float] | None:
        """Where seconds of inferences that reported `facts` are appended; None where records outlive the process."""
        if self.record_full != self.full.extend:
            return None
        if self.alike is None:
            self.alike = {}
        return self.alike.setdefault(facts, [])

    def in_flight(self) -> int:
        """Calls that are open now; the caller has just folded."""
        return len(self.open) + self.totals.started + len(self.opened) - self.totals.ended

    def exemplify(self, seconds: float) -> None:
        """Keep the trace of a slow inference that ends now."""
        exemplar = current(seconds)
        if exemplar is not None:
            found = self.exemplars
            if found is None:
                found = self.exemplars = []
            found.append(exemplar)

    def refresh(self) -> None:
        """Bring up to date what is not counted but looked up; the caller has just folded."""
        if self.infers:
            in_flight = self.in_flight()
            if in_flight != self.shown_in_flight:
                self.totals.row("inferences_in_flight").tell(in_flight, time())
                self.shown_in_flight = in_flight

    def on_stack(self, frame: FrameType, local: dict[str, Any]) -> Call:
        """The call of the wrapper that runs in `frame`, whose local variables are `local`."""
        call = self.on_stack_calls.get(frame)
        if call is None:
            call = Call()
            call.track = local[LOCAL_TRACK]
            call.series = self
            call.started = local[LOCAL_STARTED]
            call.open = True
            call.token = None
            call.frame = NO_FRAME
            call.facts = None
            self.on_stack_calls[frame] = call
        return call
