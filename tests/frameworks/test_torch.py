"""Real tensors of PyTorch, on the CPU."""

import pytest

import infermeter

torch = pytest.importorskip("torch", reason="make test-frameworks installs PyTorch")


def dropped(recorder: infermeter.Recorder) -> dict[str, float]:
    """The reasons for which observations were dropped, with their number."""
    families = {family.name: family for family in recorder.collect()}
    samples = families["infermeter_observations_dropped"].samples
    return {sample.labels["reason"]: sample.value for sample in samples if sample.value}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tensors_are_read_in_every_float_type(recorder: infermeter.Recorder, dtype: str) -> None:
    """A tensor counts like the list of its numbers."""
    tensor = torch.tensor([0.25, 0.5, 0.875], dtype=getattr(torch, dtype), requires_grad=True)
    with recorder.track(model="m") as call:
        call.detections(tensor, classes=torch.tensor([0.0, 0.0, 1.0]), names=["face", "plate"])
    totals = next(iter(recorder.series.values())).totals
    recorder.fold()
    assert totals.histogram("detection_confidence").total == 1.625
    assert totals.value("detections_total", "face") == 2
    assert totals.value("detections_total", "plate") == 1
    assert dropped(recorder) == {}


def test_tensor_is_copied(recorder: infermeter.Recorder) -> None:
    """What the caller does to a tensor afterwards does not reach the metrics."""
    tensor = torch.tensor([0.5, 0.5])
    with recorder.track(model="m") as call:
        call.detections(tensor)
        tensor.fill_(1.0)
    recorder.fold()
    assert next(iter(recorder.series.values())).totals.histogram("detection_confidence").total == 1.0


def test_lists_of_scalar_tensors_are_read(recorder: infermeter.Recorder) -> None:
    """A list of 0-d tensors is what iterating over one gives."""
    with recorder.track(model="m") as call:
        call.detections(list(torch.tensor([0.5, 0.25])), classes=list(torch.tensor([1, 1])))
    recorder.fold()
    totals = next(iter(recorder.series.values())).totals
    assert totals.histogram("detection_confidence").total == 0.75
    assert totals.value("detections_total", "1") == 2


def test_tensor_off_the_host_is_dropped_and_counted(recorder: infermeter.Recorder) -> None:
    """A tensor that the CPU cannot read is refused before anything waits for its device."""
    with recorder.track(model="m") as call:
        call.detections(torch.empty(3, device="meta"))
    recorder.fold()
    assert dropped(recorder) in ({"device_array": 1}, {"unreadable": 1})


def test_torchvision_shape_is_known(recorder: infermeter.Recorder) -> None:
    """`auto` reads the dictionaries that torchvision's detectors return, one per image."""

    @recorder.track(model="m", detections="auto", names={1: "person"})
    def detect(images: object) -> list[dict[str, object]]:
        one = {"boxes": torch.zeros(2, 4), "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.5, 0.75])}
        return [one, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}]

    detect(None)
    recorder.fold()
    totals = next(iter(recorder.series.values())).totals
    assert totals.value("detections_total", "person") == 2
    assert totals.histogram("objects_per_frame").cumulative.tolist()[:3] == [1, 1, 2]
