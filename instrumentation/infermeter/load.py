"""`load`: how long a model takes until it can answer."""

from contextvars import ContextVar
from types import TracebackType
from typing import Self, TypeVar, cast

from infermeter.call import now
from infermeter.meter import Meter
from infermeter.wrap import timed

T = TypeVar("T")

_Open = tuple["Load", float, "_Open | None"]
# The loads that run in this thread or task: which, since when, and the one around it.
_OPEN: ContextVar[_Open | None] = ContextVar("infermeter_load", default=None)


class Load(Meter):
    """Times the loading of one model: a decorator and a context manager; made by `load`.

    A load that raises is not recorded: nothing was loaded.
    """

    __slots__ = ()

    def __call__(self, function: T, /) -> T:
        """Decorate the function, coroutine or method that loads.

        Raises:
            ConfigError: not a callable, a class, or a generator.
        """
        return cast("T", timed(self.loaded, function, "load"))

    def __enter__(self) -> Self:
        _OPEN.set((self, now(), _OPEN.get()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = now()
        entry = _OPEN.get()
        if entry is None:  # entered in another context, which only that one can tell the time of
            return
        _, started, around = entry
        _OPEN.set(around)
        if error is None:
            self.loaded(ended - started)

    def loaded(self, seconds: float) -> None:
        """Record that the model was loaded in so many seconds, measured by the caller."""
        valid = self.recorder.valid(seconds)
        if valid is not None:
            self.recorder.note(self, "model_load_seconds", "", valid)


def loading() -> bool:
    """Whether a `load` block is open in this thread or task."""
    return _OPEN.get() is not None
