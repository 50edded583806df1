"""Starlette: what its applications answer, also those that run already, and those of libraries built on it."""

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from infermeter.asgi import watching
from infermeter.patch import Patches, UnknownLibraryError

if TYPE_CHECKING:
    from infermeter.recorder import Recorder

MODULES = ("starlette.applications",)


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch applications; see `infermeter.instruments.Integration`."""
    application = getattr(module, "Starlette", None)
    if application is None:
        raise UnknownLibraryError(f"{module.__name__} has no Starlette")
    patches = Patches()
    # Not the stack of middlewares, which an application that runs has built already.
    patches.replace(application, "__call__", watching(recorder, patches))
    return patches.undo
