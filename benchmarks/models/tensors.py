"""What models have in common that take a tensor and give tensors: how labelled pictures go in and come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.models.boxes import classes, objects, scaled
from benchmarks.models.pictures import layout, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from benchmarks.models.boxes import Outputs
    from benchmarks.models.cases import Case
    from demo.detector import Boxes


class OnTensors:
    """A runner, less what loads it.

    Args:
        infer: gives the outputs, by name, of a batch.
        dtype: of the elements of the batch.
        mean: what is taken from the values 0 to 1 of each channel.
        deviation: what they are divided by then.
    """

    def __init__(
        self,
        case: Case,
        infer: Callable[[npt.NDArray[Any]], Outputs],
        dtype: npt.DTypeLike,
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> None:
        self._case, self._infer, self._dtype = case, infer, dtype
        self._mean, self._deviation = mean, deviation

    def classify(self, pictures: Sequence[Path]) -> list[int]:
        """The class of each picture; `CannotRun` if the outputs are not those of a classifier."""
        return [kind for _, outputs in self._batches(pictures) for kind in classes(outputs)][: len(pictures)]

    def detect(self, pictures: Sequence[Path]) -> list[Boxes]:
        """The objects in each picture, in its own pixels; `CannotRun` if the outputs are of no known detector."""
        from PIL import Image  # noqa: PLC0415 - only those who have labelled pictures need it

        _, height, width = layout(self._case.shape)
        found = []
        for batch, outputs in self._batches(pictures):
            for picture, boxes in zip(batch, objects(outputs, (height, width)), strict=False):
                with Image.open(picture) as opened:
                    found.append(scaled(boxes, opened.width / width, opened.height / height))
        return found

    def _batches(self, pictures: Sequence[Path]) -> Iterator[tuple[Sequence[Path], Outputs]]:
        """Pictures in batches of the case's size, and what the network says; the last batch is filled with its last."""
        for start in range(0, len(pictures), self._case.batch):
            batch = pictures[start : start + self._case.batch]
            items = [tensor(path, self._case.shape, self._dtype, self._mean, self._deviation) for path in batch]
            items += [items[-1]] * (self._case.batch - len(items))
            yield batch, self._infer(np.stack(items))
