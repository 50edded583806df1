"""The real PyTorch, on the CPU: modules that a user names."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

import infermeter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch = pytest.importorskip("torch", reason="make test-frameworks installs PyTorch")

pytestmark = pytest.mark.filterwarnings("default")  # theirs


class Inner(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A part of a net."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
        return self.linear(x).relu()


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A net with a part, a parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.head = torch.nn.Linear(4, 2)
        self.register_buffer("scale", torch.ones(3, dtype=torch.float64))

    def forward(self, x: Any, error: BaseException | None = None) -> Any:
        if error is not None:
            raise error
        return self.head(self.inner(x))


@pytest.fixture
def recorder() -> Iterator[infermeter.Recorder]:
    """A recorder of the test's own, which watches PyTorch."""
    recorder = infermeter.Recorder(service="test", registry=CollectorRegistry())
    recorder.instrument("torch")
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


def dropped(recorder: infermeter.Recorder) -> float:
    """How many observations were dropped."""
    return value(recorder, "infermeter_observations_dropped_total")


X = torch.ones(3, 4)


def test_module_that_is_named(recorder: infermeter.Recorder) -> None:
    """Each call is an inference, with what it was given and what it runs on; the module is the same object."""
    net = Net()
    expected = net(X)
    assert recorder.watch(net, model="net", version="2") is net
    assert torch.equal(net(X), expected)
    assert torch.equal(net(x=X), expected)
    labels = {"model": "net", "version": "2"}
    assert value(recorder, "inferences_total", **labels) == 2
    assert value(recorder, "inferences_total") == 2
    assert value(recorder, "inference_duration_count", **labels) == 2
    assert value(recorder, "inference_batch_size_sum", **labels) == 6
    assert value(recorder, "inference_input_size_bytes_sum", **labels) == 2 * 3 * 4 * 4
    assert value(recorder, "model_info", **labels, device="cpu", provider="torch", format="pt") == 1
    assert value(recorder, "model_memory_usage_bytes", **labels, device="cpu") == (16 + 4 + 8 + 2) * 4 + 3 * 8
    assert dropped(recorder) == 0


def test_modules_that_are_not_named(recorder: infermeter.Recorder) -> None:
    """Another module of the same class is nobody's."""
    net, other = recorder.watch(Net(), model="net"), Net()
    other(X)
    assert value(recorder, "inferences_total") == 0
    net(X)
    assert value(recorder, "inferences_total") == 1


def test_named_module_inside_another(recorder: infermeter.Recorder) -> None:
    """It is a stage there, and an inference alone."""
    net = recorder.watch(Net(), model="net")
    recorder.watch(net.inner, model="inner")
    net(X)
    assert value(recorder, "inferences_total", model="net") == 1
    assert value(recorder, "inferences_total", model="inner") == 0
    assert value(recorder, "inference_stage_duration_seconds_count", model="net", stage="torch") == 1
    net.inner(X)
    assert value(recorder, "inferences_total", model="inner") == 1


def test_stage_of_an_open_inference(recorder: infermeter.Recorder) -> None:
    """Inside an inference of the user's a module is a stage."""
    net = recorder.watch(Net(), model="net")
    with recorder.track("pipeline"):
        net(X)
    assert value(recorder, "inferences_total", model="net") == 0
    assert value(recorder, "inference_stage_duration_seconds_count", model="pipeline", stage="torch") == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("x"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "cuda_oom"),
        (RuntimeError("CUDA error: out of memory. CUDA out of memory."), "cuda_oom"),
        (TimeoutError(), "timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_exception(recorder: infermeter.Recorder, error: BaseException, kind: str) -> None:
    """It goes on as the same object, and counts once by its type; also if one is being handled already."""
    net = recorder.watch(Net(), model="net")
    try:
        raise LookupError  # noqa: TRY301
    except LookupError:
        net(X)
        with pytest.raises(type(error)) as caught:
            net(X, error)
    assert caught.value is error
    assert value(recorder, "model_errors_total", model="net") == 1
    assert value(recorder, "model_errors_total", model="net", error_type=kind) == 1
    assert value(recorder, "inferences_total") == 2
    assert value(recorder, "inferences_in_flight") == 0


def test_detections(recorder: infermeter.Recorder) -> None:
    """They are read where the user says how, and only there; a bfloat16 is read too."""
    net = recorder.watch(Net(), model="net", detections=lambda result: torch.tensor([0.5, 0.25], dtype=torch.bfloat16))
    net(X)
    assert value(recorder, "detection_confidence_sum", model="net") == 0.75
    broken = recorder.watch(Net(), model="broken", detections=lambda _: 1 / 0)
    assert broken(X).shape == (3, 2)
    assert value(recorder, "infermeter_observations_dropped_total", reason="extractor_error") == 1
    assert value(recorder, "inferences_total", model="broken") == 1


def test_module_is_not_touched(recorder: infermeter.Recorder) -> None:
    """It has the attributes and hooks that it had; copies of it are modules that nobody has named."""
    net = Net()
    before = {name: copy.copy(value) for name, value in vars(net).items()}
    recorder.watch(net, model="net")
    net(X)
    assert {name: copy.copy(value) for name, value in vars(net).items()} == before
    copied, pickled = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    stored = io.BytesIO()
    torch.save(net, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    for other in (copied, pickled, loaded):
        assert torch.equal(other(X), net(X))
    assert value(recorder, "inferences_total") == 4


def test_pickle_is_read_where_we_are_not_installed(recorder: infermeter.Recorder, tmp_path: Path) -> None:
    """Nothing of ours is stored with a module."""
    net = recorder.watch(torch.nn.Sequential(torch.nn.Linear(4, 2)), model="net")
    net(X)
    torch.save(net, tmp_path / "net.pt")
    program = """
    import sys, torch
    sys.modules["infermeter"] = None
    print(torch.load(sys.argv[1], weights_only=False)(torch.ones(3, 4)).shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "net.pt")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "torch.Size([3, 2])\n"


def test_compiled(recorder: infermeter.Recorder) -> None:
    """A compiled module is watched, whichever of the two is named; inside one nothing is, and no graph breaks."""
    net = recorder.watch(Net(), model="net")
    recorder.watch(net.inner, model="inner")
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), compiled(X))
    assert value(recorder, "inferences_total", model="net") == 2
    assert value(recorder, "inferences_total") == 2
    other = recorder.watch(torch.compile(Net(), backend="eager"), model="other")
    other(X)
    assert value(recorder, "inferences_total", model="other") == 1
    within = recorder.watch(Net(), model="within")
    within.compile(backend="eager", fullgraph=True)
    within(X)
    assert value(recorder, "inferences_total", model="within") == 1
    assert value(recorder, "inference_stage_duration_seconds_count") == 0
    assert dropped(recorder) == 0


def test_scripted_traced_and_exported(recorder: infermeter.Recorder) -> None:
    """Scripts are watched; tracing and exporting are as ever, and no inferences."""
    net = recorder.watch(Net(), model="net")
    recorder.watch(net.inner, model="inner")
    graph = torch.fx.symbolic_trace(net, concrete_args={"error": None})
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["inner.linear", "head"]
    torch.jit.trace(net.inner, X, check_trace=False)
    torch.export.export(net, (X,))
    assert value(recorder, "inferences_total") == 0
    scripted = recorder.watch(torch.jit.script(Inner()), model="scripted")
    scripted(X)
    assert value(recorder, "inferences_total", model="scripted") == 1
    assert value(recorder, "model_info", model="scripted", format="torchscript") == 1


def test_hooks_and_calls_of_the_users(recorder: infermeter.Recorder) -> None:
    """Hooks run as ever; a class with a `__call__` of its own is watched at that."""

    class Calls(Net):
        def __call__(self, *args: Any) -> Any:
            return super().__call__(*args), "more"

    net = recorder.watch(Net(), model="net")
    seen: list[str] = []
    net.register_forward_pre_hook(lambda *_: seen.append("before"))
    net.register_forward_hook(lambda *_: seen.append("after"))
    net(X)
    assert seen == ["before", "after"]
    own = recorder.watch(Calls(), model="own")
    assert own(X)[1] == "more"
    assert value(recorder, "inferences_total", model="own") == 1
    assert value(recorder, "inferences_total") == 2


def test_gradients(recorder: infermeter.Recorder) -> None:
    """They flow as ever."""
    net = recorder.watch(Net(), model="net")
    net(X).sum().backward()
    assert net.head.weight.grad is not None
    assert value(recorder, "inferences_total") == 1


def test_memory_after_a_move(recorder: infermeter.Recorder) -> None:
    """What a module holds is told anew when its parameters have changed."""
    net = recorder.watch(Inner(), model="net")
    net(X)
    assert value(recorder, "model_memory_usage_bytes", model="net", device="cpu") == 80
    net.half()
    net(X.half())
    assert value(recorder, "model_memory_usage_bytes", model="net", device="cpu") == 40


def test_threads(recorder: infermeter.Recorder) -> None:
    """Every call counts."""
    net = recorder.watch(Net(), model="net")

    def work() -> None:
        for _ in range(200):
            net(X)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(recorder, "inferences_total") == 800
    assert value(recorder, "inferences_in_flight") == 0


@pytest.mark.parametrize("broken", ["_track", "_describe", "_tell_place"])
def test_what_fails_on_our_side_is_not_seen(
    recorder: infermeter.Recorder, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The result comes as ever; the failure is counted."""

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    recorder.uninstrument()
    monkeypatch.setattr(f"infermeter.integrations.torch._Modules.{broken}", fails)
    recorder.instrument("torch")
    net = recorder.watch(Net(), model="net")
    assert net(X).shape == (3, 2)
    assert value(recorder, "infermeter_observations_dropped_total", reason="internal") > 0
    assert value(recorder, "inferences_in_flight") == 0


def test_undo(recorder: infermeter.Recorder) -> None:
    """Every attribute is the object that it was; who holds ours calls through it; a call that runs is recorded."""
    net, own = Net(), torch.nn.Module.__call__
    assert "__call__" not in vars(Net)
    recorder.watch(net, model="net")
    held = net.__call__
    net.register_forward_hook(lambda *_: recorder.uninstrument())
    net(X)
    assert "__call__" not in vars(Net)
    assert torch.nn.Module.__call__ is own
    assert "__call__" not in vars(torch._dynamo.eval_frame.OptimizedModule) or not hasattr(
        vars(torch._dynamo.eval_frame.OptimizedModule)["__call__"], "__wrapped__"
    )
    assert held(X).shape == (3, 2)
    assert value(recorder, "inferences_total") == 1
    assert recorder.device.readers == []
    recorder.instrument("torch")
    net(X)
    assert value(recorder, "inferences_total") == 2  # what was named stays named


def test_two_recorders() -> None:
    """Each watches what it was told, in whatever order they end."""
    first, second = (infermeter.Recorder(service="test", registry=CollectorRegistry()) for _ in range(2))
    net = second.watch(first.watch(Net(), model="first"), model="second")
    net(X)
    first.uninstrument()
    net(X)
    second.uninstrument()
    net(X)
    assert value(first, "inferences_total", model="first") == 1
    assert value(second, "inferences_total", model="second") == 2


def test_classes_that_the_environment_names(tmp_path: Path) -> None:
    """They are watched when their module is imported; subclasses with them, and a name of `watch` is the one."""
    (tmp_path / "nets.py").write_text(
        textwrap.dedent("""
        import torch

        class Net(torch.nn.Linear):
            class Small(torch.nn.Linear):
                pass

        class Larger(Net):
            pass
        """)
    )
    program = """
    from prometheus_client import CollectorRegistry
    import infermeter
    recorder = infermeter.Recorder(service="test", registry=CollectorRegistry())
    recorder.instrument("torch")
    import nets, torch
    x = torch.ones(3, 4)
    nets.Net(4, 2)(x)
    nets.Net.Small(4, 2)(x)
    nets.Larger(4, 2)(x)
    recorder.watch(nets.Larger(4, 2), model="other")(x)
    torch.nn.Linear(4, 2)(x)
    print(sorted((s.labels["model"], s.value) for f in recorder.collect() for s in f.samples
                 if s.name == "inferences_total"))
    print([s.value for f in recorder.collect() for s in f.samples
           if s.name == "inference_stage_duration_seconds_count"])
    recorder.uninstrument()
    print([cls for cls in (nets.Net, nets.Larger, torch.nn.Linear) if "__call__" in vars(cls)])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "INFERMETER_TORCH_MODULES": "nets:Net, nets:Net.Small,nets:Nothing,no name",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
        },
    )
    assert done.stdout.splitlines() == ["[('Net', 2.0), ('Small', 1.0), ('other', 1.0)]", "[]", "[]"]
    assert "no class Nothing" in done.stderr
    assert "ignoring 'no name'" in done.stderr
