"""Names of classes: what users give as names and indices, as label values. None of it can stop a fold or a call."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from infermeter.catalogue import MOST_ANNOUNCED_CLASSES
from infermeter.observation import Names


def class_name(key: Any, names: Names) -> str:
    """The label value of class `key` (an index or a name already), looked up in `names` where it has the index.

    An index that comes as a float, as in the tensors of ultralytics, is the whole number that it equals.
    """
    if isinstance(key, str):
        return key
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    if names is None or (isinstance(key, int) and key < 0):
        return printed(key)
    try:
        return str(names[key])
    except Exception:  # no such index, or names that raise: they are the user's object
        return printed(key)


def printed(value: object) -> str:
    """`value` as text, empty where it has none."""
    try:
        return str(value)
    except Exception:  # the user's object
        return ""


def announced_names(names: Names) -> list[str]:
    """The classes to show at 0 before the first detection: those of `names`, if they are few enough."""
    try:
        if names is None or len(names) > MOST_ANNOUNCED_CLASSES:
            return []
        every: Iterable[object] = names.values() if isinstance(names, Mapping) else names
        return [str(name) for name in islice(every, MOST_ANNOUNCED_CLASSES)]
    except Exception:  # the user's object: it is looked up again for each class that is seen
        return []
