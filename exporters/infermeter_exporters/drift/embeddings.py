"""Drift of embeddings: whether vectors still lie where those of the reference lay, from sums that can be added.

The maximum mean discrepancy of Gretton and others (2012), A Kernel Two-Sample Test, with a Gaussian kernel as wide as
the median distance of the reference. The kernel is approximated by random Fourier features (Rahimi and Recht, 2007,
Random Features for Large-Scale Kernel Machines), whose means are all that is needed of a window. Besides, the first two
moments of each dimension say how many of them moved.
"""

import base64
import json
import math
from typing import Any, NamedTuple

import numpy as np

from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.false_discovery import benjamini_hochberg
from infermeter_exporters.drift.gamma import chi_square_tail
from infermeter_exporters.drift.layout import OUTSIDE, Layout

FREQUENCIES = 256
"""Of which each gives a cosine and a sine. The discrepancy is precise to about 1 / sqrt of it, relatively."""
MOST_DIMENSIONS = 4096
_FEATURES = 2 * FREQUENCIES
_MEDIAN_OF = 1000
"""Vectors whose distances give the width of the kernel."""
_HEAD = 1 + OUTSIDE
_SEED = 20_221


class Space(Layout):
    """Where the vectors of a reference lie; equal ones are equal, and can be keys.

    Its arrays of counts begin as those of any layout do: one bin that holds all vectors, and what is outside of
    it; then there are sums over vectors, of each dimension, of its square, and of each random feature.

    Args:
        centre: mean of each dimension.
        scale: standard deviation of each dimension, above 0.
        width: of the kernel, in standardised units.
        traces: of the first three powers of the covariance of the random features.
    """

    def __init__(self, centre: Floats, scale: Floats, width: float, traces: tuple[float, float, float]) -> None:
        super().__init__()
        self.centre, self.scale, self.width, self.traces = centre, scale, width, traces
        chance = np.random.default_rng(_SEED)
        self._frequencies = chance.normal(0.0, 1 / width, (len(centre), FREQUENCIES))
        self._text = json.dumps({"centre": _text(centre), "scale": _text(scale), "width": width, "traces": traces})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    @property
    def dimensions(self) -> int:
        """Of a vector."""
        return len(self.centre)

    @property
    def size(self) -> int:
        """The length of an array of counts."""
        return _HEAD + 2 * self.dimensions + _FEATURES

    def counted(self, values: Any) -> Floats:
        """Counts and sums of shape (size,).

        Args:
            values: of shape (vectors, dimensions); those that are not finite as a whole are counted as no numbers.
        """
        found = np.zeros(self.size)
        finite = np.isfinite(values).all(axis=-1)
        found[0], found[1] = finite.sum(), (~finite).sum()
        standard = (values[finite] - self.centre) / self.scale
        ends = np.cumsum([_HEAD, self.dimensions, self.dimensions])
        found[ends[0] : ends[1]] = standard.sum(axis=0)
        found[ends[1] : ends[2]] = np.square(standard).sum(axis=0)
        found[ends[2] :] = _random_features(standard, self._frequencies).sum(axis=0)
        return found

    def written(self) -> str:
        """As JSON, which `read_space` reads."""
        return self._text


class Shift(NamedTuple):
    """How vectors moved.

    Attributes:
        mmd: maximum mean discrepancy, what chance adds to it taken off, 0 to sqrt 2. Where all dimensions move by 0.2
            standard deviations it is about 0.1, however many there are.
        pvalue: how probable such a discrepancy is without drift.
        moved: part of dimensions whose mean moved, 0 to 1, of which about `alpha` are wrong.
        largest: the largest move of a mean, in standard deviations of the reference.
    """

    mmd: float
    pvalue: float
    moved: float
    largest: float


def learnt_space(vectors: Floats) -> Space:
    """What a reference fixes.

    Args:
        vectors: of shape (vectors, dimensions).

    Raises:
        ValueError: fewer than two vectors are finite.
    """
    found = vectors[np.isfinite(vectors).all(axis=-1)]
    if len(found) < 2:  # noqa: PLR2004
        raise ValueError("the reference has fewer than two finite vectors, expected more")
    centre, scale = found.mean(axis=0), found.std(axis=0)
    # A dimension that never moves is measured in its own size, or in ones.
    scale = np.where(scale > 0, scale, np.where(centre != 0, np.abs(centre), 1.0))
    standard = (found - centre) / scale
    width = _median_distance(standard) or 1.0
    space = Space(centre, scale, width, (0.0, 0.0, 0.0))
    features = _random_features(standard, space._frequencies)  # noqa: SLF001  (its own)
    return Space(centre, scale, width, _traces(features))


def read_space(content: dict[str, Any]) -> Space:
    """What `Space.written` wrote."""
    one, two, three = content["traces"]
    return Space(_array(content["centre"]), _array(content["scale"]), content["width"], (one, two, three))


def shift(space: Space, reference: Floats, current: Floats, alpha: float) -> Shift:
    """How vectors of a window moved.

    Without drift the squared discrepancy is distributed as a sum of chi-squares, weighted by the eigenvalues of the
    covariance of the features; its tail is that of the one chi-square that has the same three moments (Buckley and
    Eagleson, 1988, An Approximation to the Distribution of Quadratic Forms in Normal Random Variables).

    Args:
        space: of both.
        reference: counts of shape (size,).
        current: the same.
        alpha: which part of the dimensions that are said to have moved may be wrong.

    Raises:
        ValueError: one of the two has no vector.
    """
    n, m = float(reference[0]), float(current[0])
    if not n or not m:
        raise ValueError("the reference or the window has no vector, expected some in both")
    start = _HEAD + 2 * space.dimensions
    gap = float(np.square(current[start:] / m - reference[start:] / n).sum())
    first, second, third = space.traces
    chance = 1 / n + 1 / m
    pvalue = 1.0
    if second > 0 and third > 0:
        degrees = second**3 / third**2
        scaled = (gap / chance - first) / math.sqrt(2 * second) * math.sqrt(2 * degrees) + degrees
        pvalue = float(chi_square_tail(max(scaled, 0.0), degrees))
    ends = _HEAD, _HEAD + space.dimensions
    before, now = reference[slice(*ends)] / n, current[slice(*ends)] / m
    spread = reference[ends[1] : start] / n - np.square(before) + (current[ends[1] : start] / m - np.square(now))
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.square(now - before) / (np.maximum(spread, 0.0) / 2 * chance)
    squares = np.where(now == before, 0.0, squares)
    adjusted = benjamini_hochberg(np.where(np.isinf(squares), 0.0, chi_square_tail(squares, 1)))
    return Shift(
        math.sqrt(max(gap - chance * first, 0.0)),
        pvalue,
        float((adjusted < alpha).mean()),
        float(np.abs(now - before).max()),
    )


def _random_features(standard: Floats, frequencies: Floats) -> Floats:
    angles = standard @ frequencies
    found: Floats = np.concatenate((np.cos(angles), np.sin(angles)), axis=1) / math.sqrt(FREQUENCIES)
    return found


def _median_distance(standard: Floats) -> float:
    some = standard[np.linspace(0, len(standard) - 1, min(len(standard), _MEDIAN_OF)).astype(int)]
    squares = np.square(some).sum(axis=1)
    distances = squares[:, None] + squares - 2 * some @ some.T
    found = float(np.median(distances[np.triu_indices(len(some), 1)]))
    return math.sqrt(max(found, 0.0))


def _traces(features: Floats) -> tuple[float, float, float]:
    """Of the first three powers of the covariance, with what the sample itself adds to them taken off."""
    n = len(features)
    values = np.maximum(np.linalg.eigvalsh(np.cov(features, rowvar=False)), 0.0)
    first = float(values.sum())
    second = max(float(np.square(values).sum()) - first**2 / n, first**2 / len(values))
    third = float((values**3).sum()) - 3 * first * second / n - first**3 / n**2
    # By the inequality of Cauchy and Schwarz it cannot be less.
    return first, second, max(third, second**2 / first if first else 0.0)


def _text(numbers: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, dtype="<f8").tobytes()).decode()


def _array(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), dtype="<f8").astype(np.float64)
