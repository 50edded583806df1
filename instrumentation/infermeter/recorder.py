"""The recorder: every series of a process, folded on a timer, at a scrape, and inline only when memory demands it."""

import _thread
import logging
import os
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack

from prometheus_client import CollectorRegistry, Metric

from infermeter import fork
from infermeter.call import Call, current, now
from infermeter.catalogue import DROP_REASONS
from infermeter.class_names import announced_names
from infermeter.config import Options, Settings, TrackOptions, environment_service, strict
from infermeter.cost import CostModel
from infermeter.errors import ConfigError
from infermeter.exposition import expose
from infermeter.fold import fold
from infermeter.guard import Guard
from infermeter.registration import Registration
from infermeter.series import Labels, Series
from infermeter.track import Track

if TYPE_CHECKING:
    from infermeter.server import Server

log = logging.getLogger("infermeter")

# A service under 256 inferences a second is folded by the timer only, never by the threads that infer.
_FOLD_EVERY_SECONDS = 1.0
# A scrape that cannot have the lock for so long answers with the last totals instead of hanging.
_SCRAPE_WAITS_SECONDS = 5.0
_MOST_TRACKS = 1024
# What may wait for a fold in payloads of more than SMALL_PAYLOAD each.
_PENDING_BYTES = 8 * 1024 * 1024
_PENDING_DROPS = 256


class Recorder:
    """Everything that one process records, and the verbs that users call.

    The module-level verbs of `infermeter` are those of one default recorder; a test or a library that wants
    metrics of its own makes another, with a registry of its own.

    Args:
        options: as for `configure`.

    Raises:
        ConfigError: an option that cannot work.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        self.settings = Settings().replaced(options)
        self.pending_bytes = 0
        self.series: dict[Labels, Series] = {}
        self.dropped: Counter[str] = Counter(dict.fromkeys(DROP_REASONS, 0))
        self.folded: Counter[str] = Counter(dict.fromkeys(("model", "version", "class", "error_type"), 0))
        self.fold_seconds = 0.0
        self.folds = 0
        self._guard = self._new_guard()
        self.lock = _thread.allocate_lock()
        self._tracks: dict[str, dict[str, Track]] = {}  # by version, then model: no tuple to make and hash
        self._costs: dict[tuple[str, str], CostModel] = {}
        self._declared: dict[tuple[str, str], Track] = {}
        self._declared_labels: dict[tuple[str, str], Labels] = {}
        self._bound: weakref.WeakSet[Track] = weakref.WeakSet()
        self._service: str | None = None
        self._drops: list[tuple[str, int]] = []
        self._label_folds: list[str] = []
        self._logged: set[tuple[str, str]] = set()
        self._registration = Registration(self.collect)
        self._timer_runs = False
        fork.watch(self)

    # --- what users call ---------------------------------------------------------------------------------------

    def configure(self, **options: Unpack[Options]) -> None:
        """Set options, before the first inference is recorded; later calls add to earlier ones.

        Args:
            options:
                service: the fleet-unique name of the service (default: the environment variables
                    INFERMETER_SERVICE, then OTEL_SERVICE_NAME, then `unknown_service` with a warning).
                cost: a CostModel; without one `inference_cost` is absent.
                registry: the prometheus_client registry to be found in (default: REGISTRY).
                buckets: histogram name to edges, strictly rising.
                labels: constant labels for every series of the service (not for `infermeter_*`).
                max_label_values: distinct values per guarded label (model, version, class, error_type; default
                    100): one number or a mapping.
                max_series: series per family (default 1,000).

        Raises:
            ConfigError: an unknown option, a value that cannot work, a registry that already has a family of ours,
                or a call after the first inference.
        """
        if self.series:
            names = ", ".join(options)
            raise ConfigError(f"configure({names}) came after the first inference was recorded, expected before it")
        settings = self.settings.replaced(options)
        self._registration.attach(settings.registry)
        self.settings = settings
        self._guard = self._new_guard()
        self._declared_labels.clear()
        self._service = None

    def track(self, model: str, version: str = "", **options: Unpack[TrackOptions]) -> Track:
        """Watch inferences of `model`: a decorator, and a context manager that gives the open `Call`.

        Args:
            model: name of the model, the label `model`.
            version: its version, the label `version`.
            options:
                detections: how to read a result: a callable that returns confidences, a `Detections` or a list of
                    `Detections` (one a frame), or "auto" for the results of well-known libraries (see
                    `results.auto`). For a generator it is applied to each item.
                names: class index to class name, a mapping or a list.
                cost: prices of this model, everywhere it is tracked, instead of those of `configure`.
                stream: what one inference of a generator is: the whole "call" (default), or each "item".

        Raises:
            ConfigError: an option that cannot work, or a registry that already has a family of ours.
        """
        if not options:
            try:
                return self._tracks[version][model]
            except (KeyError, TypeError):
                pass
        self._registry()
        track = Track.checked(self, model, version, **options)
        if track.cost is not None:
            self._set_cost(model, version, track.cost)
        if not options and sum(map(len, list(self._tracks.values()))) < _MOST_TRACKS:
            track = self._tracks.setdefault(version, {}).setdefault(model, track)
        return track

    def current(self) -> Call:
        """As `infermeter.current`."""
        return current()

    def serve(self, port: int, addr: str = "0.0.0.0") -> "Server":  # noqa: S104  (scrapers come from other hosts)
        """Serve `/metrics` from a background thread.

        Args:
            port: 0 to 65535; 0 takes a free one (`Server.port` tells which).
            addr: address to listen on, by default every one of this host.

        Raises:
            ConfigError: a port that is none or in use, or an address of another host.
        """
        from infermeter.server import serve  # noqa: PLC0415  (an HTTP server is not part of recording)

        return serve(self._registry(), port, addr)

    def asgi_app(self) -> Any:
        """`/metrics` as an ASGI application, to mount in a service of your own."""
        from prometheus_client import make_asgi_app  # noqa: PLC0415

        return make_asgi_app(self._registry())

    def wsgi_app(self) -> Any:
        """`/metrics` as a WSGI application, to mount in a service of your own."""
        from prometheus_client import make_wsgi_app  # noqa: PLC0415

        return make_wsgi_app(self._registry())

    def register(self, registry: CollectorRegistry) -> None:
        """Be found in another registry too, for pages that are made from a registry of their own.

        Raises:
            ConfigError: the registry already has a family of ours.
        """
        if registry is not self._registry():
            self._registration.add(registry)

    # --- what the rest of the library calls --------------------------------------------------------------------

    def declare(self, track: Track) -> None:
        """Expose the zeros of a decorated function before its first call."""
        if len(self._declared) < self.settings.max_series:
            self._declared[track.model, track.version] = track

    def bind(self, track: Track) -> Series:
        """The series of `track`, made at its first inference. Takes no lock and never raises."""
        labels = self._labels(track)
        series = self.series.get(labels)
        if series is None:
            series = self.series.setdefault(labels, self._new_series(labels, track))
            self._start_timer()
        self._announce(series, track)
        self._bound.add(track)
        return series

    def service(self) -> str:
        """The name of the service, settled at the first inference."""
        if self._service is None:
            self._service = self.settings.service or environment_service()
        return self._service

    def drop(self, reason: str, error: BaseException | None = None, count: int = 1) -> None:
        """Count refused observations, and log the first of each kind; raise instead where INFERMETER_STRICT is set."""
        if strict():
            raise error if error is not None else ValueError(DROP_REASONS[reason])
        self._drops.append((reason, count))
        if len(self._drops) >= _PENDING_DROPS:
            self.fold_now()
        kind = (reason, type(error).__name__)
        if kind not in self._logged:
            self._logged.add(kind)
            detail = f" ({type(error).__name__}: {error})" if error is not None else ""
            log.warning(
                "dropped an observation: %s%s; further ones are only counted in "
                'infermeter_observations_dropped_total{reason="%s"}',
                DROP_REASONS[reason],
                detail,
                reason,
            )

    def weigh(self, payload: int) -> None:
        """Keep what waits for a fold within bounds, now that `payload` bytes are added."""
        # Without a lock: racing threads may lose a few bytes, and every fold sets it right.
        self.pending_bytes += payload
        if self.pending_bytes > _PENDING_BYTES:
            self.fold_now()

    def fold_now(self, series: Series | None = None) -> None:
        """Fold `series`, or all, on the calling path: only if nobody else is folding, never waiting."""
        lock = self.lock  # a fork in the middle, by the user's own objects, gives the child another
        if lock.acquire(blocking=False):
            try:
                self._fold(series)
            finally:
                lock.release()

    def fold(self) -> None:
        """Fold everything that was recorded, so that totals and metrics are complete."""
        with self._folded():
            pass

    def collect(self) -> list[Metric]:
        """Every family with its samples, consistent with each other."""
        with self._folded():
            return list(expose(self))

    def announced(self) -> dict[Labels, Series]:
        """Blank series of decorated functions that were never called."""
        blank: dict[Labels, Series] = {}
        for key, track in list(self._declared.items()):
            labels = self._declared_labels.get(key)
            if labels is None:
                labels = self._declared_labels[key] = self._labels(track)
            if labels not in self.series:
                series = blank.setdefault(labels, self._new_series(labels, track))
                self._announce(series, track)
        return blank

    # --- inside ------------------------------------------------------------------------------------------------

    def _registry(self) -> CollectorRegistry:
        """The registry that we are found in, from the first use on."""
        return self._registration.attach(self.settings.registry)

    def _set_cost(self, model: str, version: str, cost: CostModel) -> None:
        """Take the prices of a model, the same wherever it is tracked."""
        if len(self._costs) >= _MOST_TRACKS:  # request ids as models: each track keeps its own
            return
        given = self._costs.setdefault((model, version), cost)
        if given != cost:
            raise ConfigError(
                f"track(model={model!r}, version={version!r}, cost={cost!r}) is the second price of one model, "
                f"expected {given!r} as before"
            )

    def _labels(self, track: Track) -> Labels:
        return Labels(*self._guard.admit_base(self.service(), track.model, track.version))

    def _new_series(self, labels: Labels, track: Track) -> Series:
        cost = self._costs.get((track.model, track.version)) or track.cost or self.settings.cost
        return Series(labels, self.settings.edges, cost)

    def _announce(self, series: Series, track: Track) -> None:
        """Make what `track` is known to report visible in `series` before it happens."""
        if track.detections is not None:
            series.announce_detections()
        for name in announced_names(track.names):
            admitted = self._guard.admit_child("detections_total", series.labels, "class", name)
            series.totals.counters.setdefault(("detections_total", admitted), 0)

    def _new_guard(self) -> Guard:
        return Guard(self.settings.max_label_values, self.settings.max_series, self._label_folds_append)

    def _label_folds_append(self, label: str) -> None:
        self._label_folds.append(label)

    @contextmanager
    def _folded(self) -> Iterator[None]:
        """Hold the lock with everything folded; go on without where the lock cannot be had."""
        lock = self.lock  # as in fold_now
        held = lock.acquire(timeout=_SCRAPE_WAITS_SECONDS)
        try:
            if held:
                self._fold()
            yield
        finally:
            if held:
                lock.release()

    def _fold(self, one: Series | None = None) -> None:
        """Fold `one` series, or all; the caller holds the lock."""
        started = now()
        if one is None:
            self.pending_bytes = 0
        for series in (one,) if one is not None else list(self.series.values()):
            fold(series, self._guard, self._drop_quietly)
        for counter, events in ((self.dropped, self._drops), (self.folded, self._label_folds)):
            taken = events[:]
            del events[: len(taken)]
            for event in taken:
                name, count = event if isinstance(event, tuple) else (event, 1)
                counter[name] += count
        self.folds += 1
        self.fold_seconds += now() - started

    def _drop_quietly(self, reason: str, error: BaseException | None, count: int) -> None:
        """`drop` where nobody could take an exception: between the calls."""
        try:
            self.drop(reason, error, count)
        except Exception:
            self._drops.append((reason, count))

    def _start_timer(self) -> None:
        if not self._timer_runs:
            self._timer_runs = True
            try:
                # Not threading.Thread: its start() waits for a lock, and a signal handler may be what got us here.
                _thread.start_new_thread(_fold_for_ever, (weakref.ref(self),))
            except RuntimeError:  # no more threads: scrapes and full buffers still fold
                log.warning("cannot start the thread that folds; scrapes will do its work")

    def after_fork_in_child(self) -> None:
        """Start from zero with a fresh lock: what happened so far is counted by the parent."""
        self.lock = _thread.allocate_lock()
        for track in list(self._bound):
            track.series = None
        self.series = {}
        self.pending_bytes = 0
        self._drops.clear()
        self._label_folds.clear()
        self.dropped = Counter(dict.fromkeys(self.dropped, 0))
        self.folded = Counter(dict.fromkeys(self.folded, 0))
        self.fold_seconds, self.folds = 0.0, 0
        if self._timer_runs:
            self._timer_runs = False
            self._start_timer()


def _fold_for_ever(reference: "weakref.ref[Recorder]") -> None:
    pid = os.getpid()
    while True:
        time.sleep(_FOLD_EVERY_SECONDS)
        recorder = reference()
        if recorder is None or sys.is_finalizing() or os.getpid() != pid:
            return
        if any(series.waits() for series in list(recorder.series.values())):
            recorder.fold_now()
        del recorder
