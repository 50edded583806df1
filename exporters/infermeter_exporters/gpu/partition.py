"""What services used of a GPU, so that all parts add up to what the GPU says of itself: exactly, in floats too."""

from collections.abc import Hashable, Mapping
from math import floor
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

# Multiples of 1/64 up to 100 are added without rounding, in any order.
_STEPS = 64


def time_shares(busy: float, used: Mapping[Key, float]) -> tuple[dict[Key, float], float]:
    """Parts of a GPU's time, in percent.

    Samples of processes are taken at other moments than that of the GPU, and may say more than it does: then all of
    them are made smaller by the same factor.

    Args:
        busy: ratio of the time in which the GPU was busy, 0 to 1.
        used: what each one says that it used, in percent.

    Returns:
        what each one gets, and what is left for nobody; multiples of 1/64 whose sum is `busy` in percent, rounded to a
        multiple of 1/64.
    """
    total = round(busy * 100 * _STEPS)
    said = sum(used.values())
    scale = min(1.0, total / (said * _STEPS)) if said > 0 else 0.0
    parts = {key: floor(percent * scale * _STEPS) for key, percent in used.items()}
    # Rounding of the scaled parts could take one step too many.
    rest = total - sum(parts.values())
    for key, steps in parts.items():
        taken = min(steps, max(0, -rest))
        parts[key] -= taken
        rest += taken
    return {key: steps / _STEPS for key, steps in parts.items()}, rest / _STEPS


def memory_shares(used: int, held: Mapping[Key, int]) -> tuple[dict[Key, int], int]:
    """Parts of a GPU's used memory, in bytes.

    Args:
        used: by all.
        held: what each one says that it holds; together more than `used` if memory was freed in between.

    Returns:
        what each one gets, and what is left for nobody; their sum is `used`.
    """
    said = sum(held.values())
    parts = {key: size * used // said if said > used else size for key, size in held.items()}
    return parts, used - sum(parts.values())
