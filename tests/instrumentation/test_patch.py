"""Replacing what is somebody else's, and giving it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infermeter.patch import Patches

if TYPE_CHECKING:
    from collections.abc import Callable


def test_undoing_keeps_what_others_did_since() -> None:
    """Who replaced our replacement keeps his; it calls ours, which passes through."""

    class Owner:
        def work(self) -> int:
            return 1

    patches = Patches()
    seen: list[str] = []

    def ours_around(original: Callable[[Owner], int]) -> Callable[[Owner], int]:
        def work(self: Owner) -> int:
            seen.append("ours")
            return original(self)

        return work

    patches.replace(Owner, "work", ours_around)
    ours = Owner.work
    Owner.work = lambda self: ours(self) + 1  # type: ignore[method-assign]
    theirs = Owner.work
    patches.undo()
    assert Owner.work is theirs
    assert Owner().work() == 2
