"""`instrument`: finds the libraries that are installed, and watches those that are imported, now or later."""

import difflib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from infermeter.arrivals import Arrivals
from infermeter.config import environment_run_folder
from infermeter.errors import ConfigError
from infermeter.patch import UnknownLibraryError

if TYPE_CHECKING:
    from infermeter.recorder import Recorder
    from infermeter.track import Track

log = logging.getLogger("infermeter")

GROUP = "infermeter.integrations"

Undo = Callable[[], None]


class Integration(Protocol):
    """Watches one library; a module, or an object, that an entry point of the group `infermeter.integrations` names.

    It never changes a result, an exception, a signature or an attribute of what users see; its own failures are
    counted and never raised.

    Attributes:
        MODULES: the modules in which it replaces something; the first part of each name is the library.
    """

    MODULES: tuple[str, ...]

    def install(self, recorder: "Recorder", module: ModuleType, /) -> Undo:
        """Watch what is in `module`, one of `MODULES`, which has just been imported.

        Returns:
            undoes it, so that every attribute is the object that it was.

        Raises:
            UnknownLibraryError: the library has not what is replaced; nothing is.
        """


def known() -> dict[str, EntryPoint]:
    """The integrations that are installed, by name."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def chosen(names: Iterable[str], exclude: Iterable[str], verb: str = "instrument") -> dict[str, EntryPoint]:
    """Those called `names`, by default all, without those called `exclude`.

    Raises:
        ConfigError: a name of none.
    """
    found, names, exclude = known(), list(names), set(exclude)
    for name in (*names, *exclude):
        if name not in found:
            close = difflib.get_close_matches(str(name), found, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(found)}"
            raise ConfigError(f"{verb}({name!r}) names no integration, {hint}")
    return {name: entry for name, entry in found.items() if (not names or name in names) and name not in exclude}


class Instruments:
    """What one recorder watches.

    Args:
        recorder: who records it.
    """

    def __init__(self, recorder: "Recorder") -> None:
        self._recorder = recorder
        self._arrivals = Arrivals()
        self._watching: dict[str, _Watching] = {}

    def instrument(self, names: tuple[str, ...], exclude: Iterable[str]) -> None:
        """See `Recorder.instrument`."""
        for name, entry in chosen(names, exclude).items():
            if name in self._watching:
                continue
            try:
                integration: Integration = entry.load()
                libraries = sorted({module.split(".")[0] for module in integration.MODULES})
            except Exception as error:  # of a third party
                if names:
                    raise ConfigError(f"instrument({name!r}) cannot load {entry.value}: {error}") from error
                log.warning("the integration %s cannot be loaded: %s: %s", name, type(error).__name__, error)
                continue
            if names and not any(map(_installed, libraries)):
                raise ConfigError(f"instrument({name!r}) needs {' or '.join(libraries)}, which is not installed")
            watching = self._watching[name] = _Watching(name, self._recorder, integration)
            for module in integration.MODULES:
                watching.forget.append(self._arrivals.when(module, watching.arrived))
            if names and watching.problem is not None:
                self.uninstrument((name,))
                raise ConfigError(f"instrument({name!r}) cannot: {watching.problem}")

    def watch(self, subject: object, track: "Track") -> None:
        """See `Recorder.watch`."""
        libraries = {cls.__module__.split(".")[0] for cls in type(subject).__mro__}
        name = next((name for name in known() if name.replace("-", "_") in libraries), None)
        if name is None:
            raise ConfigError(f"watch() got a {type(subject).__qualname__}, which is of no library that is known")
        self.instrument((name,), ())
        self._recorder.marks.put(subject, track)

    def uninstrument(self, names: tuple[str, ...]) -> None:
        """See `Recorder.uninstrument`."""
        chosen(names, (), "uninstrument")
        for name in names or tuple(self._watching):
            watching = self._watching.pop(name, None)
            if watching is not None:
                watching.end()


class _Watching:
    """One integration that is in use.

    Attributes:
        forget: take back that modules are told of.
        problem: why nothing, or not everything, is watched.
    """

    def __init__(self, name: str, recorder: "Recorder", integration: Integration) -> None:
        self._name = name
        self._recorder = recorder
        self._integration = integration
        self._undo: list[Undo] = []
        self.forget: list[Undo] = []
        self.problem: str | None = None

    def arrived(self, module: ModuleType) -> None:
        """A module of the library has been imported."""
        library = module.__name__.split(".")[0]
        release = _version(library)
        try:
            self._undo.append(self._integration.install(self._recorder, module))
        except UnknownLibraryError as error:
            self.problem = f"{library} {release} is not one that it knows: {error}"
            log.warning("%s %s is not watched: %s", library, release, error)
        except Exception as error:  # in the middle of an import of the user's
            self.problem = f"{type(error).__name__}: {error}"
            log.exception("%s %s is not watched", library, release)
        else:
            announce(self._name, release)

    def end(self) -> None:
        """Watch no longer."""
        for undo in (*self.forget, *reversed(self._undo)):
            undo()


def announce(name: str, release: str) -> None:
    """Say that a library is watched: in the log, and where `infermeter run` started us, once for all processes."""
    log.info("watching %s %s", name, release)
    folder = environment_run_folder()
    if folder is not None:
        try:
            with (folder / f"watching-{name}").open("x", encoding="utf-8"):
                print(f"infermeter: watching {name} {release}", file=sys.stderr, flush=True)  # noqa: T201
        except OSError:  # another process said it
            pass


def _version(library: str) -> str:
    """The release of a library that is being imported; asking modules with a `__getattr__` may have them warn."""
    said = vars(sys.modules.get(library, sys)).get("__version__")
    try:
        return str(said or version(library))
    except PackageNotFoundError:  # it is installed as a package of another name
        return "of unknown version"


def _installed(library: str) -> bool:
    try:
        return library in sys.modules or importlib.util.find_spec(library) is not None
    except ValueError:  # a module that was put there by hand, without a spec
        return False
