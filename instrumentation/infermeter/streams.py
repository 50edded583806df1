"""Driving a generator on behalf of its consumer, with the clock running only inside its steps.

Between two steps the consumer's code runs, maybe in another task or thread; so the call is the current one only while
a step runs, and each step enters and leaves the context it runs in.
"""

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from infermeter.call import Call, enter_context, leave_context, now

if TYPE_CHECKING:
    from infermeter.track import Track


class _Stream:
    """One generator as one inference: time is summed over its steps, detections over its items."""

    __slots__ = ("call", "elapsed", "resumed", "track")

    def __init__(self, track: "Track") -> None:
        self.track = track
        self.elapsed = 0.0
        self.call: Call = track.begin()
        self.resumed = self.call.started

    def suspend(self, item: Any) -> None:
        """A step gave `item`."""
        call = self.call
        first = self.elapsed == 0.0
        self.elapsed += now() - self.resumed
        if first:
            call.fact().first_item = self.elapsed
        self.track.read(call, item)
        try:
            leave_context(call.token)  # type: ignore[arg-type]
        except ValueError:
            pass

    def resume(self) -> None:
        """The next step begins."""
        self.call.token = enter_context(self.call)
        self.resumed = now()

    def finish(self) -> None:
        """The generator ended, or was closed by its consumer."""
        self.track.finish(self.call, self._seconds())

    def fail(self, error: BaseException) -> None:
        """The generator raised."""
        self.track.fail(self.call, error, self._seconds())

    def _seconds(self) -> float:
        return self.elapsed + now() - self.resumed


def drive(track: "Track", generator: Generator[Any, Any, Any], returned: list[Any]) -> Generator[Any, Any, Any]:
    """`yield from generator`, as one inference; what closing it gives is put into `returned`."""
    stream = _Stream(track)
    resume, value = generator.send, None
    while True:
        try:
            item = [resume(value)]  # a list, to be emptied: the item must not outlive its use by the consumer
        except StopIteration as stop:
            stream.finish()
            return stop.value
        except BaseException as error:
            stream.fail(error)
            raise
        stream.suspend(item[0])
        value = None  # do not keep a thrown exception alive while the consumer works
        try:
            value = yield item.pop()
            resume = generator.send
        except GeneratorExit:
            stream.resume()
            try:
                _close(generator, returned)
            except BaseException as error:
                stream.fail(error)
                raise
            stream.finish()
            raise
        except BaseException as error:  # thrown in by the consumer
            resume, value = generator.throw, error
        stream.resume()


def drive_items(track: "Track", generator: Generator[Any, Any, Any], returned: list[Any]) -> Generator[Any, Any, Any]:
    """`drive`, with every item as an inference of its own."""
    resume, value = generator.send, None
    while True:
        call = track.begin()
        try:
            item = [resume(value)]  # a list, to be emptied: the item must not outlive its use by the consumer
        except StopIteration as stop:
            track.abandon(call)
            return stop.value
        except BaseException as error:
            track.fail(call, error, now() - call.started)
            raise
        _succeed(track, call, item[0])
        value = None  # do not keep a thrown exception alive while the consumer works
        try:
            value = yield item.pop()
            resume = generator.send
        except GeneratorExit:
            _close(generator, returned)
            raise
        except BaseException as error:
            resume, value = generator.throw, error


def _close(generator: Generator[Any, Any, Any], returned: list[Any]) -> None:
    value = generator.close()  # type: ignore[func-returns-value]  # nothing, before Python 3.13
    if value is not None:
        returned.append(value)


def _succeed(track: "Track", call: Call, item: Any) -> None:
    seconds = now() - call.started
    track.read(call, item)
    track.finish(call, seconds)


async def adrive(track: "Track", generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """`drive` for an asynchronous generator."""
    stream = _Stream(track)
    resume, value = generator.asend, None
    while True:
        try:
            item = [await resume(value)]
        except StopAsyncIteration:
            stream.finish()
            return
        except BaseException as error:
            stream.fail(error)
            raise
        stream.suspend(item[0])
        value = None  # do not keep a thrown exception alive while the consumer works
        try:
            value = yield item.pop()
            resume = generator.asend
        except GeneratorExit:
            stream.resume()
            try:
                await generator.aclose()
            except BaseException as error:
                stream.fail(error)
                raise
            stream.finish()
            raise
        except BaseException as error:
            resume, value = generator.athrow, error
        stream.resume()


async def adrive_items(track: "Track", generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """`drive_items` for an asynchronous generator."""
    resume, value = generator.asend, None
    while True:
        call = track.begin()
        try:
            item = [await resume(value)]
        except StopAsyncIteration:
            track.abandon(call)
            return
        except BaseException as error:
            track.fail(call, error, now() - call.started)
            raise
        _succeed(track, call, item[0])
        value = None  # do not keep a thrown exception alive while the consumer works
        try:
            value = yield item.pop()
            resume = generator.asend
        except GeneratorExit:
            await generator.aclose()
            raise
        except BaseException as error:
            resume, value = generator.athrow, error
