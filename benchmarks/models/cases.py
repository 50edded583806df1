"""What is measured: a case is one model with one setting of every knob, and what a model has to be able to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from demo.detector import Boxes

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-static")
PATIENCE = 200
"""Characters of what a library says of a failure that are told on: the first sentence, not the dump below it."""

Size = tuple[int, int]
"""Height and width of a picture, in pixels."""


class Mistake(Exception):  # noqa: N818 - what it is called where it is told
    """A mistake in what was asked for: one sentence, before anything is measured."""


class CannotRun(Exception):  # noqa: N818
    """Why a case cannot be run: one sentence; other cases can."""


class LeftOut(CannotRun):
    """Why a case is none that this kind of model has: no failure."""


@dataclass(frozen=True)
class Case:
    """One model and one setting of every knob.

    `model` is what was typed, `provider` what was asked for. `shape` is that of one item, without the batch.
    `threads` are those of one call, 0 leaves them to the library. `streams` callers call at the same time.
    """

    model: str
    provider: str
    precision: str
    batch: int
    shape: tuple[int, ...]
    threads: int
    streams: int

    def cells(self) -> dict[str, str]:
        """Its settings as text, by name."""
        cells = {name: str(value) for name, value in asdict(self).items()}
        cells["shape"] = "x".join(map(str, self.shape))
        cells["threads"] = str(self.threads or "library's")
        return cells

    def __str__(self) -> str:
        """Its settings in one line."""
        model, *rest = self.cells().items()
        return f"{model[1]} ({', '.join(f'{name} {value}' for name, value in rest)})"


class Runner(Protocol):
    """A loaded model, ready for one case."""

    ran: str
    """The execution provider or device that runs it, by the library's own word."""
    notes: tuple[str, ...]
    """What is not as it was asked for."""
    calls: Sequence[Callable[[], object]]
    """One inference of one batch each, for every stream; returns when the result is there."""
    names: Mapping[int, str]
    """What the model calls its classes; empty if it does not say."""

    def enter(self) -> None:
        """Set what is global to the library; called before calls in which other cases had their turn."""

    def device_memory(self) -> int | None:
        """Bytes of GPU memory that were allocated at most; None where it runs elsewhere or the library has no count."""

    def classify(self, pictures: Sequence[Path]) -> list[int]:
        """The class of each picture; `CannotRun` if it is no classifier."""

    def detect(self, pictures: Sequence[Path]) -> list[Boxes]:
        """The objects in each picture, in its own pixels, down to `boxes.LEAST`; `CannotRun` if it is no detector."""


class Model(Protocol):
    """A model that was named on the command line; it is sent to other processes, so it holds no loaded weights."""

    name: str
    precisions: tuple[str, ...]
    libraries: tuple[str, ...]
    """The distributions whose versions matter."""
    modules: tuple[str, ...]
    """What has to be imported to load it."""

    def provider(self, asked: str) -> str:
        """The library's name of what was asked for, "" for the best there is; `Mistake` if nobody knows it."""

    def shape(self, size: Size | None) -> tuple[int, ...]:
        """The shape of one item; `Mistake` if neither the model nor the command line tells it."""

    def prepare(self, case: Case, folder: Path) -> None:
        """Write to the folder what the case needs, such as a quantised file; `CannotRun` if that fails."""

    def runner(self, case: Case) -> Runner:
        """Load it; `CannotRun` says why not, other exceptions are of the library's."""


class Planned(NamedTuple):
    """A case, and why it is left out, if it is."""

    model: Model
    case: Case
    skipped: str = ""


def planned(models: Sequence[Model], options: argparse.Namespace) -> Iterator[Planned]:
    """Every combination of what was asked for, once each.

    Raises:
        Mistake: an unknown provider, or a shape that nothing tells.
    """
    seen = set()
    for model in models:
        knobs: tuple[Sequence[Any], ...] = (
            [model.provider(asked) for asked in options.providers or [""]],
            options.precisions,
            options.batch_sizes,
            [model.shape(size) for size in options.input_sizes or [None]],
            options.threads,
            options.streams,
        )
        for provider, precision, batch, shape, threads, streams in product(*knobs):
            case = Case(model.name, provider, precision, batch, shape, threads, streams)
            if case in seen:
                continue
            seen.add(case)
            can = precision in model.precisions
            yield Planned(model, case, "" if can else f"{precision} is not among {', '.join(model.precisions)}")


def sentence(error: BaseException) -> str:
    """One line that tells what went wrong."""
    said = next(iter(str(error).strip().splitlines()), "")
    said = said if len(said) <= PATIENCE else f"{said[:PATIENCE]}..."
    if isinstance(error, (CannotRun, Mistake)):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
