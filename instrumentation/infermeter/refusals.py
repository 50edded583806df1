"""Refusals: observations that cannot be counted, which are counted as such and never stop a call."""

import logging
import math
from collections.abc import Callable

from infermeter.arrays import DeviceArrayError, number
from infermeter.catalogue import DROP_REASONS
from infermeter.config import strict
from infermeter.results import UnrecognisedError

log = logging.getLogger("infermeter")


class Refusals:
    """Counts what is refused, and logs the first of each kind.

    Args:
        count: told the reason and the number of each refusal on the calling path.
    """

    def __init__(self, count: Callable[[str, int], None]) -> None:
        self._count = count
        self._logged: set[tuple[str, str]] = set()

    def valid(self, value: object) -> float | None:
        """`value` as a number if it is a finite one of 0 or more; what is refused is counted."""
        try:
            read = number(value)
        except Exception as error:
            self.refuse(error)
            return None
        if 0 <= read < math.inf:
            return read
        self.drop("negative" if -math.inf < read < 0 else "non_finite")
        return None

    def refuse(self, error: Exception, reason: str = "unreadable") -> None:
        """Count an observation that could not be read because of `error`."""
        if isinstance(error, DeviceArrayError):
            reason = "device_array"
        elif isinstance(error, UnrecognisedError):
            reason = "unrecognised_result"
        self.drop(reason, error)

    def drop(self, reason: str, error: BaseException | None = None, count: int = 1) -> None:
        """Count refused observations; raise instead where INFERMETER_STRICT is set."""
        if strict():
            raise error if error is not None else ValueError(DROP_REASONS[reason])
        self.pass_over(reason, error, count)

    def pass_over(self, reason: str, error: BaseException | None, count: int) -> None:
        """Count refused observations where the call goes on with the rest, whatever is strict."""
        self._count(reason, count)
        self.tell(reason, error)

    def tell(self, reason: str, error: BaseException | None) -> None:
        """Log the first refusal of its kind."""
        kind = (reason, type(error).__name__)
        if kind not in self._logged:
            self._logged.add(kind)
            detail = f" ({type(error).__name__}: {error})" if error is not None else ""
            log.warning(
                "dropped an observation: %s%s; further ones are only counted in "
                'infermeter_observations_dropped_total{reason="%s"}',
                DROP_REASONS[reason],
                detail,
                reason,
            )
