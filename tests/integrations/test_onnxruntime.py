"""The real onnxruntime keeps the contract, and what is exposed of it is what the runs themselves say."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import types
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import infermeter
from infermeter.results import Detections
from tests.integrations.contract import Case, Contract
from tests.page import Page

onnxruntime: Any = pytest.importorskip("onnxruntime")

from onnxruntime.capi.onnxruntime_pybind11_state import OrtValueVector  # noqa: E402

from tests.integrations.onnx_models import FLOAT, adder, model, session, values, written  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODULE = "onnxruntime.capi.onnxruntime_inference_collection"
PICTURES = {"a": np.arange(384, dtype=np.float32).reshape(2, 3, 8, 8), "b": np.ones((2, 3, 8, 8), dtype=np.float32)}
# Sessions whose callbacks may still be returning: the end of one waits for them, and has the lock that they wait for.
KEPT: list[Any] = []
WRONG = {"a": PICTURES["a"], "b": PICTURES["b"].astype(np.float64)}


def bound(session: Any, arrays: dict[str, Any] = PICTURES) -> list[Any]:
    """A run with inputs and outputs that are bound before."""
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("sum")
    session.run_with_iobinding(binding)
    return list(binding.copy_outputs_to_cpu())


def vectors(session: Any) -> Any:
    """A run with vectors of C values."""
    feeds, fetches = OrtValueVector(), OrtValueVector()
    for array in PICTURES.values():
        feeds.push_back(onnxruntime.OrtValue.ortvalue_from_numpy(array)._ortvalue)
    cpu = onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()
    session.run_with_ortvaluevector(onnxruntime.RunOptions(), list(PICTURES), feeds, ["sum"], fetches, [cpu])
    return fetches[0].numpy()


def asynchronous(session: Any, arrays: dict[str, Any] = PICTURES) -> Any:
    """A run that ends in a callback, in another thread."""
    done = threading.Event()
    told: list[Any] = []
    KEPT.append(session)

    def callback(outputs: Any, user_data: Any, error: str) -> None:
        told.extend((outputs, user_data, error))
        done.set()

    session.run_async(None, arrays, callback, "mine")
    assert done.wait(20)
    return told


def many(session: Any) -> list[Any]:
    """Runs of several sizes, some of which fail."""
    results = [session.run(None, {name: array[:size] for name, array in PICTURES.items()}) for size in (1, 2, 1)]
    with suppress(Exception):
        session.run(None, WRONG)
    return results


class TestContract(Contract):
    """Every way to run a session."""

    integration = "onnxruntime"
    cases = {
        "run": Case(lambda session: session.run(None, PICTURES)),
        "run with names": Case(lambda session: session.run(["sum"], input_feed=PICTURES, run_options=None)),
        "run of lists": Case(
            lambda session: session.run(None, {name: value.tolist() for name, value in PICTURES.items()})
        ),
        "run of values": Case(lambda session: session.run(None, values(PICTURES))),
        "run_with_ort_values": Case(lambda session: session.run_with_ort_values(["sum"], values(PICTURES))),
        "run_with_iobinding": Case(bound),
        "run_with_ortvaluevector": Case(vectors),
        "run_async": Case(asynchronous),
        "many": Case(many, inferences=4, failures=1),
        "wrong type": Case(lambda session: session.run(None, WRONG), failures=1),
        "missing input": Case(lambda session: session.run(None, {}), failures=1),
        "no mapping": Case(lambda session: session.run(None, 7), failures=1),
        "no output of that name": Case(lambda session: session.run(["none"], PICTURES), failures=1),
        "wrong type, bound": Case(lambda session: bound(session, WRONG), failures=1),
        "wrong type, run_async": Case(lambda session: asynchronous(session, WRONG), failures=1),
        "wrong arguments": Case(lambda session: session.run(), inferences=0),
    }

    def subject(self) -> Any:
        return session()

    def patched(self) -> list[tuple[Any, str]]:
        module: Any = sys.modules[MODULE]
        runs = ["run", "run_async", "run_with_iobinding", "run_with_ort_values", "run_with_ortvaluevector"]
        owner: Any = module.Session
        inference_session: Any = module.InferenceSession
        return [*((owner, name) for name in (*runs, "set_providers")), (inference_session, "__init__")]


@pytest.fixture
def watching(recorder: infermeter.Recorder) -> infermeter.Recorder:
    """A recorder that watches onnxruntime."""
    recorder.instrument("onnxruntime")
    return recorder


def models(recorder: infermeter.Recorder) -> dict[str, float]:
    """Inferences by model."""
    return Page.of(recorder).by("model", "inferences_total")


def test_what_is_known_of_a_run(watching: infermeter.Recorder) -> None:
    """Duration, batch and bytes of the inputs, by every way to run."""
    one = session()
    one.run(None, PICTURES)
    one.run(None, {name: array[:1] for name, array in PICTURES.items()})
    one.run_with_ort_values(["sum"], values(PICTURES))
    vectors(one)
    asynchronous(one)
    bound(one)  # what is bound cannot be asked for
    page = Page.of(watching)
    size = PICTURES["a"].nbytes * 2
    assert page.value("inference_duration_count") == 6
    assert page.value("inference_batch_size_count") == 5
    assert page.value("inference_batch_size_sum") == 2 + 1 + 2 + 2 + 2
    told = hasattr(values(PICTURES)["a"], "tensor_size_in_bytes")  # older releases do not tell of their own values
    assert page.value("inference_input_size_bytes_sum") == size * (4.5 if told else 2.5)
    assert page.value("inferences_in_flight") == 0
    assert page.dropped() == {}


def test_time_is_that_of_the_run(watching: infermeter.Recorder) -> None:
    """The recorded time of a call lies within what its caller sees."""
    one = session()
    one.run(None, PICTURES)
    before = Page.of(watching).value("inference_duration_sum")
    from time import perf_counter

    started = perf_counter()
    one.run(None, PICTURES)
    seen = perf_counter() - started
    assert 0 < Page.of(watching).value("inference_duration_sum") - before < seen


@pytest.mark.parametrize(
    ("content", "file", "expected"),
    [
        (adder(), "yolov8n.onnx", ("yolov8n", "")),
        (adder({"model_name": "gate", "model_version": "7"}), "yolov8n.onnx", ("gate", "7")),
        (adder(version=3), "scrfd/model.onnx", ("scrfd", "3")),
        (adder(), "rtdetr/onnx/model.onnx", ("rtdetr", "")),
        (adder(graph="resnet"), None, ("resnet", "")),
        (adder(), None, ("tests", "")),
    ],
)
def test_a_model_is_called_what_its_user_calls_it(
    watching: infermeter.Recorder, tmp_path: Path, content: bytes, file: str | None, expected: tuple[str, str]
) -> None:
    """Metadata, then file or folder, then graph, then the tool that wrote it."""
    session(written(tmp_path, file, content) if file else content).run(None, PICTURES)
    page = Page.of(watching)
    found = [(own["model"], own["version"]) for name, own, _ in page.samples if name == "inferences_total"]
    assert found == [expected]


def test_two_sessions_of_one_model_are_one(watching: infermeter.Recorder, tmp_path: Path) -> None:
    """Replicas count together."""
    path = written(tmp_path, "face.onnx", adder())
    for one in (session(path), session(path)):
        one.run(None, PICTURES)
    assert models(watching) == {"face": 2}


def test_a_mark_renames(watching: infermeter.Recorder) -> None:
    """`watch` gives one session a name, also after it ran; others keep theirs."""
    one, other = session(), session()
    one.run(None, PICTURES)
    assert watching.watch(one, "gate", "8") is one
    one.run(None, PICTURES)
    other.run(None, PICTURES)
    assert models(watching) == {"tests": 2, "gate": 1}


def test_watch_alone_starts_watching(recorder: infermeter.Recorder) -> None:
    """Whoever marks a session need not instrument."""
    one = recorder.watch(session(), "gate")
    one.run(None, PICTURES)
    assert models(recorder) == {"gate": 1}


def test_watch_reads_with_a_callable(watching: infermeter.Recorder) -> None:
    """`detections=` of a mark gets the list that the run gives."""
    one = watching.watch(
        session(), "gate", detections=lambda outputs: Detections([float(outputs[0].max()) / 512], ["dog"])
    )
    one.run(None, PICTURES)
    page = Page.of(watching)
    assert page.value("detections_total", **{"class": "dog"}) == 1
    assert page.value("detection_confidence_sum") == 384 / 512


def test_device_is_the_one_that_runs(watching: infermeter.Recorder, tmp_path: Path) -> None:
    """A provider that is asked for and cannot be had is not told; loading is timed."""
    asked = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        onnxruntime.InferenceSession(written(tmp_path, "face.onnx", adder()), providers=asked)
    page = Page.of(watching)
    (info,) = [own for name, own, _ in page.samples if name == "model_info"]
    assert (info["device"], info["provider"], info["format"]) == ("cpu", "CPUExecutionProvider", "onnx")
    assert page.value("model_load_seconds_count", model="face") == 1


def test_loading_is_told_by_who_knows_better(watching: infermeter.Recorder, tmp_path: Path) -> None:
    """Within a `load` of the user's own the session is part of that."""
    path = written(tmp_path, "face.onnx", adder())
    with watching.load("mine"):
        session(path)
    assert Page.of(watching).by("model", "model_load_seconds_count") == {"mine": 1}


def test_errors_are_told_by_their_kind(watching: infermeter.Recorder) -> None:
    """`run` raises one; `run_async` tells only a text, from which the kind is not guessed."""
    one = session()
    with pytest.raises(Exception, match="Unexpected input data type"):
        one.run(None, WRONG)
    asynchronous(one, WRONG)
    found = Page.of(watching).by("error_type", "model_errors_total")
    assert {kind: number for kind, number in found.items() if number} == {
        "InvalidArgument": 1,
        "RuntimeException": 1,
    }


class Wrapped(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session as users write it to have it pickled."""

    def __init__(self, path: str) -> None:
        super().__init__(path, providers=["CPUExecutionProvider"])
        self.path = path

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        return super().run(*args, **kwargs)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_sessions_of_their_own(
    watching: infermeter.Recorder, tmp_path: Path, copied: Callable[[Any], Any]
) -> None:
    """A subclass that can be pickled is counted once a run, whoever made it, and carries nothing of ours."""
    one = Wrapped(written(tmp_path, "face.onnx", adder()))
    one.run(None, PICTURES)
    assert b"infermeter" not in pickle.dumps(one)
    copied(one).run(None, PICTURES)
    assert models(watching) == {"face": 2}
    assert Page.of(watching).value("model_load_seconds_count") == 2


def test_plain_sessions_pickle_as_before(watching: infermeter.Recorder) -> None:
    """They do not, and say so in the same words."""
    one = session()
    one.run(None, PICTURES)
    with pytest.raises(TypeError) as watched:
        pickle.dumps(one)
    watching.uninstrument()
    with pytest.raises(TypeError) as plain:
        pickle.dumps(session())
    assert str(watched.value) == str(plain.value)


def test_a_dead_session_is_forgotten(watching: infermeter.Recorder) -> None:
    """Sessions come and go: nothing keeps them, and another one at the same place is another one."""
    import gc
    import weakref

    one = session()
    one.run(None, PICTURES)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
    for index in range(5):
        session(adder({"model_name": f"m{index}"})).run(None, PICTURES)
    assert models(watching) == {"tests": 1, **{f"m{index}": 1 for index in range(5)}}


def test_what_was_held_passes_through(recorder: infermeter.Recorder) -> None:
    """A bound method that was taken while watched still works, and counts no more."""
    recorder.instrument("onnxruntime")
    one = session()
    run = one.run
    run(None, PICTURES)
    recorder.uninstrument()
    assert np.array_equal(run(None, PICTURES)[0], PICTURES["a"] + 1)
    assert models(recorder) == {"tests": 1}


def test_end_of_watching_during_a_run(recorder: infermeter.Recorder) -> None:
    """A run that is under way when nobody watches any more is still recorded."""
    recorder.instrument("onnxruntime")
    one = session()
    KEPT.append(one)
    inside, go_on = threading.Event(), threading.Event()

    def callback(*_: Any) -> None:
        inside.set()
        go_on.wait(20)

    one.run_async(None, PICTURES, callback, None)
    assert inside.wait(20)
    recorder.uninstrument()
    go_on.set()
    assert models(recorder) == {"tests": 1}
    assert Page.of(recorder).value("inferences_in_flight") == 0


@pytest.mark.parametrize("missing", ["run", "run_async", "run_with_ort_values", "run_with_iobinding", "set_providers"])
def test_a_release_that_is_too_old_or_too_new(recorder: infermeter.Recorder, missing: str) -> None:
    """A release without what is replaced is left as it is, whole, and whoever asked for it by name is told."""
    real: Any = sys.modules[MODULE]
    methods = {name: value for name, value in vars(real.Session).items() if name != missing}
    other: Any = types.ModuleType(MODULE)
    other.Session = type("Session", (), {n: v for n, v in methods.items() if callable(v)})
    other.InferenceSession = type("InferenceSession", (other.Session,), {"__init__": lambda self: None})
    before = dict(vars(other.Session))
    sys.modules[MODULE] = other
    try:
        with pytest.raises(
            infermeter.ConfigError, match=f"onnxruntime.* is not one that it knows: Session has no {missing}"
        ):
            recorder.instrument("onnxruntime")
        recorder.instrument()  # unasked, it is only left out
        assert dict(vars(other.Session)) == before
    finally:
        sys.modules[MODULE] = real
        recorder.uninstrument()


def test_a_hook_that_fails_is_counted(watching: infermeter.Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own failure is told by a reason, and the run goes on."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    one = session()
    one.run(None, PICTURES)
    from infermeter.track import Track

    monkeypatch.setattr(Track, "end_told", lambda *_: 1 / 0)
    assert len(one.run(None, PICTURES)) == 1
    assert Page.of(watching).dropped() == {"internal": 1}


def test_metadata_and_graph_of_an_unnamed_model(watching: infermeter.Recorder) -> None:
    """A graph's name that every tool writes is no name."""
    shape = ("n", 3, 8, 8)
    tensors = [("a", FLOAT, shape), ("b", FLOAT, shape)]
    session(model([("Add", ["a", "b"], ["sum"])], tensors, [("sum", FLOAT, shape)], graph="torch_jit")).run(
        None, PICTURES
    )
    assert models(watching) == {"tests": 1}
