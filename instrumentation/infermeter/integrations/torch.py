"""PyTorch: each call of a module that a user names is an inference, and what it calls is inside.

A user names modules by `infermeter.watch(module, model=...)`, or classes in INFERMETER_TORCH_MODULES, as
`package.module:Class` with commas between: their modules are watched under the name of the class. Calls of nothing else
cost anything. A named module inside a named one is a stage of it, `torch`; in that stage others are no further ones.

The class of a named module is given a `__call__` that looks who is called; the module itself is not touched: it is
pickled, saved, copied, scripted and replicated as ever, and the copy is a module that nobody has named. Code that is
compiled or traced passes through, so of compiled modules the outer one is watched, whichever of the two was named.

On a GPU a call takes from the moment that the GPU comes to it until it is through, as two events on the current stream
tell; nobody waits for them (`infermeter.device`). Detections are reported where `watch(detections=...)` says how.
"""

import functools
import sys
import weakref
from collections.abc import Callable
from threading import get_ident
from types import ModuleType
from typing import TYPE_CHECKING, Any

from infermeter.call import enclosing
from infermeter.config import environment_torch_modules
from infermeter.patch import Patches, UnknownLibraryError, failed, harmless, log
from infermeter.watched import Watched, watched

if TYPE_CHECKING:
    from infermeter.recorder import Recorder
    from infermeter.track import Track

# And those in which the environment names a class: such a module may be what imports torch.
MODULES = ("torch", "torch._dynamo.eval_frame", "torch.cuda.graphs", *dict(environment_torch_modules()))

_STAGE = "torch"
# A model of another integration is a module too, whose `__call__` is not what infers.
_OTHERS = "ultralytics.engine.model"
_COMPILED = "torch._dynamo.eval_frame"


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch modules; see `infermeter.instruments.Integration`."""
    if module.__name__ == _COMPILED:
        return _install_compiled(recorder, module)
    if module.__name__ == "torch.cuda.graphs":
        return _install_graphs(recorder, module)
    if module.__name__ != "torch":
        return _install_named(recorder, module)
    if not hasattr(module, "nn"):
        raise UnknownLibraryError("torch has no nn")
    modules = _Modules(recorder, module, recorder.marks.of)
    forget = recorder.marks.listen(modules.marked)
    memory = harmless(recorder, _Memory(recorder, module.cuda), lambda: None)
    recorder.device.readers.append(memory)

    def undo() -> None:
        recorder.device.readers.remove(memory)
        forget()
        modules.patches.undo()

    return undo


def _install_named(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch the classes of a module of the user's that the environment names."""
    torch, marks = sys.modules["torch"], recorder.marks
    named: dict[type[Any], Track] = {}

    def find(subject: Any) -> "Track | None":
        if marks.of(subject) is not None:  # it is watched under that name
            return None
        return next((named[cls] for cls in type(subject).__mro__ if cls in named), None)

    modules = _Modules(recorder, torch, find)
    for name, qualname in environment_torch_modules():
        if name == module.__name__:
            cls: Any = module
            for part in qualname.split("."):
                cls = getattr(cls, part, None)
            if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
                named[cls] = recorder.track(cls.__name__)
                modules.watch(cls)
            else:
                log.warning("%s has no class %s that is a module of PyTorch", name, qualname)
    return modules.patches.undo


def _install_compiled(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch what `torch.compile` makes of a module that is named, or that is named itself."""
    compiled = getattr(module, "OptimizedModule", None)
    if compiled is None:
        raise UnknownLibraryError(f"{module.__name__} has no OptimizedModule")
    marks = recorder.marks

    def find(subject: Any) -> "Track | None":
        return marks.of(subject) or marks.of(subject._orig_mod)  # noqa: SLF001  (what it was made of has no other name)

    modules = _Modules(recorder, sys.modules["torch"], find)
    modules.watch(compiled)
    return modules.patches.undo


def _install_graphs(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Leave devices alone while a graph is being captured: asking for an event would end the capture."""
    graph = getattr(module, "CUDAGraph", None)
    if graph is None:
        raise UnknownLibraryError(f"{module.__name__} has no CUDAGraph")
    patches = Patches()
    capturing: list[None] = []
    before = recorder.device.busy

    def begin(original: Any) -> Any:
        @functools.wraps(original)
        def capture_begin(*args: Any, **kwargs: Any) -> Any:
            capturing.append(None)
            try:
                return original(*args, **kwargs)
            except BaseException:
                capturing.pop()
                raise

        return capture_begin

    def end(original: Any) -> Any:
        @functools.wraps(original)
        def capture_end(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            finally:
                if capturing:
                    capturing.pop()

        return capture_end

    try:
        patches.replace(graph, "capture_begin", begin)
        patches.replace(graph, "capture_end", end)
    except BaseException:
        patches.undo()
        raise
    recorder.device.busy = lambda: bool(capturing)

    def undo() -> None:
        recorder.device.busy = before
        patches.undo()

    return undo


class _Known:
    """What is known of one module: where its parameters lie."""

    __slots__ = ("alive", "cuda", "first", "place", "sizes")

    def __init__(self, alive: weakref.ref[Any]) -> None:
        self.alive = alive
        self.first: weakref.ref[Any] | None = None  # one of its parameters, which stands for all
        self.place: Any = None  # its device and type
        self.cuda = False
        self.sizes: dict[str, int] = {}  # bytes by device, as they were told


class _Call:
    """One call of a module that is watched.

    Attributes:
        run: what is recorded of it.
        place: the GPU that it runs on, or None.
        start: the event that began it there.
        key: the inference and the thread in which it is a stage, or None.
    """

    __slots__ = ("key", "place", "run", "start")

    def __init__(self, run: Watched) -> None:
        self.run = run
        self.key: tuple[int, int] | None = None
        self.place: Any = None
        self.start: Any = None


class _Modules:
    """The hooks, and what they know of modules; none is ever written to."""

    def __init__(self, recorder: "Recorder", torch: Any, find: "Callable[[Any], Track | None]") -> None:
        self._recorder = recorder
        self._torch = torch
        self._find = find
        self._running: set[tuple[int, int] | None] = recorder.device.stages  # of all that watches modules
        self._watched: set[type[Any]] = set()
        self._known: dict[int, _Known] = {}
        self._tell = harmless(recorder, self._tell_place, lambda *_: None)
        self.patches = Patches()

    def marked(self, subject: Any, _: "Track") -> None:
        """A user says how an object is watched, which may be a module."""
        if not isinstance(subject, self._torch.nn.Module):
            return
        libraries = {cls.__module__ for cls in type(subject).__mro__}
        if _OTHERS not in libraries and type(subject).__module__ != _COMPILED:
            self.watch(type(subject))

    def watch(self, cls: type[Any]) -> None:
        """Look who is called, of the modules of a class."""
        if cls not in self._watched:
            self._watched.add(cls)
            self.patches.replace(cls, "__call__", lambda original: self._calling(cls, original))

    def _calling(self, cls: type[Any], original: Any) -> Any:
        """The `__call__` of a class."""

        def inherited(self: Any, *args: Any, **kwargs: Any) -> Any:
            # Others, who replace it in `Module` for a while, find their own there.
            return super(cls, self).__call__(*args, **kwargs)  # type: ignore[misc]

        onward = original if "__call__" in vars(cls) else inherited
        patches, is_compiling, begin, finish, fail = (
            self.patches, _is_compiling(self._torch), self.begin, self.finish, self.fail
        )  # fmt: skip

        @functools.wraps(original)
        def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807  (it is what it is called)
            # First, because compilers follow what is done here, and are to find nothing.
            if is_compiling() or not patches.live:
                return onward(self, *args, **kwargs)
            call = begin(cls, self, args, kwargs)
            if call is None:
                return onward(self, *args, **kwargs)
            try:
                result = onward(self, *args, **kwargs)
            except BaseException as error:
                fail(call, error)
                raise
            finish(call, result)
            return result

        return __call__

    def _track(self, cls: type[Any], module: Any) -> "Track | None":
        """How a module is watched, if it is to be by the `__call__` of `cls`."""
        track = self._find(module)
        if track is None:
            return None
        # A class and one of its bases may both be watched.
        nearest = next(one for one in type(module).__mro__ if one in self._watched)
        return track if nearest is cls else None

    # --- around a call: they guard themselves -------------------------------------------------------------------

    def begin(self, cls: type[Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        """A module is called."""
        try:
            track = self._track(cls, module)
            if track is None or self._torch.jit.is_tracing() or (args and isinstance(args[0], self._torch.fx.Proxy)):
                return None
            key = (id(enclosing(self._recorder)), get_ident())
            if key in self._running:  # the stage that runs has this time already
                return None
            known = self._known.get(id(module)) or self._look(module)
            first = known.first() if known.first is not None else None
            if first is not None and (first.device, first.dtype) != known.place:
                self._tell(module, known, track)
            run = watched(track, _STAGE)
            call = _Call(run)
            try:
                if run.own:
                    self._describe(run, args, kwargs)
                if known.cuda:
                    call.place = known.place[0]
                    call.start = self._event(call.place)
                if not run.own:
                    call.key = key
                    self._running.add(key)
            except BaseException:
                run.abandon()
                raise
        except Exception as error:  # ours, on the way of a call
            failed(self._recorder, error)
            return None
        return call

    def finish(self, call: _Call, result: Any) -> None:
        """A call has ended."""
        run = call.run
        self._running.discard(call.key)
        try:
            seconds = run.seconds()
            if run.own and run.call.track.detections is not None:
                run.call.track.read(run.call, result)
            if call.start is None:
                run.finish(seconds)
            else:
                self._finish_later(call)
        except Exception as error:  # ours, on the way of a call
            failed(self._recorder, error)
            run.abandon()

    def fail(self, call: _Call, error: BaseException) -> None:
        """A call has raised."""
        self._running.discard(call.key)
        try:
            call.run.fail(error)
        except Exception as problem:  # ours, on the way of a call
            failed(self._recorder, problem)

    def _finish_later(self, call: _Call) -> None:
        """End a call whose time the GPU tells."""
        run, device = call.run, self._recorder.device
        inference = run.call if run.own else enclosing(self._recorder)
        if inference is None or not inference.open:
            run.abandon()
        elif not device.room(inference):
            run.abandon()
            self._recorder.drop("device_pending")
        else:
            end = self._event(call.place)
            if run.own:
                device.timed(inference, call.start, end)
                run.finish(0.0)
            else:
                device.staged(inference, _STAGE, call.start, end)
                run.abandon()

    # --- what is known of modules -------------------------------------------------------------------------------

    def _event(self, place: Any) -> Any:
        """An event on the stream that the next work on a GPU goes to."""
        cuda = self._torch.cuda
        event = cuda.Event(enable_timing=True)
        event.record(cuda.current_stream(place))
        return event

    def _describe(self, run: Watched, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Report the batch and the size of the tensors that a module is given."""
        size, batch = 0, None
        for value in (*args, *kwargs.values()):
            if isinstance(value, self._torch.Tensor):
                size += value.nbytes
                if batch is None:
                    batch = value.shape[0] if value.ndim > 1 else 0  # a vector may be one item
        facts = run.call.fact()
        if batch:
            facts.batch_size = float(batch)
        if size:
            facts.input_size = float(size)

    def _look(self, module: Any) -> _Known:
        key = id(module)
        known = _Known(weakref.ref(module, lambda _: self._known.pop(key, None)))
        first = next(iter(module.parameters()), None)
        if first is None:
            first = next(iter(module.buffers()), None)
        if first is not None:
            known.first = weakref.ref(first)
        self._known[key] = known
        return known

    def _tell_place(self, module: Any, known: _Known, track: "Track") -> None:
        """Say what a module runs on, and the memory that it holds there: it has moved, or is called the first time."""
        first = known.first() if known.first is not None else None
        if first is None:
            return
        known.place = first.device, first.dtype
        known.cuda = first.device.type == "cuda"
        sizes = dict.fromkeys(known.sizes, 0)  # where it was
        for tensor in {id(one): one for one in (*module.parameters(), *module.buffers())}.values():
            name = str(tensor.device)
            sizes[name] = sizes.get(name, 0) + tensor.nbytes
        known.sizes = sizes
        stored = "torchscript" if isinstance(module, self._torch.jit.ScriptModule) else "pt"
        name, version = track.model, track.version
        self._recorder.model_info(name, version, device=str(first.device), provider="torch", format=stored)
        for place, size in sizes.items():
            self._recorder.model_memory(name, size, version, device=place)


class _Memory:
    """Tells how much memory PyTorch has given to tensors, on each GPU that it uses."""

    def __init__(self, recorder: "Recorder", cuda: Any) -> None:
        self._cuda = cuda
        self._recorder = recorder
        self._told: dict[int, int] = {}

    def __call__(self) -> None:
        """Note what has changed."""
        # Nothing is settled before the first inference, and asking must not be what initialises a device.
        if not self._recorder.series or not self._cuda.is_initialized():
            return
        for index in range(self._cuda.device_count()):
            size = self._cuda.memory_allocated(index)
            if size != self._told.get(index, 0):
                self._recorder.note(None, "vram_allocated_bytes", f"cuda:{index}", float(size))
                self._told[index] = size  # after: another thread that looks meanwhile notes it too


def _is_compiling(torch: Any) -> Callable[[], bool]:
    """Tells whether the code that asks is being compiled; older releases have no such question."""
    found = getattr(getattr(torch, "compiler", None), "is_compiling", None)
    return found if callable(found) else bool
