"""The real ultralytics: what is exposed of its predictions is what its results say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

import infermeter
from tests.integrations.predictions import boxes_of, check, images, samples, ultralytics, value, yolo

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("default")  # theirs


@pytest.fixture
def recorder() -> Iterator[infermeter.Recorder]:
    """A recorder of the test's own, which watches ultralytics."""
    recorder = infermeter.Recorder(service="test", registry=CollectorRegistry())
    recorder.instrument("ultralytics")
    yield recorder
    recorder.uninstrument()


@pytest.mark.parametrize("task", ["", "-seg", "-pose", "-obb", "-cls"])
def test_what_is_exposed_is_what_the_results_say(recorder: infermeter.Recorder, task: str) -> None:
    """Every task: durations, stages, confidences, classes and objects per frame; a classification detects nothing."""
    model = yolo(f"yolov8n{task}.yaml")
    results = [*model.predict(images(3)), *model.predict(images(1)), *model(images(2))]
    assert task == "-cls" or sum(len(boxes_of(result)) for result in results) > 0
    check(recorder, f"yolov8n{task}", results)


def test_transformer_detector(recorder: infermeter.Recorder) -> None:
    """RT-DETR has a predictor of its own, which shares the generator."""
    model = yolo("rtdetr-l.yaml", ultralytics.RTDETR)
    check(recorder, "rtdetr-l", model.predict(images(2)))


def test_batches(recorder: infermeter.Recorder, tmp_path: Path) -> None:
    """Each image of a batch is one inference, which knows how many there were."""
    cv2 = pytest.importorskip("cv2")
    for index, image in enumerate(images(5)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    results = yolo().predict(tmp_path, batch=2)
    check(recorder, "yolov8n", results)
    assert value(recorder, "inference_batch_size_count") == 5
    assert value(recorder, "inference_batch_size_sum") == 2 + 2 + 2 + 2 + 1


def test_tracking(recorder: infermeter.Recorder) -> None:
    """Tracked boxes are the ones that the user gets, with a column for their number."""
    pytest.importorskip("lap", reason="the trackers of ultralytics need it")
    model = yolo()
    results = [result for image in images(3) for result in model.track(image, persist=True, conf=0.00001)]
    check(recorder, "yolov8n", results)


def test_stream_that_is_consumed_slowly(recorder: infermeter.Recorder) -> None:
    """What the consumer does between two images is no part of them, and no inference is in flight meanwhile."""
    results = []
    for result in yolo().predict(images(3), stream=True, batch=1):
        results.append(result)
        assert value(recorder, "inferences_in_flight") == 0
        with recorder.track("consumer"):
            pass
    check(recorder, "yolov8n", results)
    assert value(recorder, "inferences_total", model="consumer") == 3
    assert samples(recorder, "inference_stage_duration_seconds_count", model="consumer") == {}


def test_stream_that_is_closed_early(recorder: infermeter.Recorder, tmp_path: Path) -> None:
    """What was inferred counts, what was not does not, and nothing stays in flight; unread it is nothing."""
    cv2 = pytest.importorskip("cv2")
    for index, image in enumerate(images(4)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    model = yolo()
    model.predict(tmp_path, stream=True).close()
    stream = model.predict(tmp_path, stream=True)
    results = [next(stream), next(stream)]
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)
    check(recorder, "yolov8n", results)
    again = model.predict(tmp_path, stream=True)
    results.append(next(again))
    del again
    check(recorder, "yolov8n", results)


def test_what_the_consumer_throws_in_is_no_failed_inference(recorder: infermeter.Recorder) -> None:
    """It comes out again as the same object."""
    stream = yolo().predict(images(2), stream=True)
    results = [next(stream)]
    error = ValueError("the consumer's")
    with pytest.raises(ValueError, match="the consumer's") as caught:
        stream.throw(error)
    assert caught.value is error
    assert value(recorder, "model_errors_total", error_type="ValueError") == 0
    assert value(recorder, "inferences_total") == 2  # of one batch
    assert len(results) == 1


def test_missing_source(recorder: infermeter.Recorder, tmp_path: Path) -> None:
    """No callback fires for it; it is a failed inference of the model that was asked."""
    model = yolo()
    with pytest.raises(FileNotFoundError):
        model.predict(tmp_path / "nothing.jpg")
    assert samples(recorder, "model_errors_total", error_type="FileNotFoundError") == {
        ("yolov8n", "FileNotFoundError"): 1
    }
    assert value(recorder, "inferences_total") == 1
    assert value(recorder, "inference_duration_count") == 1
    assert value(recorder, "inferences_in_flight") == 0
    results = model.predict(images(1))
    assert value(recorder, "inferences_total") == 2
    assert len(results) == 1


def test_exception_of_a_callback(recorder: infermeter.Recorder) -> None:
    """It is the user's, goes on as it is, and counts once."""
    model = yolo()
    error = RuntimeError("of a callback")

    def callback(predictor: object) -> None:
        raise error

    model.add_callback("on_predict_postprocess_end", callback)
    with pytest.raises(RuntimeError) as caught:
        model.predict(images(2))
    assert caught.value is error
    assert value(recorder, "model_errors_total", error_type="RuntimeError") == 1
    assert value(recorder, "inferences_total") == 1
    assert value(recorder, "objects_per_frame_count") == 0


def test_nothing_is_put_into_callbacks(recorder: infermeter.Recorder) -> None:
    """Users see their own lists only."""
    model = yolo()
    model.predict(images(1))
    found = {function.__module__.split(".")[0] for functions in model.callbacks.values() for function in functions}
    assert found == {"ultralytics"}


def test_embeddings(recorder: infermeter.Recorder) -> None:
    """They are inferences without detections, even if boxes were predicted before."""
    model = yolo()
    model.predict(images(1))
    embeddings = model.embed(images(3))
    assert len(embeddings) == 3
    assert value(recorder, "inferences_total") == 4
    assert value(recorder, "objects_per_frame_count") == 1
    assert value(recorder, "inference_batch_size_sum") == 1 + 9


def test_stage_of_an_open_inference(recorder: infermeter.Recorder) -> None:
    """Inside an inference of the user's, a predict is one stage of it and no inference."""
    model = yolo()
    with recorder.track("pipeline"):
        model.predict(images(3))
        for _ in model.predict(images(2), stream=True):
            pass

    @recorder.track("decorated")
    def pipeline() -> None:
        model.predict(images(1))

    pipeline()
    stages = samples(recorder, "inference_stage_duration_seconds_count")
    assert stages == {("pipeline", "ultralytics"): 2, ("decorated", "ultralytics"): 1}
    assert value(recorder, "inferences_total", model="yolov8n") == 0
    inside = value(recorder, "inference_stage_duration_seconds_sum", model="pipeline")
    assert 0 < inside <= value(recorder, "inference_duration_sum", model="pipeline")


def test_stream_across_inferences(recorder: infermeter.Recorder, tmp_path: Path) -> None:
    """Each step belongs to the inference that it runs in, or to none."""
    cv2 = pytest.importorskip("cv2")
    for index, image in enumerate(images(3)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    stream = yolo().predict(tmp_path, stream=True)
    with recorder.track("first"):
        next(stream)
    result = next(stream)
    with recorder.track("second"):
        next(stream)
        assert list(stream) == []
    stages = samples(recorder, "inference_stage_duration_seconds_count", stage="ultralytics")
    assert stages == {("first", "ultralytics"): 1, ("second", "ultralytics"): 1}
    check(recorder, "yolov8n", [result])


def test_onnxruntime_inside(recorder: infermeter.Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that onnxruntime runs is one inference, with that as a stage, and was loaded once."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)  # where it puts what it exports
    exported = yolo().export(format="onnx", imgsz=64, simplify=False)
    path = Path(exported).replace(tmp_path / "plates.onnx")  # its weights beside it, if any, keep their name
    recorder.instrument("onnxruntime")
    model = yolo(str(path), lambda name: ultralytics.YOLO(name, task="detect"))  # type: ignore[arg-type]
    results = model.predict(images(1)) + model.predict(images(1))
    assert value(recorder, "inferences_total", model="plates") == 2
    assert value(recorder, "inferences_total") == 2
    assert value(recorder, "inference_stage_duration_seconds_count", model="plates", stage="onnxruntime") >= 2
    assert value(recorder, "model_load_seconds_count", model="plates") == 1
    assert value(recorder, "model_load_seconds_count") == 1
    assert samples(recorder, "model_info", model="plates") == {("plates", "cpu", "onnx", "CPUExecutionProvider"): 1}
    check(recorder, "plates", results)
