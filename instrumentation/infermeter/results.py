"""`detections="auto"`: the confidences and classes in the results of well-known libraries, known by their shape.

None of these libraries is imported: a result is recognised by the attributes, keys or dimensions it has.
"""

from typing import Any, NamedTuple

from infermeter.observation import Names

# Columns of a detection row: x1, y1, x2, y2, confidence, class.
_CONFIDENCE, _CLASS, _COLUMNS = 4, 5, 6


class Detections(NamedTuple):
    """The detections of one frame.

    Attributes:
        confidences: n numbers, 0 to 1: list, tuple, NumPy array, CPU tensor or memoryview.
        classes: n class indices or names; None where the model has one class only or names none.
        names: class index to name; None leaves the index as the name.
    """

    confidences: Any
    classes: Any = None
    names: Names = None


class Frames(list[Detections]):
    """The frames of one result; an empty one has none, where an empty list of confidences is one empty frame."""


class UnrecognisedError(TypeError):
    """The shape of a result is not one that `auto` knows."""


def auto(result: Any) -> Frames:
    """The frames in `result`.

    Understood: `ultralytics` results (boxes or oriented boxes), `supervision.Detections`, torchvision's dictionaries
    of boxes, labels and scores, arrays of shape (n, 6) with columns x1, y1, x2, y2, confidence, class, and lists of
    any of these (one frame each). Tuples and other arrays could mean anything: they need a callable.

    Raises:
        UnrecognisedError: anything else.
    """
    return Frames(map(_frame, result)) if isinstance(result, list) else Frames([_frame(result)])


def _frame(result: Any) -> Detections:
    if isinstance(result, Detections):
        return result
    if isinstance(result, dict) and "scores" in result:
        return Detections(result["scores"], result.get("labels"))
    if getattr(result, "boxes", None) is not None or getattr(result, "obb", None) is not None:
        boxes = result.obb if getattr(result, "boxes", None) is None else result.boxes
        return Detections(boxes.conf, boxes.cls, getattr(result, "names", None))
    if getattr(result, "confidence", None) is not None and hasattr(result, "class_id"):
        named = (getattr(result, "data", None) or {}).get("class_name")
        return Detections(result.confidence, result.class_id if named is None else named)
    if not isinstance(result, tuple) and getattr(result, "shape", ())[1:] == (_COLUMNS,):
        return Detections(result[:, _CONFIDENCE], result[:, _CLASS])
    shape = getattr(result, "shape", None)
    raise UnrecognisedError(f"a {type(result).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else ""))
