"""Replacing an attribute of somebody else's class or module, until it is undone."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from infermeter.config import strict
from infermeter.wrap import Around, around, around_generator

if TYPE_CHECKING:
    from infermeter.ledger import Ledger

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("infermeter")

_MISSING = object()


class UnknownLibraryError(Exception):
    """A library lacks what an integration replaces: it is too old, too new, or something else of that name."""


# By id, the replacements that are in use or hidden by another one: itself, whose it is, and what it replaced.
_all: "dict[int, tuple[Any, Patches, Any]]" = {}


class Patches:
    """What one integration has replaced.

    Who holds a replacement keeps it after `undo`: it passes calls through then.

    Attributes:
        state: empty after `undo`; a list, because replacements ask it each time.
    """

    def __init__(self) -> None:
        self.state: list[None] = [None]
        self._replaced: list[tuple[Any, str, Any, Any]] = []  # owner, name, what its own attribute was, what it is

    @property
    def live(self) -> bool:
        """Whether nothing was undone yet."""
        return bool(self.state)

    def around(self, owner: Any, name: str, hooks: Around) -> None:
        """Have `hooks` run around each call of a function or method.

        Raises:
            UnknownLibraryError: `owner` has no such attribute.
        """
        self.replace(owner, name, lambda original: around(original, self.state, hooks))

    def around_generator(self, owner: Any, name: str, drive: Callable[..., Any]) -> None:
        """Have `drive` drive each generator that a generator function makes.

        Raises:
            UnknownLibraryError: `owner` has no such attribute.
        """
        self.replace(owner, name, lambda original: around_generator(original, self.state, drive))

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace an attribute by what `make` makes of it.

        Raises:
            UnknownLibraryError: `owner` has no such attribute.
        """
        own = vars(owner).get(name, _MISSING)
        original = own
        if own is _MISSING:  # inherited
            for base in getattr(owner, "__mro__", ())[1:]:
                original = vars(base).get(name, original)
                if original is not _MISSING:
                    break
        if original is _MISSING:
            raise UnknownLibraryError(f"{getattr(owner, '__qualname__', owner.__name__)} has no {name}")
        replacement = make(original)
        setattr(owner, name, replacement)
        self._replaced.append((owner, name, own, replacement))
        _all[id(replacement)] = replacement, self, own

    def undo(self) -> None:
        """Give back what was replaced; where others replaced it since, theirs stays, and calls pass through ours."""
        self.state.clear()
        while self._replaced:
            owner, name, own, replacement = self._replaced.pop()
            if vars(owner).get(name) is replacement:
                del _all[id(replacement)]
                while id(own) in _all and not _all[id(own)][1].live:  # whose end came before ours, which hid it
                    own = _all.pop(id(own))[2]
                if own is _MISSING:
                    delattr(owner, name)
                else:
                    setattr(owner, name, own)


def harmless(recorder: "Ledger", hook: Callable[P, T], otherwise: Callable[..., T]) -> Callable[P, T]:
    """`hook`, whose failure is counted and never raised; what it should have given is asked of `otherwise`."""

    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return hook(*args, **kwargs)
        except Exception as error:  # ours, on the way of foreign code
            failed(recorder, error)
            return otherwise(*args, **kwargs)

    return called


def failed(recorder: "Ledger", error: Exception) -> None:
    """Count that the library itself failed, whatever state it is in."""
    try:
        recorder.drop("internal", error)
    except Exception:
        if strict():
            raise
        log.exception("the recorder fails; the inferences that it should have recorded go on")
