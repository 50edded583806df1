"""Detections in the outputs of ONNX models that say what they are; of others nothing is guessed."""

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infermeter.observation import Names
from infermeter.results import Detections, Frames

Outputs = Mapping[str, Any]

# Names of outputs after non-maximum suppression, as exporters of torchvision, TensorFlow and DETR models write them.
_SCORES = ("scores", "detection_scores")
_CLASSES = ("labels", "classes", "class_ids", "detection_classes")
_BOXES = ("boxes", "bboxes", "detection_boxes")
_COUNT = ("num_detections", "num_dets")
# Columns of one output of rows: x1, y1, x2, y2, confidence, class.
_CONFIDENCE, _CLASS, _COLUMNS = 4, 5, 6
# Models that suppress inside give their best rows however bad they are; this is what their own library leaves out.
END_TO_END_CONFIDENCE = 0.25


def reader(outputs: Sequence[tuple[str, Sequence[object]]], metadata: Mapping[str, str]) -> "Read | None":
    """How to read the detections of a model, if it says so.

    Args:
        outputs: name and shape of each output; a dimension that is not fixed is no number.
        metadata: what the model says of itself.

    Returns:
        gives the frames in outputs by name: None for a model whose outputs could mean anything.
    """
    names = _names(metadata.get("names"))
    shapes = {name.lower(): (name, shape) for name, shape in outputs}
    scores, boxes = (next((shapes[one][0] for one in kind if one in shapes), None) for kind in (_SCORES, _BOXES))
    classes, count = (next((shapes[one][0] for one in kind if one in shapes), None) for kind in (_CLASSES, _COUNT))
    if scores is not None and boxes is not None:
        return lambda found: _columns(found, scores, classes, count, names)
    if len(outputs) == 1 and metadata.get("task") == "detect" and outputs[0][1][-1:] == [_COLUMNS]:
        name = outputs[0][0]
        least = END_TO_END_CONFIDENCE if metadata.get("end2end", "").lower() == "true" else 0.0
        return lambda found: _rows(found, name, least, names)
    return None


Read = Callable[[Outputs], Frames]


def _columns(found: Outputs, scores: str, classes: str | None, count: str | None, names: Names) -> Frames:
    """Frames in outputs of shape (n,) for one image, or (b, n) for several, padded with a score of 0."""
    if scores not in found:  # others were asked for
        return Frames()
    confidences = found[scores]
    labels = found.get(classes) if classes is not None else None
    if confidences.ndim == 1:
        return Frames([Detections(confidences, labels, names)])
    counts = found[count].reshape(-1) if count is not None and count in found else None
    frames = Frames()
    for index, row in enumerate(confidences):
        kept = slice(int(counts[index])) if counts is not None else row > 0
        frames.append(Detections(row[kept], labels[index][kept] if labels is not None else None, names))
    return frames


def _rows(found: Outputs, name: str, least: float, names: Names) -> Frames:
    """Frames in one output of shape (n, 6) or (b, n, 6)."""
    if name not in found:
        return Frames()
    output = found[name]
    images = output if output.ndim > 2 else output[None]  # noqa: PLR2004  (images, rows, columns)
    kept = (image[image[:, _CONFIDENCE] > least] for image in images)
    return Frames(Detections(rows[:, _CONFIDENCE], rows[:, _CLASS].astype("int64"), names) for rows in kept)


def _names(text: str | None) -> Names:
    """Class names as exporters write them, a literal of Python or JSON: `{0: 'person'}` or `["person"]`."""
    if not text:
        return None
    try:
        given = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(given, dict):
        return {int(key): str(value) for key, value in given.items() if str(key).isdigit()}
    return [str(name) for name in given] if isinstance(given, list) else None
