"""FastAPI: what its applications answer; each is one of Starlette, and what both see counts once."""

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from infermeter.asgi import watching
from infermeter.patch import Patches, UnknownLibraryError

if TYPE_CHECKING:
    from infermeter.recorder import Recorder

MODULES = ("fastapi.applications",)


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch applications; see `infermeter.instruments.Integration`."""
    application = getattr(module, "FastAPI", None)
    if application is None:
        raise UnknownLibraryError(f"{module.__name__} has no FastAPI")
    patches = Patches()
    patches.replace(application, "__call__", watching(recorder, patches))
    return patches.undo
