"""onnxruntime: every way to run a session is an inference of its model, also on sessions that exist already."""

import functools
import inspect
import math
import os
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from infermeter.call import enclosing, innermost, now, on_stacks
from infermeter.load import loading
from infermeter.model_names import from_path
from infermeter.observation import Facts
from infermeter.onnx_outputs import Read, reader
from infermeter.patch import Patches, UnknownLibraryError, failed, harmless
from infermeter.results import Frames
from infermeter.short_way import MANY, Ways, watched_run
from infermeter.watched import Watched, watched
from infermeter.wrap import Around

if TYPE_CHECKING:
    from infermeter.recorder import Recorder
    from infermeter.series import Series
    from infermeter.track import Track

MODULES = ("onnxruntime.capi.onnxruntime_inference_collection",)

_STAGE = "onnxruntime"
# Batches of so many different sizes are remembered by a session; what comes after is built each time.
_MOST_SIZES = 256
# What exporters write where nobody named the graph.
_NAMELESS = {"", "main", "main_graph", "graph", "torch_jit", "torch-jit-export", "tf2onnx", "onnxmodel", "model"}
_NO_VERSION = {0, 2**63 - 1}
# The devices behind execution providers; one that is not here is a device of its own name.
_DEVICES = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
    "ROCMExecutionProvider": "rocm",
    "MIGraphXExecutionProvider": "rocm",
}


class RuntimeException(RuntimeError):  # noqa: N818  (onnxruntime's name for an error of no other kind)
    """What `run_async` tells of an error: a text, in which the kind that `run` would have raised does not stand."""


_State = tuple["Track", "Series", Facts, float, "_Session", Any]


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch sessions; see `infermeter.instruments.Integration`."""
    session, inference_session = getattr(module, "Session", None), getattr(module, "InferenceSession", None)
    if session is None or inference_session is None:
        raise UnknownLibraryError(f"{module.__name__} has no Session or no InferenceSession")
    patches = Patches()
    sessions = _Sessions(recorder)
    try:
        # None of them goes through another one.
        patches.replace(session, "run", lambda original: watched_run(sessions, original, patches))
        patches.around(session, "run_with_ort_values", Around(sessions.run, sessions.ran, sessions.failed))
        patches.around(session, "run_with_iobinding", Around(sessions.run_bound, sessions.ran, sessions.failed))
        patches.around(session, "run_with_ortvaluevector", Around(sessions.run_vector, sessions.ran, sessions.failed))
        patches.replace(session, "run_async", lambda original: _asynchronous(sessions, original, patches))
        patches.around(session, "set_providers", sessions.moving())
        patches.around(inference_session, "__init__", sessions.loading())
    except BaseException:
        patches.undo()
        raise
    forget = recorder.marks.listen(sessions.marked)
    _watching.add(sessions)

    def undo() -> None:
        forget()
        patches.undo()
        sessions.short.clear()  # a `run` that somebody holds passes through from now on

    return undo


_watching: "weakref.WeakSet[_Sessions]" = weakref.WeakSet()


def _start_over() -> None:
    """A child records elsewhere than the process that it was forked from."""
    for sessions in list(_watching):
        sessions.short.clear()


os.register_at_fork(after_in_child=_start_over)


class _Session:
    """What is known of one session."""

    __slots__ = ("outputs", "read", "single", "sizes", "track")

    def __init__(self, track: "Track", read: Read | None, outputs: list[str], inputs: list[str]) -> None:
        self.track = track
        self.single = inputs[0] if len(inputs) == 1 else None  # the name of its input, if it has one alone
        self.read = read
        self.outputs = outputs
        self.sizes: dict[tuple[int, float], Facts] = {}


class _Sessions:
    """The hooks, and what they know of sessions; a session is never written to."""

    def __init__(self, recorder: "Recorder") -> None:
        self._recorder = recorder
        self._known: dict[int, _Session] = {}  # by id, which is cheaper to look up than a weak reference
        self._alive: dict[int, weakref.ref[Any]] = {}
        self.short: dict[int, tuple[str, Ways]] = {}

    # --- around a run: the hot path, where they guard themselves ------------------------------------------------

    def run(self, session: Any, output_names: Any, input_feed: Any, _options: Any = None) -> _State | Watched | None:
        """A run begins; `input_feed` is a mapping of name to array, or to OrtValue."""
        try:
            known = self._known.get(id(session)) or self._session(session)
            if on_stacks or innermost() is not None:
                outer = enclosing(self._recorder)
                if outer is not None:
                    return watched(known.track, _STAGE)
            size = 0
            shape = None
            try:
                for value in input_feed.values():
                    if shape is None:
                        shape = value.shape
                    size += value.nbytes
                facts = known.sizes[shape[0], size]  # type: ignore[index]
            except (AttributeError, TypeError, IndexError, KeyError):
                facts = _facts(known, input_feed)
            track = known.track
            series = track.series or track.bind()
            series.start(None)
            return track, series, facts, now(), known, output_names
        except Exception as error:  # ours, on the way of a run
            failed(self._recorder, error)
            return None

    def run_bound(self, session: Any, iobinding: Any, run_options: Any = None) -> _State | Watched | None:
        """A run with bound inputs and outputs begins; what it reads and writes may be on a device."""
        return self.run(session, iobinding, {}, run_options)

    def run_vector(self, session: Any, run_options: Any, _feed_names: Any, feeds: Any, *_: Any) -> Any:
        """A run with C values begins."""
        try:
            inputs = dict(enumerate(feeds))
        except Exception:  # what cannot be run either, which the run will say
            inputs = {}
        return self.run(session, (), inputs, run_options)

    def ran(self, state: _State | Watched | None, result: Any) -> Any:
        """A run has ended."""
        ended = now()
        try:
            if type(state) is tuple:
                track, series, facts, started, known, names = state
                if known.read is None:
                    track.end_told(series, ended - started, facts)
                else:
                    found = harmless(self._recorder, _found, lambda *_: None)(known, names, result)
                    track.end_found(series, started, ended - started, facts, found)
            elif state is not None:
                state.finish()  # type: ignore[union-attr]
        except Exception as error:  # ours, on the way of a run
            failed(self._recorder, error)
        return result

    def failed(self, state: _State | Watched | None, error: BaseException) -> None:
        """A run has raised."""
        ended = now()
        try:
            if type(state) is tuple:
                track, series, _, started, _, _ = state
                track.end_failed(series, started, ended - started, error)
            elif state is not None:
                state.fail(error)  # type: ignore[union-attr]
        except Exception as problem:  # ours, on the way of a run
            failed(self._recorder, problem)

    # --- the same for what a session has been through, and reported nothing but the size of its input --------------

    def learn(self, session: Any, input_feed: Any) -> None:
        """A run of `session` succeeded: the next one with an input of this shape may take the short way."""
        key = id(session)
        known = self._known[key]
        if known.single is None or known.read is not None:
            return
        value = input_feed[known.single]
        if type(value) is not np.ndarray or value.dtype.kind in "OSU":  # strings of one shape differ in size
            return
        series = known.track.series or known.track.bind()
        durations = series.durations_of(_facts(known, input_feed))
        if durations is None:
            known.single = None
            return
        _, ways = self.short.setdefault(key, (known.single, {}))
        if len(ways) < _MOST_SIZES:
            ways[value.shape] = series.start, durations.append, durations, series

    def ended(self, series: "Series", seconds: float, waiting: list[float]) -> None:
        """A run was slow, or there are many to fold."""
        if seconds > series.gate:
            series.exemplify(seconds)
        if len(waiting) >= MANY:
            self._recorder.fold_now(series)

    def broke(self, session: Any, series: "Series", seconds: float, error: BaseException) -> None:
        """A run on the short way raised."""
        self._known[id(session)].track.end_failed(series, now() - seconds, seconds, error)

    # --- around what happens now and then -----------------------------------------------------------------------

    def loading(self) -> Around:
        """Around the making of a session."""

        def before(session: Any, *_: Any, **__: Any) -> tuple[Any, float] | None:
            # A user who times the loading knows better what belongs to it.
            return (session, now()) if not loading() else (session, -1.0)

        def after(state: tuple[Any, float] | None, result: Any) -> Any:
            if state is not None:
                session, started = state
                seconds = now() - started
                track = (self._known.get(id(session)) or self._session(session)).track
                if started >= 0:
                    self._recorder.load(track.model, track.version).loaded(seconds)
            return result

        return self._guarded(before, after)

    def moving(self) -> Around:
        """Around the change of execution providers."""

        def before(session: Any, *_: Any, **__: Any) -> Any:
            return session

        def after(session: Any, result: Any) -> Any:
            if session is not None and id(session) in self._known:
                self._tell_device(session, self._known[id(session)].track)
            return result

        return self._guarded(before, after)

    def begin_elsewhere(self, session: Any, inputs: Any) -> tuple[Watched, float]:
        """A run begins that ends in another thread: what the caller does meanwhile is not inside it."""
        known = self._known.get(id(session)) or self._session(session)
        run = watched(known.track, _STAGE)
        run.pause()
        facts = _facts(known, inputs)
        if facts.batch_size is not None:
            run.call.batch_size(facts.batch_size)
        if facts.input_size is not None:
            run.call.input_size(facts.input_size)
        return run, now()

    def guard(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """`hook`, which gives None when it fails."""
        return harmless(self._recorder, hook, lambda *_, **__: None)

    def _guarded(self, before: Callable[..., Any], after: Callable[[Any, Any], Any]) -> Around:
        return Around(self.guard(before), harmless(self._recorder, after, lambda _, result: result), lambda *_: None)

    def _session(self, session: Any) -> _Session:
        meta = session.get_modelmeta()
        model, version = _named(session, meta)
        outputs = [(output.name, output.shape or []) for output in session.get_outputs()]
        read = reader(outputs, dict(meta.custom_metadata_map))
        key = id(session)
        track = self._recorder.marks.of(session) or self._recorder.track(model, version)
        known = _Session(track, read, [name for name, _ in outputs], [one.name for one in session.get_inputs()])
        if track.detections is not None:  # a user said how, in a list of outputs as a run gives it
            detections = track.detections
            known.read = lambda found: detections(list(found.values()))
        self._alive[key] = weakref.ref(session, lambda _: self._forget(key))
        self._known[key] = known
        self._tell_device(session, track)
        return known

    def marked(self, subject: Any, _: "Track") -> None:
        """A user says how an object is watched, which may be a session."""
        self._forget(id(subject))

    def _forget(self, key: int) -> None:
        self._known.pop(key, None)
        self.short.pop(key, None)
        self._alive.pop(key, None)

    def _tell_device(self, session: Any, track: "Track") -> None:
        # What was asked for does not count: where it cannot be had, onnxruntime takes another one without a word.
        provider = next(iter(session.get_providers()), "")
        device = _DEVICES.get(provider, provider.removesuffix("ExecutionProvider").lower())
        if device in {"cuda", "rocm"}:
            device += ":" + str(session.get_provider_options().get(provider, {}).get("device_id", "0"))
        stored = str(getattr(session, "_model_path", None) or "")
        kind = "ort" if stored.endswith(".ort") else "onnx"
        self._recorder.model_info(track.model, track.version, device=device, provider=provider, format=kind)


def _named(session: Any, meta: Any) -> tuple[str, str]:
    """The name and version of the model of a session: what its metadata says, else its file, else its graph."""
    said = meta.custom_metadata_map
    path = getattr(session, "_model_path", None)
    graph = "" if meta.graph_name.lower() in _NAMELESS else meta.graph_name
    name = said.get("model_name") or (from_path(path) if path else "") or graph or meta.producer_name or "onnx"
    version = said.get("model_version") or ("" if meta.version in _NO_VERSION else str(meta.version))
    return name, version


def _facts(known: _Session, inputs: Any) -> Facts:
    """Batch and size of inputs that come for the first time; the same object for all that are as large."""
    batch, size = None, 0.0
    try:
        for value in inputs.values():
            shape = value.shape() if callable(value.shape) else value.shape
            size += _bytes(value)
            if batch is None:
                batch = shape[0] if len(shape) > 1 else 0  # a vector may be one item
    except Exception:  # a list, a value of another kind, or no inputs at all: whether it can be run, the run will say
        return Facts()
    facts = known.sizes.get((batch or 0, size))
    if facts is None:
        facts = Facts()
        facts.batch_size = float(batch) if batch else None
        facts.input_size = size if size and not math.isnan(size) else None
        if len(known.sizes) < _MOST_SIZES and not math.isnan(size):
            known.sizes[batch or 0, size] = facts
    return facts


def _bytes(value: Any) -> float:
    """The size of an array or an OrtValue; NaN for a value of a release that does not tell, and for objects."""
    if hasattr(value, "tensor_size_in_bytes"):
        return float(value.tensor_size_in_bytes())
    objects = getattr(value, "dtype", None) is np.dtype(object)  # an array of them is one of their addresses
    return math.nan if objects else float(getattr(value, "nbytes", math.nan))


def _found(known: _Session, names: Any, result: Any) -> Any:
    """What the reader finds in the outputs of a run; nothing in those that are not on the host."""
    if hasattr(names, "get_outputs"):  # bound
        result, names = names.get_outputs(), None
    values = [
        value.numpy() if hasattr(value, "device_name") and value.device_name() == "cpu" else value
        for value in result or ()
    ]
    outputs = dict(zip(names or known.outputs, values, strict=False))
    return known.read(outputs) if known.read is not None and outputs else Frames()


def _asynchronous(sessions: _Sessions, original: Any, patches: Patches) -> Any:
    """`run_async`, whose run ends when its callback is called, in a thread of onnxruntime."""
    signature = inspect.signature(original)

    def begin(args: Any, kwargs: Any) -> tuple[Watched, float, Any] | None:
        bound = signature.bind(*args, **kwargs)
        callback = bound.arguments["callback"]
        if not callable(callback):
            return None
        run, started = sessions.begin_elsewhere(args[0], bound.arguments["input_feed"])

        def end(error: str) -> None:
            if error:
                run.fail(RuntimeException(error), now() - started)
            else:
                run.finish(now() - started)

        guarded = sessions.guard(end)

        @functools.wraps(callback)
        def ended(outputs: Any, user_data: Any, error: str) -> Any:
            guarded(error)
            return callback(outputs, user_data, error)

        bound.arguments["callback"] = ended
        return run, started, bound

    begun = sessions.guard(begin)

    @functools.wraps(original)
    def run_async(*args: Any, **kwargs: Any) -> Any:
        state = begun(args, kwargs) if patches.live else None
        if state is None:
            return original(*args, **kwargs)
        run, started, bound = state
        try:
            return original(*bound.args, **bound.kwargs)
        except BaseException as error:
            sessions.guard(run.fail)(error, now() - started)
            raise

    return run_async
