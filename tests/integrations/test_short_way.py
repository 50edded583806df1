"""Runs of onnxruntime that take the short way count as those that do not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integrations.onnx_models import FLOAT, STRING, model, passed_through, session
from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable

    import infermeter

SHAPE = ("n", 4)
NEGATIVE = model([("Neg", ["x"], ["y"])], [("x", FLOAT, SHAPE)], [("y", FLOAT, SHAPE)])


def feed(size: int, kind: type[Any] = np.float32) -> dict[str, Any]:
    """An input of so many items; the model refuses all kinds but one."""
    return {"x": np.ones((size, 4), kind)}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=30))
def test_any_sequence_is_counted(new_recorder: Callable[[], infermeter.Recorder], runs: list[tuple[int, bool]]) -> None:
    """Durations, batches, bytes and failures are those of the runs, in whatever order sizes come and go."""
    recorder = new_recorder()
    recorder.instrument("onnxruntime")
    one = session(NEGATIVE)
    for size, works in runs:
        if works:
            (result,) = one.run(None, feed(size))
            assert np.array_equal(result, -feed(size)["x"])
        else:
            with pytest.raises(Exception, match="Unexpected input data type"):
                one.run(None, feed(size, np.float64))
    recorder.uninstrument()
    if not runs:
        return
    page = Page.of(recorder)
    sizes = [size for size, works in runs if works]
    assert page.value("inferences_total") == len(runs)
    assert page.value("inference_duration_count") == len(runs)
    assert page.value("inferences_in_flight") == 0
    assert page.value("model_errors_total") == len(runs) - len(sizes)
    if sizes:
        assert page.value("inference_batch_size_count") == len(sizes)
        assert page.value("inference_batch_size_sum") == sum(sizes)
        assert page.value("inference_input_size_bytes_sum") == sum(sizes) * 16
    assert page.dropped() == {}


def test_strings_of_one_shape_differ(recorder: infermeter.Recorder) -> None:
    """What an array of them takes is what is counted; of objects it is not known."""
    recorder.instrument("onnxruntime")
    one = session(passed_through(("x", "y", STRING, ("n",))))
    given = [np.array(["a"]), np.array(["a" * 1000]), np.array(["a" * 10], dtype=object)]
    for value in given * 3:
        assert one.run(None, {"x": value})[0].tolist() == value.tolist()
    page = Page.of(recorder)
    assert page.value("inferences_total") == 9
    assert page.value("inference_input_size_bytes_count") == 6
    assert page.value("inference_input_size_bytes_sum") == 3 * (4 + 4000)


def test_many_runs_are_folded_on_the_way(recorder: infermeter.Recorder) -> None:
    """What waits for a fold is bounded, and nothing of it is lost."""
    recorder.instrument("onnxruntime")
    one, input_feed = session(NEGATIVE), feed(1)
    for _ in range(10_000):
        one.run(None, input_feed)
    (series,) = recorder.series.values()
    assert series.alike is not None
    assert sum(map(len, series.alike.values())) < 5000
    assert Page.of(recorder).value("inferences_total") == 10_000


def test_inside_an_inference_it_stays_a_stage(recorder: infermeter.Recorder) -> None:
    """Who has taken the short way before does not when a user opens an inference around it."""
    recorder.instrument("onnxruntime")
    one = session(NEGATIVE)
    for _ in range(3):
        one.run(None, feed(1))

    @recorder.track(model="outer")
    def infer() -> None:
        one.run(None, feed(1))

    infer()
    with recorder.track(model="outer"):
        one.run(None, feed(1))
    page = Page.of(recorder)
    assert page.by("model", "inferences_total") == {"tests": 3, "outer": 2}
    assert page.by("stage", "inference_stage_duration_seconds_count") == {"onnxruntime": 2}


def test_a_mark_and_the_end_of_watching_end_it(recorder: infermeter.Recorder) -> None:
    """What was learned is forgotten with a new name, and when nobody watches."""
    recorder.instrument("onnxruntime")
    one = session(NEGATIVE)
    run = one.run
    for _ in range(3):
        run(None, feed(1))
    recorder.watch(one, "gate")
    for _ in range(2):
        run(None, feed(1))
    recorder.uninstrument()
    run(None, feed(1))
    assert Page.of(recorder).by("model", "inferences_total") == {"tests": 3, "gate": 2}


def test_a_child_counts_for_itself(recorder: infermeter.Recorder) -> None:
    """After a fork neither what the parent learned nor what it counted is the child's."""
    recorder.instrument("onnxruntime")
    one = session(NEGATIVE)
    for _ in range(3):
        one.run(None, feed(1))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        for _ in range(2):
            one.run(None, feed(1))
        os.write(writer, str(Page.of(recorder).value("inferences_total")).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert float(pipe.read()) == 2
    assert os.waitpid(pid, 0)[1] == 0
    assert Page.of(recorder).value("inferences_total") == 3
