"""An iterator of a library that is one inference: its clock runs only inside the steps."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from infermeter.patch import failed

if TYPE_CHECKING:
    from infermeter.ledger import Ledger
    from infermeter.watched import Watched


class Steps:
    """One inference, from its first step until it ends, raises, is closed or is dropped: once, whichever comes first.

    None of it raises; what fails is counted.

    Args:
        recorder: counts what fails.
        run: the inference. It is paused: its consumer works.
        read: told each item, inside the step that gave it.
        end: told that no item follows, inside the inference; gives the exception that it failed with, or None.
    """

    __slots__ = ("_end", "_open", "_read", "_recorder", "items", "run")

    def __init__(
        self,
        recorder: "Ledger",
        run: "Watched",
        read: Callable[[Any], object],
        end: Callable[[], BaseException | None] = lambda: None,
    ) -> None:
        self._open = True
        self._recorder = recorder
        self.run = run
        self._read = read
        self._end = end
        self.items = 0

    def begin(self) -> None:
        """A step begins."""
        try:
            if self._open:
                self.run.go_on()
        except Exception as error:  # ours, on the way of foreign code
            failed(self._recorder, error)

    def gave(self, item: Any) -> None:
        """A step gave `item`."""
        try:
            if self._open:
                self.items += 1
                try:
                    self._read(item)
                finally:
                    self.run.pause()
        except Exception as error:  # ours, on the way of foreign code
            failed(self._recorder, error)

    def raised(self, error: BaseException) -> None:
        """A step raised `error`."""
        try:
            if self._open:
                self._open = False
                self.run.fail(error)
        except Exception as problem:  # ours, on the way of foreign code
            failed(self._recorder, problem)

    def ended(self) -> None:
        """There is no other item, or nobody wants it: both are success."""
        try:
            if self._open:
                self._open = False
                seconds = self.run.seconds()
                error: BaseException | None = None
                try:
                    error = self._end()
                finally:
                    if error is None:
                        self.run.finish(seconds)
                    else:
                        self.run.fail(error, seconds)
        except Exception as problem:  # ours, on the way of foreign code
            failed(self._recorder, problem)

    def abandoned(self) -> None:
        """Nothing was inferred."""
        try:
            if self._open:
                self._open = False
                self.run.abandon()
        except Exception as problem:  # ours, on the way of foreign code
            failed(self._recorder, problem)

    def __del__(self) -> None:
        self.ended()


class Stepped:
    """Stands where an object of a library keeps the iterator that it is read from.

    Args:
        iterator: gives the items.
        steps: what they are of.
    """

    def __init__(self, iterator: Iterator[Any], steps: Steps) -> None:
        self.iterator = iterator
        self.steps = steps

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.steps.begin()
        try:
            item = next(self.iterator)
        except StopIteration:
            self.steps.ended()
            raise
        except BaseException as error:
            self.steps.raised(error)
            raise
        self.steps.gave(item)
        return item

    def __getattr__(self, name: str) -> Any:
        return getattr(self.iterator, name)


class AsyncStepped:
    """`Stepped`, of an asynchronous iterator.

    Args:
        iterator: gives the items.
        steps: what they are of.
    """

    def __init__(self, iterator: AsyncIterator[Any], steps: Steps) -> None:
        self.iterator = iterator
        self.steps = steps

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self.steps.begin()
        try:
            item = await anext(self.iterator)
        except StopAsyncIteration:
            self.steps.ended()
            raise
        except BaseException as error:
            self.steps.raised(error)
            raise
        self.steps.gave(item)
        return item

    def __getattr__(self, name: str) -> Any:
        return getattr(self.iterator, name)


def close(iterator: object) -> None:
    """Tell the steps of `iterator`, if it is one of ours, that nobody reads on: those of every recorder."""
    while isinstance(iterator, Stepped | AsyncStepped):
        iterator.steps.ended()
        iterator = iterator.iterator
