"""Run by each Python that `infermeter run` starts, and by those that they start: its folder is first on PYTHONPATH.

It waits for the first import of a library that is to be watched; a Python that imports none never imports infermeter.
The `sitecustomize` that this one hides is run as if it were not hidden. Nothing here stops the service.
"""

import os
import sys


def _watch(folder: str) -> None:
    """Have watched what the file `watch` of `folder` tells: in each line the name of an integration and its library."""
    with open(os.path.join(folder, "watch"), encoding="utf-8") as file:  # noqa: PTH118, PTH123  (pathlib is slow to import)
        plan = [line.split() for line in file]
    names, libraries = {name for name, _ in plan}, {library for _, library in plan}

    from threading import RLock  # noqa: PLC0415

    turn = RLock()
    finders: list[object] = sys.meta_path  # type: ignore[assignment]  # a class will do

    class Finder:
        """Finds what the others find, and nothing is found before it is known who wants to be told of it."""

        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> object:
            if name not in libraries:
                return None
            with turn:  # others wait, so that they do not get past us with a library that nobody watches yet
                if Finder in finders:
                    finders.remove(Finder)
                    _instrument(names, name)
            # Who asked us goes through the list as it was; one that is new in it may be in a place already passed.
            for finder in list(finders):
                find = getattr(finder, "find_spec", None)
                spec = find(name, path, target) if find is not None else None
                if spec is not None:
                    return spec
            return None

    finders.insert(0, Finder)


def _instrument(names: "set[str]", library: str) -> None:
    try:
        import infermeter  # noqa: PLC0415
        from infermeter.instruments import known  # noqa: PLC0415

        infermeter.instrument(exclude=known().keys() - names)
    except ModuleNotFoundError as error:
        # Of another environment than the command: a virtual environment, or pipx.
        _say(f"{library} is not watched in {sys.executable}: {error.name} is not installed there")
    except Exception as error:
        _say(f"{library} is not watched: {type(error).__name__}: {error}")


def _say(text: str) -> None:
    print(f"infermeter: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _run_the_hidden() -> None:
    """Run the `sitecustomize` that Python would have found without us; it takes our place among the modules."""
    from importlib.machinery import PathFinder  # noqa: PLC0415
    from importlib.util import module_from_spec  # noqa: PLC0415

    here = os.path.realpath(os.path.dirname(__file__))  # noqa: PTH120
    others = [path for path in sys.path if os.path.realpath(path) != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = sys.modules["sitecustomize"] = module_from_spec(spec)
        spec.loader.exec_module(module)


if "INFERMETER_RUN" in os.environ:
    try:
        _watch(os.environ["INFERMETER_RUN"])
    except Exception as problem:
        _say(f"nothing is watched: {type(problem).__name__}: {problem}")
_run_the_hidden()
