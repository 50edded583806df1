"""Flask: what its applications answer, also those that run already."""

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from infermeter.patch import Patches, UnknownLibraryError
from infermeter.wsgi import watching

if TYPE_CHECKING:
    from infermeter.recorder import Recorder

MODULES = ("flask.app",)


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch applications; see `infermeter.instruments.Integration`."""
    application = getattr(module, "Flask", None)
    if application is None:
        raise UnknownLibraryError(f"{module.__name__} has no Flask")
    patches = Patches()
    # Not `wsgi_app`, which an application that has middlewares does not look up in its class.
    patches.replace(application, "__call__", watching(recorder, patches))
    return patches.undo
