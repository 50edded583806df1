"""Numbers out of whatever array a model returns, copied, without importing the library that made it."""

import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermeter.observation import FLOATS, OBJECTS

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

# Device types of the DLPack protocol whose memory the CPU can read: kDLCPU, kDLCUDAHost (pinned).
_HOST_MEMORY = (1, 3)
# Types whose float() costs nothing and touches no device; a list that begins with anything else is read element by
# element.
_PLAIN = (float, int, np.floating, np.integer)


class DeviceArrayError(ValueError):
    """The values lie in the memory of a GPU."""


def copied_floats(values: Any) -> tuple[str, bytes | tuple[float, ...]]:
    """Read real numbers from a list, tuple, NumPy array, CPU tensor, memoryview or anything with `__array__`.

    Args:
        values: any shape; read in C order, so an array of shape (n, 1) gives n values and a 0-d array one.

    Returns:
        `f` or `d` and a copy of the values as bytes of that NumPy type, or FLOATS and a tuple of numbers.

    Raises:
        DeviceArrayError: the values are on a GPU.
        TypeError, ValueError: no numbers can be read.
    """
    if isinstance(values, (list, tuple)):
        # A tuple costs a quarter of packing the numbers, which is left to the fold.
        if not values or type(values[0]) is float:
            return FLOATS, tuple(values)
        if isinstance(values[0], _PLAIN):
            return FLOATS, tuple(map(number, values))
    array = _array(values)
    if array.dtype != FLOAT32:
        if array.dtype.kind not in "fiubV":  # V: bfloat16 of ml_dtypes
            message = f"no numbers in an array of dtype {array.dtype}"
            raise TypeError(message)
        array = array.astype(FLOAT64)
    elif array.dtype is not FLOAT32:
        array = array.astype(FLOAT32)  # another byte order, or metadata
    return array.dtype.char, array.tobytes()


def number(value: Any) -> float:
    """Read one real number.

    Raises:
        DeviceArrayError: it is on a GPU.
        TypeError, ValueError, OverflowError: it is none, or too large.
    """
    if type(value) is int or type(value) is float:
        return float(value)
    return float(_on_host(value))


def class_values(values: Any) -> tuple[str, bytes | tuple[object, ...]]:
    """Read class indices or class names; same inputs and errors as `copied_floats`, and lists of str.

    Returns:
        The NumPy type character and a copy as bytes, or OBJECTS and a tuple of what was given.
    """
    if isinstance(values, (list, tuple)) and (not values or isinstance(values[0], (str, int, float))):
        return OBJECTS, tuple(values)
    array = _array(values)
    if array.dtype.kind in "iubf":
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return array.dtype.char, array.tobytes()
    if array.dtype.kind in "UO":
        return OBJECTS, tuple(array.ravel().tolist())
    message = f"no classes in an array of dtype {array.dtype}"
    raise TypeError(message)


def _array(values: Any) -> NDArray[Any]:
    """`values` as an array; a list of scalars and small arrays end to end."""
    if isinstance(values, (list, tuple)):
        return np.concatenate([np.asarray(_on_host(value)).ravel() for value in values])
    return np.asarray(_on_host(values))


def _on_host(values: Any) -> Any:
    """`values` as something that NumPy reads without waiting for a device."""
    if isinstance(values, (np.ndarray, numbers.Number)):
        return values
    if isinstance(values, (str, bytes, bytearray, dict, set)) or not (
        hasattr(values, "__array__") or hasattr(values, "__len__") or hasattr(values, "__float__")
    ):
        message = f"no numbers in a {type(values).__name__}"
        raise TypeError(message)
    device = getattr(values, "__dlpack_device__", None)
    if device is not None and device()[0] not in _HOST_MEMORY:
        raise DeviceArrayError(type(values).__name__)
    if type(values).__module__ == "torch":
        values = values.detach()
        if str(values.dtype) == "torch.bfloat16":  # NumPy has no such type
            values = values.float()
    return values
