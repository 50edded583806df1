"""What detections are read from."""

from __future__ import annotations

import array
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest

import infermeter
from infermeter import Detections

if TYPE_CHECKING:
    from tests.instrumentation.conftest import RunPython, Scrape
    from tests.page import Page

EXACT = [0.25, 0.5, 0.875]


def page_of(recorder: infermeter.Recorder, scrape: Scrape, confidences: Any, **options: Any) -> Page:
    """The page after one frame of `confidences`."""
    with recorder.track(model="m") as call:
        call.detections(confidences, **options)
    return scrape(recorder)


@pytest.mark.parametrize(
    "confidences",
    [
        EXACT,
        tuple(EXACT),
        [np.float32(0.25), np.float64(0.5), 0.875],
        [np.array(0.25), np.array([0.5]), np.array([[0.875]])],
        np.array(EXACT),
        np.array(EXACT, dtype=np.float16),
        np.array(EXACT, dtype=np.float32),
        np.array(EXACT, dtype=np.longdouble),
        np.array(EXACT, dtype=">f4"),
        np.array(EXACT, dtype=">f8"),
        np.array(EXACT, dtype=np.float32).reshape(3, 1),
        np.repeat(np.array(EXACT, dtype=np.float32), 2)[::2],
        np.asfortranarray(np.array([[0.25, 9], [0.5, 9], [0.875, 9]], dtype=np.float32))[:, 0],
        np.array(EXACT, dtype=np.float32).data,
        memoryview(array.array("d", EXACT)),
        array.array("f", EXACT),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_every_kind_of_sequence_is_read(recorder: infermeter.Recorder, scrape: Scrape, confidences: Any) -> None:
    """The same numbers count the same, whatever holds them."""
    page = page_of(recorder, scrape, confidences)
    assert page.value("detection_confidence_count") == 3
    assert page.value("detection_confidence_sum") == 1.625
    assert page.by("le", "detection_confidence_bucket")["0.5"] == 2
    assert page.value("objects_per_frame_sum") == 3
    assert page.dropped() == {}


@pytest.mark.parametrize("confidences", [[1, 0, 1], np.array([1, 0, 1]), np.array([True, False, True]), (1, 0, 1)])
def test_whole_numbers_are_read(recorder: infermeter.Recorder, scrape: Scrape, confidences: Any) -> None:
    """Some models only say yes or no."""
    assert page_of(recorder, scrape, confidences).value("detection_confidence_sum") == 2


def test_a_0d_array_is_one_detection(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """So is what indexing an array of one gives."""
    assert page_of(recorder, scrape, np.array(0.5, dtype=np.float32)).value("objects_per_frame_sum") == 1
    assert page_of(recorder, scrape, np.float32(0.5)).value("objects_per_frame_sum") == 2


@pytest.mark.parametrize("confidences", [[], (), np.zeros(0), np.zeros((0, 1), dtype=np.float32)])
def test_an_empty_frame_is_a_frame(recorder: infermeter.Recorder, scrape: Scrape, confidences: Any) -> None:
    """It is counted with 0 objects."""
    page = page_of(recorder, scrape, confidences)
    assert page.by("le", "objects_per_frame_bucket")["0.0"] == 1
    assert page.value("detection_confidence_count") == 0


@pytest.mark.parametrize(
    "confidences",
    [None, "0.5", b"0.5", bytearray(4), {0.5}, {0: 0.5}, ["high"], [0.5, "high"], [None], object(), 1j, [[0.5], ["x"]]],
    ids=repr,
)
def test_what_holds_no_numbers_is_dropped_and_counted(
    recorder: infermeter.Recorder, scrape: Scrape, confidences: Any
) -> None:
    """The inference itself still counts."""
    page = page_of(recorder, scrape, confidences)
    assert page.dropped() == {"unreadable": 1}
    assert page.value("inferences_total") == 1


def test_arrays_may_be_reused_at_once(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """What the caller does to an array, a list or a buffer afterwards changes nothing."""
    buffer = np.full(4, 0.5, dtype=np.float32)
    wide = np.full(4, 0.5)
    numbers = [0.5] * 4
    classes = np.array([1, 1, 1, 1])
    with recorder.track(model="m") as call:
        call.detections(buffer, classes=classes)
        call.detections(wide)
        call.detections(numbers)
        call.detections(buffer.data)
        call.detections([np.array(0.5), buffer[:1], buffer[1:2], buffer[2:3]])
        for one in (buffer, wide, classes):
            one[:] = 0
        numbers[:] = [0.0] * 4
    page = scrape(recorder)
    assert page.value("detection_confidence_sum") == 10
    assert page.by("class", "detections_total") == {"1": 4, "": 16}


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([0, 2, 2], {"face": 1, "2": 2}),
        (np.array([0, 2, 2]), {"face": 1, "2": 2}),
        (np.array([0, 2, 2], dtype=np.uint8), {"face": 1, "2": 2}),
        (np.array([0, 2, 2], dtype=">i4"), {"face": 1, "2": 2}),
        (np.array([0.0, 2.0, 2.0], dtype=np.float32), {"face": 1, "2": 2}),
        ([0.0, 2.0, 2.0], {"face": 1, "2": 2}),
        ([np.int64(0), np.int64(2), np.int64(2)], {"face": 1, "2": 2}),
        (["cat", "dog", "dog"], {"cat": 1, "dog": 2}),
        (np.array(["cat", "dog", "dog"]), {"cat": 1, "dog": 2}),
        (np.array(["cat", "dog", "dog"], dtype=object), {"cat": 1, "dog": 2}),
        ([1, -1, 7], {"plate": 1, "-1": 1, "7": 1}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("names", [["face", "plate"], {0: "face", 1: "plate"}], ids=["list", "mapping"])
def test_classes_become_names(
    recorder: infermeter.Recorder, scrape: Scrape, names: Any, classes: Any, expected: dict[str, int]
) -> None:
    """An index without a name is its own name; a name needs no index."""
    page = page_of(recorder, scrape, EXACT, classes=classes, names=names)
    assert page.by("class", "detections_total") == expected


def test_names_of_the_track_are_the_default(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """Names given with a frame come first."""
    with recorder.track(model="m", names=["face"]) as call:
        call.detections([0.5], classes=[0])
        call.detections([0.5], classes=[0], names=["plate"])
    assert scrape(recorder).by("class", "detections_total") == {"face": 1, "plate": 1}


def test_classes_of_another_number_are_dropped(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """The confidences are kept, the classes counted as refused."""
    page = page_of(recorder, scrape, EXACT, classes=[0, 1])
    assert page.dropped() == {"length_mismatch": 2}
    assert page.value("detection_confidence_count") == 3
    assert page.by("class", "detections_total") == {"": 3}


@pytest.mark.parametrize("classes", [5.5j, object(), "cat", {1}])
def test_unreadable_classes_are_dropped(recorder: infermeter.Recorder, scrape: Scrape, classes: Any) -> None:
    """The confidences are kept."""
    page = page_of(recorder, scrape, EXACT, classes=classes)
    assert sum(page.dropped().values()) == 1
    assert page.by("class", "detections_total") == {"": 3}


def test_each_report_is_a_frame(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """A batch reports once per image."""
    with recorder.track(model="m") as call:
        for number in (2, 0, 1):
            call.detections([0.5] * number)
        call.batch_size(3)
    page = scrape(recorder)
    assert page.value("objects_per_frame_count") == 3
    assert page.value("objects_per_frame_sum") == 3
    assert page.by("le", "objects_per_frame_bucket")["0.0"] == 1
    assert page.value("inference_batch_size_sum") == 3
    assert page.value("inferences_total") == 1


@pytest.mark.parametrize(
    ("returned", "frames", "objects"),
    [
        (np.array(EXACT, dtype=np.float32), 1, 3),
        (np.array(EXACT), 1, 3),
        (EXACT, 1, 3),
        ((0.5, 0.5), 1, 2),
        ([], 1, 0),
        (Detections(EXACT, [0, 0, 1]), 1, 3),
        ([Detections(EXACT), Detections([])], 2, 3),
    ],
    ids=repr,
)
def test_a_callable_reads_the_result(
    recorder: infermeter.Recorder, scrape: Scrape, returned: Any, frames: int, objects: int
) -> None:
    """It may return confidences, `Detections`, or a list of those."""

    @recorder.track(model="m", detections=lambda result: result["found"])
    def infer() -> dict[str, Any]:
        return {"found": returned}

    assert infer() == {"found": returned} if not isinstance(returned, np.ndarray) else infer()["found"] is returned
    page = scrape(recorder)
    assert page.value("objects_per_frame_count") == frames
    assert page.value("objects_per_frame_sum") == objects
    assert page.value("inferences_total") == 1


def test_a_callable_that_raises_is_counted(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """The result reaches the caller, the inference counts."""
    infer = recorder.track(model="m", detections=lambda result: result.conf)(lambda: 5)
    assert infer() == 5
    page = scrape(recorder)
    assert page.dropped() == {"extractor_error": 1}
    assert page.value("inferences_total") == 1


def ultralytics(conf: list[float], cls: list[float], attribute: str = "boxes") -> SimpleNamespace:
    """An object with the attributes of `ultralytics.engine.results.Results`."""
    boxes = SimpleNamespace(conf=np.array(conf, dtype=np.float32), cls=np.array(cls, dtype=np.float32))
    result = SimpleNamespace(boxes=None, obb=None, names={0: "person", 1: "car"})
    setattr(result, attribute, boxes)
    return result


ROWS = np.array([[0, 0, 1, 1, 0.5, 0], [0, 0, 1, 1, 0.25, 1]], dtype=np.float32)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ultralytics([0.5, 0.25], [0, 1]), {"person": 1, "car": 1}),
        (ultralytics([0.5, 0.25], [0, 1], "obb"), {"person": 1, "car": 1}),
        ([ultralytics([0.5], [0]), ultralytics([0.25], [0])], {"person": 2}),
        (SimpleNamespace(confidence=np.array([0.5, 0.25]), class_id=np.array([0, 1]), data={}), {"0": 1, "1": 1}),
        (
            SimpleNamespace(
                confidence=np.array([0.5, 0.25]), class_id=np.array([0, 1]), data={"class_name": np.array(["a", "b"])}
            ),
            {"a": 1, "b": 1},
        ),
        ({"boxes": ROWS[:, :4], "labels": np.array([1, 1]), "scores": ROWS[:, 4]}, {"1": 2}),
        ([{"scores": [0.5], "labels": [3]}, {"scores": [0.25], "labels": [3]}], {"3": 2}),
        (ROWS, {"0": 1, "1": 1}),
        ([ROWS[:1], ROWS[1:]], {"0": 1, "1": 1}),
        (Detections([0.5, 0.25], ["x", "x"]), {"x": 2}),
    ],
    ids=["boxes", "obb", "results", "supervision", "named", "torchvision", "batch", "rows", "arrays", "own"],
)
def test_auto_knows_results_by_their_shape(
    recorder: infermeter.Recorder, scrape: Scrape, result: Any, expected: dict[str, int]
) -> None:
    """No library is imported for it."""
    infer = recorder.track(model="m", detections="auto")(lambda: result)
    assert infer() is result
    page = scrape(recorder)
    assert page.value("detection_confidence_sum") == 0.75
    assert page.by("class", "detections_total") == expected
    assert page.dropped() == {}


@pytest.mark.parametrize(
    "result",
    [(0.5, 0.25), np.array([0.5]), np.zeros((2, 5)), None, 5, "boxes", {"boxes": []}, [[ROWS]], SimpleNamespace()],
    ids=repr,
)
def test_auto_does_not_guess(recorder: infermeter.Recorder, scrape: Scrape, result: Any) -> None:
    """Tuples, bare arrays and whatever else could mean anything are counted as unrecognised."""
    infer = recorder.track(model="m", detections="auto")(lambda: result)
    assert infer() is result
    page = scrape(recorder)
    assert page.dropped() == {"unrecognised_result": 1}
    assert page.value("detection_confidence_count") == 0
    assert page.value("inferences_total") == 1


class OnDevice:
    """An array in the memory of a GPU: touching its values would be a fault."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __len__(self) -> int:
        return 3

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError

    __float__ = tolist = cpu = __iter__ = __getitem__ = __array__


@pytest.mark.parametrize("confidences", [OnDevice(), [OnDevice(), OnDevice()]], ids=["array", "list"])
def test_arrays_on_a_device_are_never_read(recorder: infermeter.Recorder, scrape: Scrape, confidences: Any) -> None:
    """They are dropped and counted: reading them would make the device wait."""
    page = page_of(recorder, scrape, confidences)
    assert page.dropped() == {"device_array": 1}
    assert "detection_confidence_count" not in page.names


def test_strict_raises_what_would_be_dropped(run_python: RunPython) -> None:
    """`INFERMETER_STRICT=1` is for tests of services."""
    printed = run_python(
        """
        import infermeter
        try:
            with infermeter.track(model="m") as call: call.detections(["high"])
        except TypeError as error: print(error)
        """,
        environment={"INFERMETER_STRICT": "1", "INFERMETER_SERVICE": "s"},
    )
    assert printed == "no numbers in a str\n"


def test_what_is_dropped_is_logged_once_per_kind(
    recorder: infermeter.Recorder, scrape: Scrape, caplog: pytest.LogCaptureFixture
) -> None:
    """The first is told, all are counted."""
    for _ in range(3):
        with recorder.track(model="m") as call:
            call.detections(["high"])
            call.tokens(prompt=-1)
    assert scrape(recorder).dropped() == {"unreadable": 3, "negative": 3}
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "dropped an observation: values were of a type or shape that no number can be read from (TypeError: no numbers "
        "in a str)",
        "dropped an observation: a value was negative",
    ]


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (lambda call: call.tokens(prompt=-1), "negative"),
        (lambda call: call.tokens(completion=float("nan")), "non_finite"),
        (lambda call: call.batch_size(float("inf")), "non_finite"),
        (lambda call: call.batch_size(float("-inf")), "non_finite"),
        (lambda call: call.input_size(None), "unreadable"),
        (lambda call: call.input_size("8"), "unreadable"),
    ],
)
def test_impossible_facts_are_dropped_and_counted(
    recorder: infermeter.Recorder, scrape: Scrape, report: Any, reason: str
) -> None:
    """They leave no trace in totals."""
    with recorder.track(model="m") as call:
        report(call)
    page = scrape(recorder)
    assert page.dropped() == {reason: 1}
    assert page.by("type", "inference_tokens_total") == {"prompt": 0, "completion": 0}
