"""The real PyTorch keeps the contract, for modules that a user marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from infermeter.track import Track
from tests.integrations.contract import Case, Contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter import Recorder

torch: Any = pytest.importorskip("torch", reason="make test-frameworks installs PyTorch")
graphs: Any = pytest.importorskip("torch.cuda.graphs")
eval_frame: Any = pytest.importorskip("torch._dynamo.eval_frame")

pytestmark = pytest.mark.filterwarnings("default")  # theirs

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Part(torch.nn.Module):  # type: ignore[misc]
    """A part of a net, which fails for what is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return self.linear(x).relu()


class Whole(torch.nn.Module):  # type: ignore[misc]
    """A net with a part, both of which are watched."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Part()

    def forward(self, x: Any, *, twice: bool = False, error: BaseException | None = None) -> Any:
        found = self.part(x)
        if error is not None:
            raise error
        return {"one": found, "other": [self.part(found)]} if twice else found


def caused() -> ValueError:
    """An exception that knows another."""
    error = ValueError("broken")
    error.__cause__ = KeyError("before")
    error.add_note("a note")
    return error


def many(module: Any) -> list[Any]:
    """Calls that work, and one that does not."""
    results = [module(X[:size]) for size in (1, 2, 3)]
    with pytest.raises(ValueError, match="broken"):
        module(X, error=caused())
    return results


async def asynchronous(module: Any) -> Any:
    """A call in a coroutine."""
    return module(X)


class TestContract(Contract):
    """Modules that every recorder of a test knows by name."""

    integration = "torch"
    cases = {
        "call": Case(lambda module: module(X)),
        "call by name": Case(lambda module: module(x=X)),
        "nested": Case(lambda module: module(X, twice=True)),
        "part": Case(lambda module: module.part(X)),
        "asynchronous": Case(asynchronous),
        "many": Case(many, inferences=4, failures=1),
        "raises": Case(lambda module: module(X, error=caused()), failures=1),
        "interrupts": Case(lambda module: module(X, error=SystemError()), failures=1),
        "raises in a part": Case(lambda module: module(7), failures=1),
        "wrong shape": Case(lambda module: module(X.T), failures=1),
        "wrong arguments": Case(lambda module: module(), failures=1),
        "forward": Case(lambda module: module.part.linear(X), inferences=0),
    }

    @pytest.fixture
    def new_recorder(self, new_recorder: Callable[[], Recorder]) -> Callable[[], Recorder]:
        """Keeps the recorders, to name modules to them."""
        self.recorders: list[Recorder] = []

        def make() -> Recorder:
            self.recorders.append(new_recorder())
            return self.recorders[-1]

        return make

    def subject(self) -> Any:
        torch.manual_seed(0)
        module = Whole()
        for recorder in self.recorders:
            # What `watch` does, without that it instruments: the tests say when.
            recorder.marks.put(module, Track.checked(recorder, "whole", ""))
            recorder.marks.put(module.part, Track.checked(recorder, "part", ""))
        return module

    def patched(self) -> list[tuple[Any, str]]:
        self.kept = self.subject()  # the class of a module is patched as long as one of it is named
        return [
            (Whole, "__call__"),
            (Part, "__call__"),
            (eval_frame.OptimizedModule, "__call__"),
            (graphs.CUDAGraph, "capture_begin"),
            (graphs.CUDAGraph, "capture_end"),
        ]
