"""Values on a GPU, and times that only it knows, with a stand-in that raises whenever something waits for it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

import infermeter
from infermeter.device import MOST_WAITING

torch = pytest.importorskip("torch", reason="make test-frameworks installs PyTorch")

from tests.integrations.fake_gpu import Gpu, Waits  # noqa: E402  (it needs torch)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The device."""
    return Gpu(monkeypatch)


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[infermeter.Recorder]:
    """A recorder of the test's own, that counts alone or in a folder that processes share."""
    options = {"multiprocess_dir": str(tmp_path)} if request.param else {}
    recorder = infermeter.Recorder(service="test", registry=CollectorRegistry(), **options)  # type: ignore[arg-type]
    yield recorder
    recorder.uninstrument()


def value(recorder: infermeter.Recorder, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have `labels`; 0 if there are none."""
    return sum(
        sample.value
        for family in recorder.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def dropped(recorder: infermeter.Recorder, reason: str = "device_pending") -> float:
    """How many were dropped for a reason."""
    return value(recorder, "infermeter_observations_dropped_total", reason=reason)


def test_stand_in_raises_where_a_device_would_be_waited_for(gpu: Gpu) -> None:
    """A test that passes with it has waited for nothing."""
    tensor = gpu.tensor([0.5])
    for wait in (tensor.tolist, tensor.cpu, tensor.item, tensor.__array__, torch.cuda.synchronize):
        with pytest.raises(Waits):
            wait()
    with pytest.raises(Waits):
        gpu.event().synchronize()


def test_detections_count_when_the_device_has_got_so_far(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """Nothing of the inference is there before, and then all of it, as it was when it was reported."""
    confidences, classes = gpu.tensor([0.5, 0.25]), gpu.tensor([1, 0])
    with recorder.track("m") as call:
        call.detections(confidences, classes, ["face", "plate"])
        confidences.as_subclass(torch.Tensor).fill_(1.0)
        call.batch_size(2)
    assert value(recorder, "inferences_total") == 0
    assert value(recorder, "inferences_in_flight") == 1
    gpu.catch_up()
    assert value(recorder, "inferences_total") == 1
    assert value(recorder, "inferences_in_flight") == 0
    assert value(recorder, "detection_confidence_sum") == 0.75
    assert value(recorder, "objects_per_frame_sum") == 2
    assert value(recorder, "detections_total", **{"class": "face"}) == 1
    assert value(recorder, "detections_total", **{"class": "plate"}) == 1
    assert value(recorder, "inference_batch_size_sum") == 2
    assert dropped(recorder) == dropped(recorder, "device_array") == 0


def test_frames_of_host_and_device_together(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """Each frame of a call counts once, wherever it lies, with classes from the host too."""
    with recorder.track("m") as call:
        call.detections([0.5])
        call.detections(gpu.tensor([0.25, 0.25]), classes=["a", "b"])
        call.detections([0.125])
        call.detections(gpu.tensor(torch.empty(0)))
    gpu.catch_up()
    assert value(recorder, "objects_per_frame_count") == 4
    assert value(recorder, "detection_confidence_sum") == 1.125
    assert value(recorder, "detections_total", **{"class": "a"}) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_float_type(recorder: infermeter.Recorder, gpu: Gpu, dtype: str) -> None:
    """Tensors on a device are read in every type."""
    with recorder.track("m") as call:
        call.detections(gpu.tensor(torch.tensor([0.5, 0.25], dtype=getattr(torch, dtype))))
    gpu.catch_up()
    assert value(recorder, "detection_confidence_sum") == 0.75


def test_decorated_function(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """What `detections=` finds may lie on the device."""
    detect = recorder.track("m", detections=lambda result: result)(lambda: gpu.tensor([0.5]))
    detect()
    gpu.catch_up()
    assert value(recorder, "detection_confidence_sum") == 0.5


def test_failed_call(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """Its detections do not count, so it waits for none."""
    with pytest.raises(KeyError), recorder.track("m") as call:
        call.detections(gpu.tensor([0.5]))
        raise KeyError
    assert value(recorder, "model_errors_total", error_type="KeyError") == 1
    gpu.catch_up()
    assert value(recorder, "inferences_total") == 1
    assert value(recorder, "objects_per_frame_count") == 0


def test_too_many(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """Those that find no room are counted without their detections, and these as dropped."""
    for _ in range(MOST_WAITING + 3):
        with recorder.track("m") as call:
            call.detections(gpu.tensor([0.5]))
    assert value(recorder, "inferences_total") == 3
    gpu.catch_up()
    assert value(recorder, "inferences_total") == MOST_WAITING + 3
    assert value(recorder, "objects_per_frame_count") == MOST_WAITING
    assert dropped(recorder) == 3


def test_many_that_are_done_soon(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """A device that keeps up loses nothing, however many come between two looks of the timer."""
    for _ in range(1000):
        with recorder.track("m") as call:
            call.detections(gpu.tensor([0.5]))
        gpu.catch_up()
    assert value(recorder, "objects_per_frame_count") == 1000
    assert dropped(recorder) == 0


def test_threads(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """Each is recorded once, whoever finds it done."""

    def work() -> None:
        for _ in range(200):
            with recorder.track("m") as call:
                call.detections(gpu.tensor([0.5]))
            gpu.catch_up()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        recorder.fold()
    gpu.catch_up()
    assert value(recorder, "inferences_total") == 800
    assert value(recorder, "inferences_in_flight") == 0
    assert value(recorder, "objects_per_frame_count") + dropped(recorder) == 800


def test_end_of_the_process(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """What is done is recorded, what is not is dropped and counted."""
    with recorder.track("m") as call:
        call.detections(gpu.tensor([0.5]))
    gpu.catch_up()
    with recorder.track("m") as call:
        call.detections(gpu.tensor([0.5]))
    recorder.device.give_up()
    assert value(recorder, "inferences_total") == 1
    assert dropped(recorder) == 1


@pytest.mark.alone
def test_fork(gpu: Gpu) -> None:
    """What waits at a fork is the parent's: the child neither records it nor asks the device."""
    recorder = infermeter.Recorder(service="test", registry=CollectorRegistry())
    with recorder.track("m") as call:
        call.detections(gpu.tensor([0.5]))
    queries = gpu.queries
    pid = os.fork()
    if not pid:
        recorder.fold()
        asked = gpu.queries - queries
        with recorder.track("m"):
            pass
        os._exit(asked + int(value(recorder, "inferences_total") != 1))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gpu.catch_up()
    assert value(recorder, "objects_per_frame_count") == 1


def test_device_that_is_lost(recorder: infermeter.Recorder, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inference counts, its detections are dropped."""
    with recorder.track("m") as call:
        call.detections(gpu.tensor([0.5]))

    def lost(_: object) -> bool:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(gpu.event, "query", lost)
    assert value(recorder, "inferences_total") == 1
    assert value(recorder, "objects_per_frame_count") == 0
    assert dropped(recorder) == 1


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A module on the device, that takes its time there."""

    def __init__(self, gpu: Gpu, milliseconds: float) -> None:
        super().__init__()
        self._parameters["weight"] = gpu.tensor([1.0, 2.0])
        self.gpu, self.milliseconds = gpu, milliseconds

    def forward(self, x: Any) -> Any:
        self.gpu.computes(self.milliseconds)
        return x


def test_time_of_a_module_is_the_devices(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """Two events tell it, whatever the host did meanwhile; the detections come with it."""
    net = recorder.watch(Net(gpu, 2000.0), model="net", detections=lambda result: result)
    gpu.computes(500.0)  # of somebody else, before
    result = net(gpu.tensor([0.5]))
    assert type(result) is gpu.kind
    assert value(recorder, "inferences_total") == 0
    assert value(recorder, "inferences_in_flight") == 1
    gpu.catch_up()
    assert value(recorder, "inference_duration_sum") == 2.0
    assert value(recorder, "inferences_in_flight") == 0
    assert value(recorder, "detection_confidence_sum") == 0.5
    assert value(recorder, "model_memory_usage_bytes", model="net", device="cuda:0") == 8
    assert value(recorder, "model_info", model="net", device="cuda:0", provider="torch") == 1


def test_stage_on_the_device(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """A module inside an inference is a stage, with its time from the device too."""
    net = recorder.watch(Net(gpu, 3000.0), model="net")
    with recorder.track("pipeline"):
        net(gpu.tensor([0.5]))
    with pytest.raises(KeyError), recorder.track("pipeline"):
        net(gpu.tensor([0.5]))
        raise KeyError
    gpu.catch_up()
    assert value(recorder, "inferences_total", model="pipeline") == 2
    assert value(recorder, "inferences_total", model="net") == 0
    assert value(recorder, "inference_stage_duration_seconds_sum", stage="torch", model="pipeline") == 6.0
    assert value(recorder, "inference_duration_sum", model="pipeline") < 3.0


def test_too_many_modules(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """Without a time there is nothing to record, and nothing stays in flight."""
    net = recorder.watch(Net(gpu, 1.0), model="net")
    for _ in range(MOST_WAITING + 2):
        net(gpu.tensor([0.5]))
    assert dropped(recorder) == 2
    gpu.catch_up()
    assert value(recorder, "inferences_total") == MOST_WAITING
    assert value(recorder, "inferences_in_flight") == 0


def test_out_of_memory(recorder: infermeter.Recorder, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of its own type, and recorded at once."""
    net = recorder.watch(Net(gpu, 1.0), model="net")

    def computes(_: float) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu, "computes", computes)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        net(gpu.tensor([0.5]))
    assert value(recorder, "model_errors_total", model="net", error_type="cuda_oom") == 1
    assert value(recorder, "inferences_in_flight") == 0


def test_capture_of_a_graph_is_left_alone(
    recorder: infermeter.Recorder, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for an event would end a capture: whatever waits goes on waiting until that is over."""
    graphs = torch.cuda.graphs.CUDAGraph
    monkeypatch.setattr(graphs, "capture_begin", lambda self: None)
    monkeypatch.setattr(graphs, "capture_end", lambda self: None)
    recorder.instrument("torch")
    with recorder.track("m") as call:
        call.detections(gpu.tensor([0.5]))
    gpu.catch_up()
    queries = gpu.queries
    graphs.capture_begin(None)
    assert value(recorder, "inferences_total") == 0
    assert gpu.queries == queries
    graphs.capture_end(None)
    assert value(recorder, "inferences_total") == 1
    recorder.uninstrument()


def test_memory_that_is_allocated(recorder: infermeter.Recorder, gpu: Gpu) -> None:
    """It is told by device, as it is when it is looked at."""
    recorder.instrument("torch")
    gpu.allocated = 1000
    with recorder.track("m"):
        pass
    assert value(recorder, "vram_allocated_bytes", service="test", device="cuda:0") == 1000
    gpu.allocated = 10
    assert value(recorder, "vram_allocated_bytes", service="test", device="cuda:0") == 10


def test_device_that_nobody_has_used_is_not_woken(
    recorder: infermeter.Recorder, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at its memory would take some of it."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("asked"))
    recorder.instrument("torch")
    with recorder.track("m"):
        pass
    assert value(recorder, "vram_allocated_bytes") == 0
