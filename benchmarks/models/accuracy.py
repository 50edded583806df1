"""How good a model is on labelled pictures: share of right classes, or precision, recall and average precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.models.cases import CannotRun
from demo.accuracy import Confusion, confusion, mean_average_precision
from demo.detector import Boxes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.models.cases import Runner
    from benchmarks.models.pictures import Labelled


def judged(runner: Runner, truth: Labelled, confidence: float) -> dict[str, float]:
    """`accuracy` (top-1) of a classifier; of a detector `map_50`, and `precision` and `recall` from `confidence` up.

    All are 0 to 1. `precision` is the share of what was found that has an object of its class under it, `recall` the
    share of the objects that were found as what they are; boxes match from an intersection of half of the union on.
    What has no value, such as the precision of a model that finds nothing, is absent.

    Raises:
        CannotRun: the model is of another kind than the labels, or does not know their classes.
    """
    if truth.names:
        index = indices(truth.names, runner.names)
        found = runner.classify(truth.pictures)
        return {
            "accuracy": sum(index[true] == said for true, said in zip(truth.classes, found, strict=True)) / len(found)
        }
    everything = runner.detect(truth.pictures)
    counts = sum(
        (confusion(_sure(each, confidence), frame) for each, frame in zip(everything, truth.frames, strict=True)),
        Confusion(),
    )
    figures = {
        "map_50": mean_average_precision(everything, truth.frames),
        "precision": _share(counts.right, counts.matched + counts.false),
        "recall": _share(counts.right, counts.matched + counts.missed),
    }
    return {name: value for name, value in figures.items() if not np.isnan(value)}


def indices(folders: tuple[str, ...], names: Mapping[int, str]) -> list[int]:
    """The model's index of the class of each folder.

    A model that names its classes is asked for these names. Folders that are called by numbers are these indices,
    others stand for 0, 1, ... in the order of their names, as in torchvision's ImageFolder.

    Raises:
        CannotRun: the model has other names.
    """
    numbers = [int(folder) for folder in folders] if all(folder.isdecimal() for folder in folders) else None
    if not names or (numbers and set(numbers) <= set(names)):
        return numbers or list(range(len(folders)))
    by_name = {name: index for index, name in names.items()}
    if unknown := [folder for folder in folders if folder not in by_name]:
        raise CannotRun(f"the model has no class {unknown[0]!r}, which is a folder of labelled pictures")
    return [by_name[folder] for folder in folders]


def _sure(found: Boxes, confidence: float) -> Boxes:
    sure = found.confidences >= confidence
    return Boxes(found.boxes[sure], found.confidences[sure], found.classes[sure])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
