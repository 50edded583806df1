"""The ledger: every series of a process, folded on a timer, at a scrape, and inline only when memory demands it."""

import time
import weakref
from _thread import LockType
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

from prometheus_client import Metric

from infermeter import about, fork
from infermeter.call import now
from infermeter.catalogue import CACHE_LABELS, DEVICE_LABELS, FAMILIES
from infermeter.config import Settings, environment_service
from infermeter.cost import Prices
from infermeter.device import Device
from infermeter.errors import ReenteredError
from infermeter.exposition import expose
from infermeter.fold import Name, fold, fold_notes, take
from infermeter.guard import Guard, Labels, encodable
from infermeter.meter import Meter
from infermeter.pace import Pace
from infermeter.queue import Queue
from infermeter.refusals import Refusals
from infermeter.rows import Rows
from infermeter.series import Series
from infermeter.sharing import modes_of
from infermeter.text import Renderer
from infermeter.timer import Timer, at_exit
from infermeter.turn import Turn

if TYPE_CHECKING:
    from infermeter.messages import Encoder
    from infermeter.multiprocess import Multiprocess
    from infermeter.traffic import Traffic

M = TypeVar("M", bound=Meter)

# A scrape that cannot have the lock for so long answers with the last totals instead of hanging.
_SCRAPE_WAITS_SECONDS = 10.0
# A call that finds too much waiting, and another thread folding, waits for that one at most so long.
_FULL_WAITS_SECONDS = 0.25
# What may wait for a fold in payloads of more than SMALL_PAYLOAD each.
_PENDING_BYTES = 8 * 1024 * 1024
# What may wait for a fold besides inferences.
_PENDING = 256


class Ledger:
    """What one process has recorded: meters write to it, a scrape reads it.

    Args:
        settings: validated options; `reset` changes them while nothing is recorded.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pending_bytes = 0
        self.series: dict[Labels, Series] = {}
        self.queues: dict[Series, dict[Queue, None]] = {}  # what waits for those models that have a queue
        refusals = Refusals(lambda reason, count: self.note(None, about.DROPPED, reason, count))
        self.valid, self.refuse, self.drop = refusals.valid, refusals.refuse, refusals.drop
        self._pass_over, self._tell = refusals.pass_over, refusals.tell
        self._guard = self._new_guard()
        self._encoder: Encoder | None = None
        self._shared = self._new_shared()
        self._new_rows()
        self._turn = Turn()
        self.prices, self.device = Prices(), Device(self)
        self._declared: dict[tuple[type[Meter], str, str], Meter] = {}
        self._declared_labels: dict[tuple[str, str], Labels] = {}
        self._blank: dict[Labels, Series] = {}
        self._bound: weakref.WeakSet[Meter] = weakref.WeakSet()
        self._unshown: list[tuple[Meter, Series]] = []  # what a signal handler bound in the middle of another binding
        self._service: str | None = None
        self.traffic: Traffic | None = None
        self._notes: list[tuple[Meter | None, str, str, float]] = []
        self._caches: dict[tuple[str, str], None] = {}  # family and name of those that were told of
        self.timer = Timer(self)
        fork.watch(self)

    def reset(self, settings: Settings) -> None:
        """Take other settings, while nothing is recorded."""
        self.settings = settings
        self._guard = self._new_guard()
        if self._shared is None:
            for row in self._rows.every():
                if row.family.kind == "counter" and "model" not in row.family.labels:
                    self._notes.append((None, row.family.name, row.own[0], row.values[0]))
        else:
            self._shared.close()
        self._shared = self._new_shared()
        self._new_rows()
        self._declared_labels.clear()
        self._blank.clear()
        self.queues.clear()
        self._service = None

    @property
    def lock(self) -> LockType:
        """Held by whoever folds; a fork waits for it."""
        return self._turn.lock

    @property
    def began(self) -> bool:
        """Whether an inference or an HTTP request was recorded; from then on nothing can be configured."""
        return bool(self.series) or (self.traffic is not None and self.traffic.began)

    # --- what meters call --------------------------------------------------------------------------------------

    def declare(self, meter: Meter) -> None:
        """Expose what `meter` announces before its first record; the latest of a kind and model counts."""
        if len(self._declared) < self.settings.max_series:
            self._declared[type(meter), meter.model, meter.version] = meter

    def meter(self, kind: type[M], model: str, version: str) -> M:
        """The meter of a kind and model, declared, and the same one wherever it is asked for."""
        meter = self._declared.get((kind, model, version))
        if meter is None:
            meter = kind(self, model, version)
            if len(self._declared) < self.settings.max_series:
                meter = self._declared.setdefault((kind, model, version), meter)
        return cast("M", meter)

    def bind(self, meter: Meter) -> Series:
        """The series of `meter`, made at its first record. Takes no lock and never raises."""
        labels = self._labels(meter)
        series = self.series.get(labels)
        if series is None:
            # What was announced is gone on with, so that a scrape that reads it meanwhile misses nothing.
            series = self.series.setdefault(labels, self._blank.pop(labels, self._new_series(labels)))
            self.timer.start(at_once=self._shared is not None)
        try:
            self._show(meter, series)
        except ReenteredError:
            self._unshown.append((meter, series))
            if self._shared is not None:
                self._shared.astray.append(None)
        self._bound.add(meter)
        return series

    def note(self, meter: Meter | None, family: str, own: str, value: float) -> None:
        """Record a number outside any inference, under the value of the family's own label ("" if it has none)."""
        # Before the first inference nothing is settled, because `configure` may still come.
        shared = self._shared if self.began or "service" not in FAMILIES[family].labels else None
        if shared and shared.note(self._rows, self._named(meter, family, own), value, self.make_room):
            return
        self._notes.append((meter, family, own, value))
        if shared:
            shared.astray.append(None)
        if len(self._notes) >= _PENDING:
            self.fold_now()

    def note_cache(self, family: str, name: str, count: float) -> None:
        """Record so many look-ups in a cache."""
        valid = self.valid(count)
        if valid is not None:
            self._caches[family, self._guard.admit("cache", name)] = None
            self.note(None, family, name, valid)

    def announce_class(self, series: Series, name: str) -> None:
        """Expose the zero of a class before its first detection."""
        admitted = self._guard.admit_child("detections_total", series.labels, "class", name)
        series.totals.row("detections_total", admitted)

    def service(self) -> str:
        """The name of the service, settled at the first record."""
        if self._service is None:
            self._service = self.settings.service or environment_service()
        return self._service

    def settled(self) -> "tuple[str, Rows, Guard, Multiprocess | None]":
        """Where something of this service is recorded that is no inference: from now on nothing can be configured."""
        self.timer.start(at_once=self._shared is not None)
        return encodable(self.service()), self._rows, self._guard, self._shared

    def weigh(self, payload: int) -> None:
        """Keep what waits for a fold within bounds, now that `payload` bytes are added."""
        # Without a lock: racing threads may lose a few bytes, and every fold sets it right.
        self.pending_bytes += payload
        if self.pending_bytes > _PENDING_BYTES:
            self.make_room()

    def make_room(self) -> None:
        """Have what waits folded, by another thread if one does so already: for a while that one is waited for."""
        if not self.fold_now() and not self._turn.mine:
            # It is slower than those that record: they have to let it, and leave the turn to a scrape that waits too.
            with self._turn.within(_FULL_WAITS_SECONDS):
                pass

    def fold_now(self, series: Series | None = None) -> bool:
        """Fold `series`, or all, on the calling path: only if nobody else is folding or waits to, never waiting."""
        if self._reentered():
            return False
        with self._turn.at_once() as held:
            if held:
                self._fold(series)
            return held

    # --- what a scrape calls -----------------------------------------------------------------------------------

    def fold(self) -> None:
        """Fold everything that was recorded, so that totals and metrics are complete."""
        with self._all_folded():
            pass

    def collect(self) -> list[Metric]:
        """Every family with its samples, consistent with each other."""
        with self._all_shown():
            return list(expose(self._visible, self.settings.labels))

    def text(self, end: bytes = b"", *, open_metrics: bool) -> bytes:
        """The lines of every family, consistent with each other, and then `end`."""
        with self._all_shown():
            return self._renderer.page(end, open_metrics=open_metrics)

    @contextmanager
    def _all_shown(self) -> Iterator[None]:
        """As `_all_folded`, with the page up to date."""
        with self._all_folded() as held:
            if self._shared is None:
                self._refresh()
            elif held:
                self.timer.start(at_once=True)
                self._shared.show(self._visible, self._rows)
            yield

    def _refresh(self) -> None:
        """Bring up to date what is not counted but looked up; the caller has just folded."""
        for meter, series in take(self._unshown):
            self._show(meter, series)
        self._announce()
        for series in [*self._blank.values(), *self.series.values()]:
            series.refresh()
        for series, queues in list(self.queues.items()):
            waiting = sum(len(queue.waiting) for queue in list(queues))
            series.totals.row("model_queue_length").tell(waiting, time.time())
        if self.traffic is not None:
            self.traffic.refresh(self._rows, encodable(self.service()))
        for family, cache in list(self._caches):
            self._rows.row(family, (encodable(self.service()),), (cache,))

    def _announce(self) -> None:
        """Show what declared meters announce: where they record, or in blank series if they never did."""
        for meter in list(self._declared.values()):
            key = (meter.model, meter.version)
            labels = self._declared_labels.get(key)
            if labels is None:
                labels = self._declared_labels[key] = self._labels(meter)
            series = self.series.get(labels)
            if series is None:
                series = self._blank.setdefault(labels, self._new_series(labels))
            self._show(meter, series)

    def protobuf(self, *, classic: bool) -> bytes:
        """The messages of every family, consistent with each other; `classic` leaves native buckets out."""
        from infermeter.messages import Encoder  # noqa: PLC0415  (most scrapers never ask for it)

        with self._all_shown():
            if self._encoder is None:
                self._encoder = Encoder(self._visible, self.settings.labels)
            return self._encoder.page(classic=classic)

    def waits(self) -> bool:
        """Whether a fold has something to do."""
        if self.device.harvest() or self._notes or (self.traffic is not None and self.traffic.waits()):
            return True
        return any(one.waits() for one in list(self.series.values()))

    def keep_up(self) -> None:
        """What the timer does: fold, and with other processes show them what is open, and take over from the dead."""
        shared = self._shared
        if self.waits() or (shared is not None and shared.begun):
            self.fold()
        if shared is not None:
            shared.upkeep()

    # --- inside ------------------------------------------------------------------------------------------------

    def _labels(self, meter: Meter) -> Labels:
        return self._guard.admit_base(self.service(), meter.model, meter.version)

    def _new_series(self, labels: Labels) -> Series:
        return Series(labels, self._rows)

    def _show(self, meter: Meter, series: Series) -> None:
        """Have `meter` announce itself in `series`, once."""
        if meter.shown is not series:
            meter.announce(series)
            if self._shared is not None and series.infers:
                self._shared.adopt(series, self._rows, self._guard, self._pass_over, self.make_room)
            meter.shown = series

    def _new_rows(self) -> None:
        settings, modes = self.settings, self.settings.modes()
        self._rows = self._visible = Rows(settings.edges, modes, settings.max_native_buckets)
        if self._shared is not None:
            gauges = modes_of(settings.gauges)
            self._rows = Rows(settings.edges, modes, settings.max_native_buckets, gauges=gauges, memory=self._shared)
        self._renderer = Renderer(self._visible, settings.labels)
        self._encoder = None
        self._blank_rows = True

    def _new_shared(self) -> "Multiprocess | None":
        folder = self.settings.folder()
        if folder is None:
            return None
        from infermeter.multiprocess import Multiprocess  # noqa: PLC0415  (most services are one process)

        at_exit(self)
        return Multiprocess(folder)

    def _new_guard(self) -> Guard:
        settings = self.settings
        return Guard(
            settings.max_label_values, settings.max_series, lambda label: self.note(None, about.FOLDED, label, 1)
        )

    def _named(self, meter: Meter | None, family: str, own: str) -> Name:
        """The labels under which something is told that is no inference."""
        if meter is not None:
            series = meter.series or meter.bind()
            return family, series.labels, self._guard.admit_own(family, series.labels, own)
        if FAMILIES[family].labels in {CACHE_LABELS, DEVICE_LABELS}:
            return family, (encodable(self.service()),), self._guard.admit(FAMILIES[family].labels[1], own)
        return family, (), own

    def _reentered(self) -> bool:
        return self._shared is not None and self._shared.reentered()

    @contextmanager
    def _all_folded(self) -> Iterator[bool]:
        """Have the turn with everything folded; go on without where it cannot be had. Gives whether it is."""
        if self._reentered():
            yield False
            return
        self.device.harvest()
        with self._turn.within(_SCRAPE_WAITS_SECONDS) as held:
            if held:
                self._fold(pace=Pace())
            yield held

    def _fold(self, one: Series | None = None, pace: Pace | None = None) -> None:
        """Fold `one` series, or all, at a pace if there is one; the caller holds the lock."""
        self._fold_once(one, pace)
        if self._shared is not None and self._shared.astray:  # a signal handler recorded meanwhile
            self._fold_once(None, pace)

    def _fold_once(self, one: Series | None, pace: Pace | None) -> None:
        started = now()
        if self._blank_rows:
            self._blank_rows = about.announce(self._rows)
        if one is None:
            self.pending_bytes = 0
        shared = self._shared
        records = shared.pending() if shared is not None else []
        try:
            if shared is not None:
                shared.tally(records, self._rows, self._drop_in_fold)
            for series in [one] if one is not None else [one for one in list(self.series.values()) if one.waits()]:
                if pace is not None:
                    pace.step()
                fold(series, self._guard, self._drop_in_fold)
            if self.traffic is not None:
                self.traffic.fold(self._rows)
            fold_notes([(*self._named(*told), value) for *told, value in take(self._notes)], self._rows)
            if shared is not None:
                self._refresh()
            self._rows.row("infermeter_fold_seconds", (), ()).add(1, now() - started)
        finally:
            # Also if a signal handler raised in between: what was counted of the records must not be counted again.
            if shared is not None:
                shared.commit(self._rows, len(records))

    def _drop_in_fold(self, reason: str, error: BaseException | None, count: int) -> None:
        """`drop` for whoever holds the lock, where nobody could take an exception: between the calls."""
        self._rows.row(about.DROPPED, (), (reason,)).add(count)
        self._tell(reason, error)

    def after_fork_in_child(self) -> None:
        """Start from zero with a fresh lock: what happened so far is counted by the parent."""
        self._turn.start_over()
        for meter in list(self._bound):
            meter.series = None
        for meter in list(self._declared.values()):
            if isinstance(meter, Queue):
                meter.waiting.clear()
        self.series = {}
        self.queues = {}
        self._blank = {}
        self._unshown.clear()
        if self._shared is not None:
            self._shared.after_fork_in_child()
        self._new_rows()
        self.pending_bytes = 0
        self._notes.clear()
        if self.traffic is not None:
            self.traffic.start_over()
        self.timer.after_fork_in_child()
