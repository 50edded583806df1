"""One series: what waits to be folded, what is open, and the totals so far, of one service, model and version."""

from collections import defaultdict
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from infermeter.call import LOCAL_STARTED, Call
from infermeter.catalogue import ANNOUNCED_ERRORS, TOKEN_TYPES
from infermeter.cost import CostModel
from infermeter.histogram import Histogram
from infermeter.observation import NO_FRAME

if TYPE_CHECKING:
    from infermeter.queue import Queue

LOCAL_TRACK = "_infermeter_track"


class Labels(NamedTuple):
    """The values of the labels that every family of a service carries."""

    service: str
    model: str
    version: str


class Totals:
    """What has been counted: the sample values of a series.

    Keys are a family's name and the value of its own label ("" where it has none).

    Attributes:
        counters: to the count.
        gauges: to the latest value.
        histograms: to the histogram; one that was never observed nor announced is absent.
        info: device, provider and format of the model, once somebody told.
        started: calls of plain functions that began, and calls of everything else that ended.
    """

    def __init__(self, edges: dict[str, tuple[float, ...]]) -> None:
        self._edges = edges
        self.started = 0
        self.counters: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.gauges: dict[tuple[str, str], float] = {}
        self.histograms: dict[tuple[str, str], Histogram] = {}
        self.info: tuple[str, str, str] | None = None

    def histogram(self, family: str, own: str = "") -> Histogram:
        """The histogram of `family` for the value of its own label, made at first use."""
        histogram = self.histograms.get((family, own))
        if histogram is None:
            # setdefault: an inferring thread may announce a family while another one folds.
            histogram = self.histograms.setdefault((family, own), Histogram(self._edges[family]))
        return histogram


class Series:
    """The state of one series.

    The lists are written by the threads that infer, with one atomic operation each and no lock, and are never
    replaced; a fold takes what they hold from their front. `totals` belongs to whoever holds the fold lock.

    After a fork the child drops every series and makes new ones: calls that were open keep theirs, and end unseen.

    Attributes:
        opened: one item per call of a plain function that began; those calls are held by their frame alone.
        open: calls of everything else that run now.
        bare, left: bare records of plain functions, and of everything else.
        full: full records; everything else but plain functions adds to `opened` then, not before.
        on_stack_calls: frame of a wrapper to the call that `current` gave to code under it.
        queues: what waits for this model.
        infers: whether inferences are watched here; a process may only load a model, or only queue for it.
    """

    __slots__ = (
        "bare",
        "cost",
        "enter",
        "full",
        "infers",
        "labels",
        "leave",
        "left",
        "on_stack_calls",
        "open",
        "opened",
        "queues",
        "record_bare",
        "record_full",
        "record_left",
        "start",
        "totals",
    )

    def __init__(self, labels: Labels, edges: dict[str, tuple[float, ...]]) -> None:
        self.labels = labels
        self.cost: CostModel | None = None
        self.infers = False
        self.queues: dict[Queue, None] = {}
        self.opened: list[None] = []
        self.bare: list[float] = []
        self.left: list[float] = []
        self.full: list[Any] = []
        self.open: set[Call] = set()
        self.on_stack_calls: dict[FrameType, Call] = {}
        self.start = self.opened.append
        self.enter = self.open.add
        self.leave = self.open.remove
        self.record_bare = self.bare.append
        self.record_left = self.left.append
        self.record_full = self.full.extend
        self.totals = Totals(edges)

    def announce_inferences(self, cost: CostModel | None) -> None:
        """Expose the counters of inferences before the first one, and take its price; the first one counts."""
        if self.infers:
            return
        self.cost = cost
        counters = self.totals.counters
        for family in ("inferences_total", "model_timeout_total", "model_fallback_total"):
            counters.setdefault((family, ""), 0)
        for kind in ANNOUNCED_ERRORS:
            counters.setdefault(("model_errors_total", kind), 0)
        for kind in TOKEN_TYPES:
            counters.setdefault(("inference_tokens_total", kind), 0)
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
        return bool(self.bare or self.left or self.full or self.opened)

    def in_flight(self) -> int:
        """Calls that are open now; the caller has just folded."""
        of_functions = self.totals.started + len(self.opened) - int(self.totals.counters["inferences_total", ""])
        return len(self.open) + of_functions

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
