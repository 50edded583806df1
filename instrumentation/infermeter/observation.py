"""What one inference is, as data: a few slots in a flat list, and the rare facts beside them.

Records lie end to end in lists that only grow at their end and shrink at their front. Each is appended by a single
`list.append` or `list.extend`, which is atomic, and in the common case holds nothing that the garbage collector
tracks: recording neither takes a lock nor brings a collection nearer. There are two kinds:

    bare    an inference that reported nothing is one number: seconds
    full    any other is seven slots: seconds, dtype, confidences, class_dtype, classes, names, facts

    seconds             how long it took
    dtype               how to read `confidences`: f or d (NumPy type characters) or FLOATS; None where no detections
                        were reported
    confidences         a copy of the caller's values: bytes, or with FLOATS a tuple of numbers
    class_dtype         how to read `classes`: a NumPy type character, or OBJECTS where classes is a tuple
    classes             bytes or a tuple, as long as confidences; None where no classes were given
    names               class index to name: a mapping, a sequence, or None
    facts               the rest, or None
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

STRIDE = 7  # slots of a full record
FLOATS = "tuple"
OBJECTS = "O"
WIDTHS = {"f": 4, "d": 8, FLOATS: 1}  # what one confidence adds to the length of `confidences`

# Payloads up to this length are bounded by the number of records alone; longer ones are weighed one by one.
SMALL_PAYLOAD = 512
FLOAT_IN_TUPLE = 32  # bytes: a pointer and a float object
NAME_IN_TUPLE = 8  # bytes: a pointer; names are shared

# What OpenMetrics allows the names and values of an exemplar's labels to take together, in characters.
LONGEST_EXEMPLAR = 128

Names = Mapping[int, str] | Sequence[str] | None


class Frame(NamedTuple):
    """The detections of one image, as stored in a record."""

    dtype: str | None
    confidences: bytes | tuple[float, ...] | None
    class_dtype: str | None
    classes: bytes | tuple[object, ...] | None
    names: Names


NO_FRAME = Frame(None, None, None, None, None)


class Exemplar(NamedTuple):
    """One inference that is shown as an example.

    Attributes:
        value: seconds that it took.
        time: when it ended, in seconds since 1970.
        labels: what identifies it: trace_id and span_id.
    """

    value: float
    time: float
    labels: dict[str, str]


class Facts:
    """What only some calls report."""

    __slots__ = (
        "batch_size",
        "completion_tokens",
        "error",
        "exemplar",
        "fallbacks",
        "first_item",
        "frames",
        "input_size",
        "per_token",
        "prompt_tokens",
        "stages",
    )

    def __init__(self) -> None:
        self.error: str | None = None  # the error_type of the exception that ended the call
        self.exemplar: Exemplar | None = None
        self.frames: list[Frame] | None = None  # second and later frames; the first lies in the record
        self.stages: list[tuple[str, float]] | None = None  # name and seconds of each stage that ended
        self.batch_size: float | None = None  # items
        self.input_size: float | None = None  # bytes
        self.first_item: float | None = None  # seconds from the start to the first item
        self.per_token: float | None = None  # seconds between two tokens after the first, on average
        self.prompt_tokens = 0.0
        self.completion_tokens = 0.0
        self.fallbacks = 0
