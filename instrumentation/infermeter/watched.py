"""A call of a library that is watched: an inference of its own, or a stage of the inference that it runs in."""

from typing import TYPE_CHECKING

from infermeter.call import NO_CALL, Call, enclosing, enter_context, leave_context, now

if TYPE_CHECKING:
    from infermeter.track import Track


class Watched:
    """One call of a library, from `watched` until it is ended by `finish`, `fail` or `abandon`: once, whoever tries.

    Attributes:
        call: takes reports: the inference, or if it is only a stage of another one, a call that ignores them. What is
            known of that one, its own code tells.
    """

    __slots__ = ("_elapsed", "_outer", "_resumed", "_stage", "call")

    def __init__(self, call: Call, outer: Call | None, stage: str) -> None:
        self.call = call
        self._outer = outer
        self._stage = stage
        self._elapsed = 0.0
        self._resumed: float | None = call.started if outer is None else now()

    @property
    def own(self) -> bool:
        """Whether this is an inference, and no stage of another one."""
        return self.call is not NO_CALL

    def seconds(self) -> float:
        """How long it has been running: without the time in which its consumer worked."""
        return self._elapsed + (now() - self._resumed if self._resumed is not None else 0.0)

    def pause(self) -> None:
        """The consumer of a stream works now; what that calls is not inside this call."""
        if self._resumed is not None:
            self._elapsed = self.seconds()
            self._resumed = None
            self._leave()

    def go_on(self) -> None:
        """The next item of a stream is being worked on, maybe in another task or thread."""
        if self._resumed is None:
            if self.own:
                self.call.token = enter_context(self.call)
            self._resumed = now()

    def first_item(self) -> None:
        """The first item of a stream is there, now."""
        if self.own and self.call.open:
            self.call.fact().first_item = self.seconds()

    def finish(self, seconds: float | None = None) -> None:
        """It ended, having taken so many seconds, by default those that were measured here."""
        taken = self.seconds() if seconds is None else seconds
        if self._outer is None:
            self.go_on()
            self.call.track.finish(self.call, taken)
        else:
            self._end_stage(taken)

    def fail(self, error: BaseException, seconds: float | None = None) -> None:
        """It raised, after so many seconds."""
        taken = self.seconds() if seconds is None else seconds
        if self._outer is None:
            self.go_on()
            self.call.track.fail(self.call, error, taken)
        else:
            self._end_stage(taken)

    def abandon(self) -> None:
        """Nothing was inferred: forget it; not what has ended already, even if recording it failed."""
        if self._outer is None:
            if self.call.open:
                self.go_on()
                self.call.track.abandon(self.call)
        else:
            self._outer = NO_CALL

    def _end_stage(self, seconds: float) -> None:
        outer, self._outer = self._outer, NO_CALL
        # A stream may outlive the inference in which it was opened: then it is part of none.
        if outer is not None and outer is not NO_CALL and outer.open:
            outer.staged(self._stage, seconds)

    def _leave(self) -> None:
        if self.own:
            try:
                leave_context(self.call.token)  # type: ignore[arg-type]
            except ValueError:  # entered in another context, in which it is passed over once it has ended
                pass


def watched(track: "Track", stage: str) -> Watched:
    """Open a call of a library now: an inference of `track`, or if the caller is inside one, a `stage` of that."""
    outer = enclosing(track.recorder)
    return Watched(track.begin() if outer is None else NO_CALL, outer, stage)
