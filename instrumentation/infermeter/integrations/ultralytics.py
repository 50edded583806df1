"""ultralytics: each image of every predict, track and stream is an inference of its model.

Everything that predicts goes through one generator, `BasePredictor.stream_inference`. What an image took is what the
library says of it (`Results.speed`: its share of its batch), with the stages preprocess, inference and postprocess;
reading a source, drawing and saving are no part of it. Embeddings have no `speed`: of them it is the time of the step
that made them, divided by the images of the batch. An inference that fails took until the exception.

A detection is a box, or an oriented box, that the user gets: segments and poses have one each. The classes of a
classification are no detections. With `infermeter.watch(yolo, detections=...)` the callable is given the `Results` of
one image each time.

A predictor with a `stream_inference` of its own is seen as far as that calls the one of the library. Images that `val`
infers are not: of them the library tells averages only. Its score is told as `model_accuracy_score`: top-1 accuracy of
classifiers, mAP 50-95 of everything that has boxes (of masks and of keypoints where there are some), mean intersection
over union of semantic segmentation. `model_load_seconds` is what `setup_model` takes.
"""

import os
import weakref
from collections.abc import Callable, Generator
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infermeter.call import Call, enclosing, now
from infermeter.load import Load, loading
from infermeter.model_names import from_path
from infermeter.patch import Patches, UnknownLibraryError, failed, harmless
from infermeter.wrap import Around

if TYPE_CHECKING:
    from infermeter.recorder import Recorder
    from infermeter.track import Track

MODULES = ("ultralytics.engine.predictor", "ultralytics.engine.validator")

_STAGE = "ultralytics"
_MILLISECONDS = 1000.0
# How older releases, whose backend has no `format`, tell what it loaded, where newer ones say it in another word.
_FLAGS = {"nn_module": "pt", "pt": "pt", "jit": "torchscript", "xml": "openvino"}
_SAME_FLAGS = ("onnx", "engine", "coreml", "saved_model", "pb", "tflite", "edgetpu", "paddle", "ncnn", "triton")
_PROVIDERS = {"pt": "torch", "torchscript": "torch", "engine": "tensorrt", "onnx": "opencv"}


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch predictors, or validators; see `infermeter.instruments.Integration`."""
    name = "BasePredictor" if module.__name__.endswith("predictor") else "BaseValidator"
    base = getattr(module, name, None)
    if base is None:
        raise UnknownLibraryError(f"{module.__name__} has no {name}")
    patches = Patches()
    predictors = _Predictors(recorder)
    try:
        if name == "BasePredictor":
            patches.around_generator(base, "stream_inference", predictors.drive)
            patches.around(base, "setup_model", predictors.loading())
        else:
            patches.around(base, "__call__", _validating(recorder))
    except BaseException:
        patches.undo()
        raise
    forget = recorder.marks.listen(predictors.marked)

    def undo() -> None:
        forget()
        patches.undo()

    return undo


class _Predictor:
    """What is known of one predictor."""

    __slots__ = ("alive", "told", "track")

    def __init__(self, track: "Track", alive: weakref.ref[Any]) -> None:
        self.track = track
        self.alive = alive
        self.told = False  # what it runs on


class _Predictors:
    """The hooks, and what they know of predictors; none is ever written to."""

    def __init__(self, recorder: "Recorder") -> None:
        self._recorder = recorder
        self._known: dict[int, _Predictor] = {}
        self._marked: dict[int, weakref.ref[Any]] = {}  # the models that users gave a name

    def drive(
        self, generator: Generator[Any, Any, Any], predictor: Any, *_: Any, **__: Any
    ) -> Generator[Any, Any, Any]:
        """`yield from generator`, which is the `stream_inference` of `predictor`."""
        stream = _Stream(self, self._recorder, predictor)
        resume, value = generator.send, None
        while True:
            stream.begin()
            try:
                item = [resume(value)]  # a list, to be emptied: the item must not outlive its use by the consumer
            except StopIteration as stop:
                stream.nothing()
                return stop.value
            except BaseException as error:
                if error is value:  # the consumer's own, thrown in
                    stream.nothing()
                else:
                    stream.failed(error)
                raise
            stream.ended()
            value = None  # do not keep a thrown exception alive while the consumer works
            try:
                value = yield item.pop()
                resume = generator.send
            except GeneratorExit:
                generator.close()
                raise
            except BaseException as error:
                resume, value = generator.throw, error

    def loading(self) -> Around:
        """Around the making of what runs a model."""

        def before(predictor: Any, *_: Any, **__: Any) -> Load | None:
            if loading():  # a user who times the loading knows better what belongs to it
                return None
            track = self.known(predictor).track
            # Not only timed: what a library inside says of its own loading would count the same seconds again.
            return self._recorder.load(track.model, track.version).__enter__()

        def after(load: Load | None, result: Any) -> Any:
            if load is not None:
                load.__exit__(None, None, None)
            return result

        def raised(load: Load | None, error: BaseException) -> None:
            if load is not None:
                load.__exit__(type(error), error, None)

        return Around(
            harmless(self._recorder, before, lambda *_, **__: None),
            harmless(self._recorder, after, lambda _, result: result),
            harmless(self._recorder, raised, lambda *_: None),
        )

    def known(self, predictor: Any) -> _Predictor:
        """What is known of `predictor`, found out at its first call."""
        key = id(predictor)
        found = self._known.get(key)
        if found is not None and found.alive() is predictor:
            return found
        track = self._mark(predictor) or self._recorder.track(_named(predictor))
        found = _Predictor(track, weakref.ref(predictor, lambda _: self._known.pop(key, None)))
        self._known[key] = found
        return found

    def marked(self, subject: Any, _: "Track") -> None:
        """A user says how an object is watched, which may be a model."""
        key = id(subject)
        self._marked[key] = weakref.ref(subject, lambda _: self._marked.pop(key, None))
        self._known.clear()

    def _mark(self, predictor: Any) -> "Track | None":
        """The track of a predictor, or of the model that made it, if a user marked one of them."""
        for reference in list(self._marked.values()):
            subject = reference()
            # Not getattr: models make up attributes that they do not have.
            if subject is not None and (subject is predictor or vars(subject).get("predictor") is predictor):
                return self._recorder.marks.of(subject)
        return None

    def tell(self, predictor: Any, known: _Predictor) -> None:
        """Say what a predictor runs on."""
        known.told = True
        backend, name, version = predictor.model, known.track.model, known.track.version
        stored = _format(backend)
        listed = getattr(getattr(backend, "session", None), "get_providers", None)
        provider = listed()[0] if listed is not None else _PROVIDERS.get(stored, stored)
        self._recorder.model_info(name, version, device=str(predictor.device), provider=provider, format=stored)


class _Stream:
    """One `stream_inference`: what its steps do, each in turn. Its methods never raise."""

    def __init__(self, owner: _Predictors, recorder: "Recorder", predictor: Any) -> None:
        self._owner = owner
        self._recorder = recorder
        self._predictor = predictor
        self._known: _Predictor | None = None
        self._call: Call | None = None  # the inference of this step
        self._inside = False  # whether it is inside another inference instead
        self._outer: Call | None = None  # which that was, the last time
        self._at = 0  # where among its stages we are
        self._total = 0.0  # and how long that took
        self._seen = 0  # images, before this step
        self._embeds = False
        self._batch: Any = None  # before this step, for embeddings; images are not kept alive
        self._started = 0.0

    def begin(self) -> None:
        """A step begins: it may infer a batch, give a further image of the last one, or end."""
        try:
            predictor = self._predictor
            if self._known is None:
                self._known = self._owner.known(predictor)
            else:  # the first step counts its images from 0
                self._seen = predictor.seen
            self._embeds = bool(getattr(predictor.args, "embed", None))
            if self._embeds:
                self._batch = predictor.batch
            outer = enclosing(self._recorder)
            self._inside = outer is not None
            if outer is None:
                self._call = self._known.track.begin()
            elif outer is not self._outer:
                facts = outer.fact()
                if facts.stages is None:
                    facts.stages = []
                self._outer, self._at, self._total = outer, len(facts.stages), 0.0
                facts.stages.append((_STAGE, 0.0))
            self._started = now()
        except Exception as error:  # ours, on the way of a prediction
            self._give_up(error)

    def nothing(self) -> None:
        """The step inferred nothing."""
        self._stage()
        call, self._call = self._call, None
        if call is not None:
            try:
                call.track.abandon(call)
            except Exception as error:  # ours, on the way of a prediction
                failed(self._recorder, error)

    def failed(self, error: BaseException) -> None:
        """The step raised."""
        ended = now()
        self._stage()
        call, self._call = self._call, None
        if call is not None:
            try:
                call.track.fail(call, error, ended - self._started)
            except Exception as problem:  # ours, on the way of a prediction
                failed(self._recorder, problem)

    def ended(self) -> None:
        """The step gave an image."""
        ended = now()
        self._stage()
        call, known = self._call, self._known
        if call is None or known is None:
            return
        try:
            predictor = self._predictor
            if self._embeds:
                batch = predictor.batch
                if batch is self._batch:
                    self.nothing()
                else:
                    self._embedded(len(batch[0]), ended - self._started)
            elif predictor.seen == self._seen:
                self.nothing()
            else:
                self._inferred(predictor.results)
            if not known.told:
                self._owner.tell(predictor, known)
        except Exception as error:  # ours, on the way of a prediction
            self._give_up(error)
        self._batch = None

    def _inferred(self, results: Any) -> None:
        """A batch was inferred: each image is an inference, the first of them the open one."""
        images = float(len(results))
        for result in results:
            speed = result.speed
            stages = [(name, speed[name] / _MILLISECONDS) for name in ("preprocess", "inference", "postprocess")]
            call, self._call = self._call or self._known.track.begin(), None  # type: ignore[union-attr]
            facts = call.fact()
            facts.batch_size = images
            if facts.stages is None:
                facts.stages = stages
            else:  # of libraries inside
                facts.stages += stages
            seconds = stages[0][1] + stages[1][1] + stages[2][1]
            try:
                _report(call, result)
            finally:
                call.track.finish(call, seconds)

    def _embedded(self, images: int, seconds: float) -> None:
        """The embeddings of a batch were made."""
        for _ in range(images):
            call, self._call = self._call or self._known.track.begin(), None  # type: ignore[union-attr]
            call.fact().batch_size = float(images)
            call.track.finish(call, seconds / images)

    def _stage(self) -> None:
        """The step, if it was inside another inference, took until now."""
        outer = self._outer
        if outer is None or not self._inside:
            return
        self._inside = False
        if outer.open and outer.facts is not None and outer.facts.stages is not None:
            self._total += now() - self._started
            outer.facts.stages[self._at] = (_STAGE, self._total)
        else:
            self._outer = None

    def _give_up(self, error: Exception) -> None:
        failed(self._recorder, error)
        self.nothing()


def _report(call: Call, result: Any) -> None:
    """Report the boxes of one image, if it is such a result."""
    track = call.track
    if track.detections is not None:
        track.read(call, result)
        return
    boxes = result.boxes
    if boxes is None:
        boxes = getattr(result, "obb", None)  # older releases know none
        if boxes is None:
            return
    names = result.names if track.names is None else None
    rows = boxes.data
    try:
        # The columns of `boxes.conf` and `boxes.cls`. Cutting a tensor takes ten times as long as an array.
        rows = rows.numpy() if rows.is_cpu else None
    except (AttributeError, TypeError):  # an array, or a type that NumPy has not
        rows = None
    if rows is None:
        call.detections(boxes.conf, boxes.cls, names)
    else:
        call.detections(rows[:, -2], rows[:, -1], names)


def _named(predictor: Any) -> str:
    """The name of the model of a predictor: of its checkpoint, or of the file that describes it."""
    return _of_path(getattr(predictor.args, "model", None)) or type(predictor).__name__


def _of_path(path: Any) -> str:
    if not isinstance(path, (str, os.PathLike)):
        return ""
    text = os.fspath(path)
    return from_path(urlsplit(text).path if "://" in text else text)


def _format(backend: Any) -> str:
    """How the model behind a backend is stored, for example "pt" or "onnx"."""
    stored = getattr(backend, "format", None)
    if isinstance(stored, str):
        return stored
    flag = next((flag for flag in (*_FLAGS, *_SAME_FLAGS) if getattr(backend, flag, None)), "")
    return _FLAGS.get(flag, flag)


def _validating(recorder: "Recorder") -> Around:
    """Around a validation, whose score is told."""

    def before(validator: Any, trainer: Any = None, model: Any = None, **_: Any) -> Any:
        return None if trainer is not None else (validator, model)

    def after(state: Any, result: Any) -> Any:
        if state is not None:
            validator, model = state
            score = _score(getattr(validator, "metrics", None))
            # What is validated is a file, or a model that was made of the file that the arguments name.
            name = _of_path(model) or _of_path(getattr(validator.args, "model", None))
            if score is not None and name:
                recorder.model_accuracy(name, score)
        return result

    return Around(
        harmless(recorder, before, lambda *_, **__: None),
        harmless(recorder, after, lambda _, result: result),
        lambda *_: None,
    )


def _score(metrics: Any) -> float | None:
    """How good a model was, 0 to 1, by what is usual for its kind."""
    for part, measure in (("seg", "map"), ("pose", "map"), ("box", "map"), (None, "top1"), (None, "miou")):
        found = getattr(getattr(metrics, part, None) if part else metrics, measure, None)
        if found is not None:
            return float(found)
    return None
