"""A GPU that does nothing until it is told to, as far as PyTorch is asked of one: tensors, events, and no waiting.

What would wait for a device raises: reading a tensor, synchronising whatever can be synchronised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

PLACE = torch.device("cuda:0")


class Waits(BaseException):
    """Something waited for the device; no handler of exceptions takes it for one of its own."""


def _waits(*_: Any, **__: Any) -> Any:
    raise Waits


class Tensor(torch.Tensor):  # type: ignore[misc]
    """A tensor whose values only the device may see."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    gpu: Gpu
    is_cuda = True
    device = PLACE
    item = cpu = tolist = numpy = __array__ = __float__ = __bool__ = __len__ = __iter__ = __index__ = _waits

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def detach(self) -> Tensor:
        return self

    def clone(self) -> Any:
        """Copied when the device has got so far, which is before it does what it is told later."""
        return self.gpu.tensor(self.as_subclass(torch.Tensor).clone())

    def to(self, device: object, *, non_blocking: bool) -> Any:
        assert (device, non_blocking) == ("cpu", True)
        host = torch.full(self.shape, torch.nan) if self.dtype.is_floating_point else torch.full(self.shape, -1)
        host = host.to(self.dtype)
        values = self.as_subclass(torch.Tensor).clone()
        self.gpu.queue(lambda: host.copy_(values))
        return host


class Event:
    """A moment on the one stream that there is."""

    gpu: Gpu

    def __init__(self, *, enable_timing: bool = False) -> None:
        self.timed = enable_timing
        self.milliseconds: float | None = None

    def record(self, stream: object) -> None:
        assert stream is self.gpu
        self.gpu.queue(lambda: setattr(self, "milliseconds", self.gpu.milliseconds))

    def query(self) -> bool:
        self.gpu.queries += 1
        return self.milliseconds is not None

    def elapsed_time(self, end: Event) -> float:
        assert self.timed
        assert end.timed
        if self.milliseconds is None or end.milliseconds is None:
            raise RuntimeError("device not ready")
        return end.milliseconds - self.milliseconds

    synchronize = wait = _waits


class Gpu:
    """The device: a queue of what it was asked to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Callable[[], object]] = []
        self.milliseconds = 0.0
        self.queries = 0
        self.allocated = 0
        self.event = type("Event", (Event,), {"gpu": self})
        self.kind = type("Tensor", (Tensor,), {"gpu": self})
        for name, value in {
            "Event": self.event,
            "current_stream": lambda place=None: self,
            "is_initialized": lambda: True,
            "device_count": lambda: 1,
            "memory_allocated": lambda index: self.allocated,
            "synchronize": _waits,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.cuda.Stream, "synchronize", _waits)

    synchronize = _waits

    def queue(self, work: Callable[[], object]) -> None:
        self.asked.append(work)

    def computes(self, milliseconds: float) -> None:
        """Ask it for something that takes so long."""

        def work() -> None:
            self.milliseconds += milliseconds

        self.queue(work)

    def tensor(self, values: Any) -> Any:
        return torch.as_tensor(values).as_subclass(self.kind)

    def catch_up(self) -> None:
        """Have it do what it was asked for."""
        while self.asked:
            self.asked.pop(0)()
