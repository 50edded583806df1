"""What a record in the ring says: its tag, and the payload of an inference that reported more than its time.

A tag is the number of a shared row and a kind. Names are the numbers of rows too, which were published before, so that
whoever finds a record needs nothing that died with its process.
"""

import json
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermeter.observation import Exemplar

# What is told outside inferences: the row, and the number that was told. The payload is the time, in seconds since
# 1970, of what is told of a gauge, else empty.
TOLD = 0
# An inference of the series of the row, with its seconds, and as payload: nothing; the confidences of one frame, as
# float32 or as float64; or a `Packed`.
BARE, FLOATS32, FLOATS64, PACKED = 1, 2, 3, 4
# An HTTP request, counted in the row, with its seconds, and as payload the bytes of its body, as float64.
ANSWERED = 5

_KINDS = 8
_HEADER = struct.Struct("=dIIIIc")
_NUMBERS = struct.Struct("=II")
MOMENT = SIZE = struct.Struct("=d")


def tag(number: int, kind: int) -> int:
    """The tag of a record about a shared row."""
    return number * _KINDS + kind


def untagged(tagged: int) -> tuple[int, int]:
    """The number of the shared row, and the kind."""
    return divmod(tagged, _KINDS)


class Packed(NamedTuple):
    """An inference.

    Attributes:
        usd: what it cost besides its time.
        told: rows by their number, and what is added to each.
        sizes: number of detections in each frame.
        dtype: of the confidences, f or d.
        confidences: those of all frames, end to end.
        wholes: rows of histograms by their number, and what is added to each as a whole, see `Row.whole`.
        exemplar: what identifies it, if anything does.
    """

    usd: float = 0.0
    told: list[tuple[int, float]] = []  # noqa: RUF012 - read only, like every part of a tuple
    sizes: list[int] = []  # noqa: RUF012
    dtype: str = "f"
    confidences: bytes = b""
    wholes: list[tuple[int, NDArray[np.float64]]] = []  # noqa: RUF012
    exemplar: Exemplar | None = None

    def packed(self) -> bytes:
        """As a payload."""
        named = json.dumps([self.exemplar.time, self.exemplar.labels]).encode() if self.exemplar else b""
        counts = (len(self.told), len(self.sizes), len(self.wholes), len(named))
        parts = [
            _HEADER.pack(self.usd, *counts, self.dtype.encode()),
            struct.pack(f"={len(self.told)}I", *(number for number, _ in self.told)),
            struct.pack(f"={len(self.told)}d", *(value for _, value in self.told)),
            struct.pack(f"={len(self.sizes)}I", *self.sizes),
        ]
        for number, whole in self.wholes:
            parts += (_NUMBERS.pack(number, len(whole)), whole.tobytes())
        return b"".join((*parts, named, self.confidences))


def unpacked(payload: bytes) -> Packed:
    """What `Packed.packed` made of it.

    Raises:
        struct.error, ValueError: it is no such payload.
    """
    usd, told, sizes, wholes, named, dtype = _HEADER.unpack_from(payload)
    at = _HEADER.size
    numbers = struct.unpack_from(f"={told}I", payload, at)
    values = struct.unpack_from(f"={told}d", payload, at + 4 * told)
    at += 12 * told
    counts = struct.unpack_from(f"={sizes}I", payload, at)
    at += 4 * sizes
    found = []
    for _ in range(wholes):
        number, length = _NUMBERS.unpack_from(payload, at)
        at += _NUMBERS.size
        found.append((number, np.frombuffer(payload, np.float64, length, at)))
        at += 8 * length
    exemplar = None
    if named:
        time, labels = json.loads(payload[at : at + named])
        exemplar = Exemplar(0.0, float(time), dict(labels))
    confidences = payload[at + named :]
    return Packed(
        usd, list(zip(numbers, values, strict=True)), list(counts), dtype.decode(), confidences, found, exemplar
    )
