"""Modules of torch, made by a factory that is named like `package.module:factory`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.models.cases import CannotRun, Mistake, sentence
from benchmarks.models.tensors import OnTensors

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from benchmarks.models.boxes import Outputs
    from benchmarks.models.cases import Case, Size

SHORT = {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "cuda"}


class TorchModel:
    """A factory without arguments. `Mistake` if it cannot be imported, raises, or makes no module."""

    libraries: tuple[str, ...] = ("torch", "numpy")
    modules: tuple[str, ...] = ("torch",)
    precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self._options = options
        self._module()

    def provider(self, asked: str) -> str:
        """The device that is called so; without a name CUDA where torch finds one, else the CPU."""
        return device(asked)

    def shape(self, size: Size | None) -> tuple[int, ...]:
        """What `--input-shape` says, its last two axes replaced by the size."""
        given = tuple(self._options.input_shape or ())
        if not given:
            raise Mistake(f"{self.name} is a torch module: say with --input-shape what one item looks like")
        if size and len(given) != 3:  # noqa: PLR2004 - channels and two sides
            raise Mistake(f"--input-sizes: {given} is no picture, use --input-shape")
        return (given[0], *size) if size else given

    def prepare(self, case: Case, folder: Path) -> None:  # noqa: ARG002
        """Nothing is written; `CannotRun` without the device."""
        require(case.provider)

    def runner(self, case: Case) -> TorchRunner:
        """A module of its own for each case."""
        return TorchRunner(self._module(), case, self._options)

    def _module(self) -> Any:
        torch = importlib.import_module("torch")
        place, _, factory = self.name.partition(":")
        torch.manual_seed(0)  # the same weights, if they are random, in every case
        try:
            made = getattr(importlib.import_module(place), factory)()
        except Exception as error:  # of whoever wrote the factory
            raise Mistake(f"{self.name} makes no module: {sentence(error)}") from None
        if not isinstance(made, torch.nn.Module):
            raise Mistake(f"{self.name} gives {type(made).__name__}, expected a torch.nn.Module")
        return made


class TorchRunner(OnTensors):
    """A module on its device, with an input there."""

    def __init__(self, module: Any, case: Case, options: argparse.Namespace) -> None:
        torch = importlib.import_module("torch")
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[case.precision]
        place = torch.device(case.provider)
        module = module.eval().to(place, dtype)
        inputs = torch.rand((case.batch, *case.shape), generator=torch.Generator().manual_seed(0)).to(place, dtype)

        def infer(batch: npt.NDArray[Any]) -> Outputs:
            with torch.inference_mode():
                return _named(torch, module(torch.from_numpy(batch).to(place, dtype)))

        def call() -> None:
            with torch.inference_mode():
                module(inputs)
            if place.type == "cuda":
                torch.cuda.current_stream(place).synchronize()

        super().__init__(case, infer, np.float32, options.mean, options.deviation)
        self.calls: Sequence[Callable[[], object]] = [call] * case.streams
        self.ran = str(next(module.parameters(), inputs).device)
        self.notes: tuple[str, ...] = ()
        self.names: Mapping[int, str] = {}
        self.enter, self._place = threads(case), place

    def device_memory(self) -> int | None:
        """What torch allocated at most, on CUDA."""
        return cuda_memory(self._place)


OWN: list[int] = []
"""The threads that torch took by itself, once they were asked for."""


def threads(case: Case) -> Callable[[], None]:
    """What sets the number of threads, which torch has one of for the process."""
    torch = importlib.import_module("torch")
    if not OWN:
        OWN.append(torch.get_num_threads())
    return lambda: torch.set_num_threads(case.threads or OWN[0])


def device(asked: str) -> str:
    """The name of a device of torch's; `Mistake` if it is none."""
    torch = importlib.import_module("torch")
    if not asked:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(SHORT.get(asked, asked)))
    except RuntimeError:
        raise Mistake(f"--providers: {asked} is no device of torch, such as cpu or cuda:0") from None


def require(name: str) -> None:
    """`CannotRun` if torch does not find the device."""
    torch = importlib.import_module("torch")
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise CannotRun(f"torch {torch.__version__} finds no CUDA device")


def cuda_memory(place: Any) -> int | None:
    """Bytes that torch allocated at most there; None where it is not CUDA."""
    if place.type != "cuda":
        return None
    return int(importlib.import_module("torch").cuda.max_memory_allocated(place))


def _named(torch: Any, outputs: Any) -> Outputs:
    """The outputs by name, or by number where they have none."""
    if torch.is_tensor(outputs):
        outputs = {"0": outputs}
    elif not isinstance(outputs, dict):
        outputs = {str(number): output for number, output in enumerate(outputs)}
    return {name: output.float().cpu().numpy() for name, output in outputs.items() if torch.is_tensor(output)}
