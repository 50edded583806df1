"""transformers: each `generate` and each call of a pipeline is an inference of its model.

A model is called by its name at the hub, or by the folder that it was loaded from. `generate` inside a pipeline is a
stage of it, `transformers`, whose tokens are the pipeline's.

Tokens of the prompt are those that the attention mask keeps; generated ones are what follows the prompt in each row, up
to and including the token that ends it. On a device other than the CPU values are never read: there padding counts in
batches of several rows. With a `streamer` the first token is timed, and the mean time between those that follow.

A pipeline that is given a data set or a generator infers while its result is iterated: that is one inference, from the
first step to the last, whose `batch_size` is the number of items; it takes the time inside the steps.
"""

import functools
import weakref
from collections.abc import Callable
from contextvars import Token
from types import GeneratorType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from infermeter.generation import STAGE, WITHIN, Within, enter, watched_generate
from infermeter.hub import Models
from infermeter.patch import Patches, UnknownLibraryError, failed, harmless
from infermeter.steps import Steps
from infermeter.watched import Watched, watched
from infermeter.wrap import Around

if TYPE_CHECKING:
    from infermeter.recorder import Recorder
    from infermeter.track import Track

MODULES = ("transformers.generation.utils", "transformers.pipelines.base")

_DETECTS = {"object-detection", "zero-shot-object-detection"}
_ITERATORS = ("PipelineIterator", "PipelineChunkIterator", "PipelinePackIterator")


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch `generate` or pipelines; see `infermeter.instruments.Integration`."""
    models = Models(recorder, "transformers")
    patches = Patches()
    undone: list[Callable[[], None]] = [patches.undo, recorder.marks.listen(models.marked)]

    def undo() -> None:
        for one in reversed(undone):
            one()

    try:
        if module.__name__ == "transformers.generation.utils":
            mixin = _found(module, "GenerationMixin")
            patches.replace(mixin, "generate", lambda original: watched_generate(recorder, models, original, patches))
        else:
            pipeline = _found(module, "Pipeline")
            pipelines = _Pipelines(recorder, models, getattr(module, _ITERATORS[0], ()))
            undone.append(pipelines.end)
            patches.around(pipeline, "__call__", pipelines.around())
            for iterator in (getattr(module, name, None) for name in _ITERATORS):
                if iterator is not None and "__next__" in vars(iterator):
                    patches.replace(iterator, "__next__", pipelines.stepping)
    except BaseException:
        undo()
        raise
    return undo


def _found(module: ModuleType, name: str) -> Any:
    found = getattr(module, name, None)
    if found is None:
        raise UnknownLibraryError(f"{module.__name__} has no {name}")
    return found


class _Call(NamedTuple):
    """A call of a pipeline that runs."""

    pipeline: Any
    run: Watched
    inputs: Any
    token: Token[Within | None]


class _Passes:
    """The inferences of one iterator that a pipeline gave: one from its beginning to its end, then maybe another."""

    __slots__ = ("alive", "pipeline", "steps")

    def __init__(self, alive: weakref.ref[Any], pipeline: Any) -> None:
        self.alive = alive
        self.pipeline = pipeline
        self.steps: Steps | None = None


class _Pipelines:
    """The hooks around pipelines and the iterators that they give.

    Args:
        recorder: what they are recorded by.
        models: names their models.
        iterator: the class of these iterators.
    """

    def __init__(self, recorder: "Recorder", models: Models, iterator: Any) -> None:
        self._recorder = recorder
        self._models = models
        self._iterator = iterator
        self._passes: dict[int, _Passes] = {}

    def around(self) -> Around:
        """Around the call of a pipeline."""
        return Around(
            harmless(self._recorder, self._begin, lambda *_, **__: None),
            harmless(self._recorder, self._finish, lambda _, result: result),
            harmless(self._recorder, self._fail, lambda *_: None),
        )

    def stepping(self, original: Any) -> Any:
        """The `__next__` of a class of iterators."""
        passes, begin = self._passes, self._step

        @functools.wraps(original)
        def __next__(self: Any) -> Any:  # noqa: N807  (it is what it is called)
            known = passes.get(id(self)) if passes else None
            begun = begin(known, self) if known is not None else None
            if known is None or begun is None:
                return original(self)
            steps, token = begun
            try:
                item = original(self)
            except StopIteration:
                WITHIN.reset(token)
                known.steps = None
                steps.ended() if steps.items else steps.abandoned()
                raise
            except BaseException as error:
                WITHIN.reset(token)
                known.steps = None
                steps.raised(error)
                raise
            WITHIN.reset(token)
            steps.gave(item)
            return item

        return __next__

    def end(self) -> None:
        """Their next steps will not be seen: what is open ends here."""
        for known in list(self._passes.values()):
            if known.steps is not None:
                known.steps.ended()
        self._passes.clear()

    def _track(self, pipeline: Any) -> "Track":
        return self._recorder.marks.of(pipeline) or self._models.track(pipeline.model)

    def _begin(self, pipeline: Any, inputs: Any = None, *_: Any, **__: Any) -> _Call:
        run = watched(self._track(pipeline), STAGE)
        return _Call(pipeline, run, inputs, enter(self._recorder, run))

    def _finish(self, call: _Call | None, result: Any) -> Any:
        if call is None:
            return result
        seconds = call.run.seconds()
        WITHIN.reset(call.token)
        if isinstance(result, self._iterator):
            call.run.abandon()
            self._follow(call.pipeline, result)
            return result
        if isinstance(call.inputs, GeneratorType) and isinstance(result, list) and not result:
            call.run.abandon()  # it was empty
            return result
        try:
            if call.run.own:
                several = isinstance(call.inputs, list) and not _is_chat(call.inputs)
                call.run.call.batch_size(len(call.inputs) if several else 1)
                self._read(call.pipeline, call.run, result if several else [result])
        finally:
            call.run.finish(seconds)
        return result

    def _fail(self, call: _Call | None, error: BaseException) -> None:
        if call is not None:
            WITHIN.reset(call.token)
            call.run.fail(error)

    def _follow(self, pipeline: Any, iterator: Any) -> None:
        key = id(iterator)
        self._passes[key] = _Passes(weakref.ref(iterator, lambda _: self._passes.pop(key, None) and None), pipeline)

    def _step(self, known: _Passes, iterator: Any) -> tuple[Steps, Token[Within | None]] | None:
        """A step of an iterator begins."""
        try:
            if known.alive() is not iterator:
                return None
            if known.steps is None:
                run = watched(self._track(known.pipeline), STAGE)
                run.pause()
                known.steps = Steps(self._recorder, run, *self._reading(known.pipeline, run))
            known.steps.begin()
            run = known.steps.run
            return known.steps, enter(self._recorder, run)
        except Exception as error:  # ours, on the way of a step
            failed(self._recorder, error)
            return None

    def _reading(self, pipeline: Any, run: Watched) -> tuple[Callable[[Any], None], Callable[[], None]]:
        """What reads each item of an iterator, and what tells of their number."""
        items = 0

        def read(item: Any) -> None:
            nonlocal items
            items += 1
            if items == 1 and run.own and run.call.fact().first_item is None:
                run.first_item()
            if run.own:
                self._read(pipeline, run, [item])

        def end() -> None:
            run.call.batch_size(items)

        return read, end

    def _read(self, pipeline: Any, run: Watched, results: Any) -> None:
        """Report the detections in the result of each input."""
        track = run.call.track
        if track.detections is not None:
            for result in results:
                track.read(run.call, result)
        elif getattr(pipeline, "task", None) in _DETECTS:
            for found in results:
                run.call.detections([one["score"] for one in found], [one["label"] for one in found])


def _is_chat(inputs: list[Any]) -> bool:
    """Whether a list is one conversation."""
    return bool(inputs) and isinstance(inputs[0], dict) and "role" in inputs[0]
