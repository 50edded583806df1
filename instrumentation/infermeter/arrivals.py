"""Being told when a module is imported, now or later."""

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Arrived = Callable[[ModuleType], None]


class Arrivals(MetaPathFinder):
    """Tells of modules that have been imported. It finds none itself: the others on `sys.meta_path` are asked.

    A module is told of when its code has run, before the import statement ends; each time that it is loaded anew.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Arrived, None]] = {}
        self._asking = threading.local()

    def when(self, name: str, arrived: Arrived) -> Callable[[], None]:
        """Have `arrived`, which must not raise, called with the module `name`: at once if it is there, and later.

        Returns:
            takes it back.
        """
        self._waiting.setdefault(name, {})[arrived] = None
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        module = sys.modules.get(name)
        if module is not None:
            arrived(module)

        def forget() -> None:
            told = self._waiting.get(name, {})
            told.pop(arrived, None)
            if not told:
                self._waiting.pop(name, None)
            if not self._waiting and self in sys.meta_path:
                sys.meta_path.remove(self)

        return forget

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find, with a loader that tells when it has loaded."""
        if fullname not in self._waiting or getattr(self._asking, "name", None) == fullname:
            return None
        self._asking.name = fullname  # a finder of somebody else may ask all finders again
        try:
            for finder in list(sys.meta_path):
                find = getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = None
                if finder is not self and find is not None:
                    spec = find(fullname, path, target)
                if spec is not None:
                    self._listen(fullname, spec)
                    return spec
            return None
        finally:
            self._asking.name = None

    def _listen(self, name: str, spec: ModuleSpec) -> None:
        """Have the loader of `spec` tell, without being another object or of another class."""
        loader: Any = spec.loader
        load = getattr(loader, "exec_module", None)
        if load is None:
            return

        def exec_module(module: ModuleType) -> None:
            if vars(loader).get("exec_module") is exec_module:
                del loader.exec_module
            load(module)
            for arrived in list(self._waiting.get(name, {})):
                arrived(module)

        try:
            loader.exec_module = exec_module
        except AttributeError:  # a loader without a place for it: the module is imported unseen
            pass
