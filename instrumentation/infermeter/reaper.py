"""The reaper: moves what the dead counted into the accumulator of their folder, and removes their files.

A kill between any two of its steps loses nothing and counts nothing twice. Until the new accumulator has its name, the
dead count by their files; from then on they count by the accumulator, which names them; and who is named is only
waiting to be removed.
"""

import fcntl
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermeter import accumulator
from infermeter.accumulator import FutureError, Totals
from infermeter.errors import DamagedError
from infermeter.segment import EXTENT, NEW, SEGMENT, owned
from infermeter.segments import Dump, Folder, Problem, dead, reason
from infermeter.source import Descriptor

# Takes what a dead process left; gives the values by key, with its records in them. Rows that end with their process
# are left out of it or ignored.
Fold = Callable[[Dump], Mapping[bytes, NDArray[np.float64]]]

# Makes one of the values of two rows of one key, of equal length.
Join = Callable[[bytes, NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def summed(_key: bytes, one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of both."""
    return one + other


# In one go, so that those who read meanwhile are not kept from the lock for long.
_MOST = 256
_DAMAGED = ".damaged"


class Reaped(NamedTuple):
    """What one run did.

    Attributes:
        absorbed: how many dead processes are in the accumulator now that were not before.
        problems: what kept others out of it.
    """

    absorbed: int
    problems: list[Problem]


def reap(folder: Folder, fold: Fold, join: Join = summed) -> Reaped:
    """Absorb the dead of `folder`, some hundreds at most; does nothing while somebody else does, and never raises."""
    with folder.locked(fcntl.LOCK_EX) as held:
        if not held:
            return Reaped(0, [])
        try:
            return _reap(folder, fold, join)
        except OSError as error:
            return Reaped(0, [Problem(str(folder.path), reason(error))])


def _reap(folder: Folder, fold: Fold, join: Join) -> Reaped:
    problems: list[Problem] = []
    try:
        before = folder.accumulated()
    except FutureError as error:  # somebody else's, who can read it
        return Reaped(0, [Problem(accumulator.NAME, str(error))])
    except DamagedError as error:
        problems.append(Problem(accumulator.NAME, str(error)))
        path = folder.path / accumulator.NAME
        path.replace(path.with_suffix(_DAMAGED))
        before = accumulator.EMPTY
    names = [path.name for path in folder.path.iterdir()]
    left = [identity for identity in sorted(before.absorbed) if not _removed(folder, identity, names)]
    _remove_unfinished(folder, names)
    totals: Totals | None = None
    absorbed: list[str] = []
    for name in sorted(names):
        identity = name.removesuffix(SEGMENT)
        if identity == name or identity in before.absorbed or len(absorbed) == _MOST:
            continue
        try:
            process = folder.process(identity)
            if process.live():
                continue
            dump, wrong = process.read()
        except (DamagedError, OSError) as error:
            problems.append(Problem(name, reason(error)))
            continue
        problems += wrong
        if dump.live or wrong:
            continue
        try:
            joined = _joined(before.totals() if totals is None else dict(totals), dump, fold(dump), join)
        except Exception as error:  # the caller's, who may be told by a damaged record to do anything
            problems.append(Problem(name, f"{type(error).__name__}: {error}"))
            continue
        totals = joined
        absorbed.append(identity)
    if totals is not None:
        accumulator.write(folder.path, accumulator.packed(before.serial + 1, left + absorbed, totals))
        for identity in absorbed:
            _removed(folder, identity, names)
    return Reaped(len(absorbed), problems)


def _joined(totals: Totals, dump: Dump, values: Mapping[bytes, NDArray[np.float64]], join: Join) -> Totals:
    """`totals`, with `values` in them."""
    ended = {entry.key for entry in dump.entries if entry.live}
    for key, numbers in values.items():
        if key not in ended:
            known = totals.get((key, len(numbers)))
            totals[key, len(numbers)] = np.array(numbers) if known is None else join(key, known, numbers)
    return totals


def _removed(folder: Folder, identity: str, names: list[str]) -> bool:
    """Whether the files of a segment, which are among `names`, are gone now."""
    try:
        for name in names:
            if name.startswith(identity + ".") and name.endswith(EXTENT):
                (folder.path / name).unlink(missing_ok=True)
        # Last, so that as long as there is any file there is this one.
        (folder.path / (identity + SEGMENT)).unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _remove_unfinished(folder: Folder, names: list[str]) -> None:
    """Remove what was killed while it was made."""
    for name in names:
        path = folder.path / name
        identity = name.partition(".")[0]
        try:
            if name.endswith(NEW) and owned(identity) is None:
                descriptor = Descriptor(path)
                if dead(descriptor.number):
                    path.unlink()
            elif name.endswith(EXTENT) and not (folder.path / (identity + SEGMENT)).exists():
                path.unlink()
        except OSError:
            continue
