"""What users say of single objects: under which name a session or a module is watched."""

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infermeter.errors import ConfigError

if TYPE_CHECKING:
    from infermeter.track import Track


class Marks:
    """Tracks by object, which is neither changed nor kept alive."""

    def __init__(self) -> None:
        self._tracks: dict[int, tuple[weakref.ref[Any], Track]] = {}
        self._listeners: dict[Callable[[Any, Track], None], None] = {}

    def put(self, subject: object, track: "Track") -> None:
        """Mark `subject`, instead of what it was marked with.

        Raises:
            ConfigError: it cannot be referred to weakly.
        """
        key = id(subject)
        try:
            reference = weakref.ref(subject, lambda _: self._tracks.pop(key, None))
        except TypeError:
            raise ConfigError(f"watch() got a {type(subject).__name__}, which cannot be referred to weakly") from None
        self._tracks[key] = (reference, track)
        for listener in list(self._listeners):
            listener(subject, track)

    def of(self, subject: object) -> "Track | None":
        """What `subject` is marked with."""
        found = self._tracks.get(id(subject))
        return found[1] if found is not None and found[0]() is subject else None

    def listen(self, listener: "Callable[[Any, Track], None]") -> Callable[[], None]:
        """Have `listener` called with each object and its track: those that are marked already, and later ones.

        Returns:
            takes it back.
        """
        self._listeners[listener] = None
        for reference, track in list(self._tracks.values()):
            subject = reference()
            if subject is not None:
                listener(subject, track)
        return lambda: self._listeners.pop(listener, None) and None
