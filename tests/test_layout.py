"""The layout: which room imports which, what files are called and how long they may be."""

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest

import infermeter

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "instrumentation" / "infermeter"

# From the general to the specific: a module imports only from modules above it.
ORDER = (
    "version",
    "errors",
    "observation",
    "buckets",
    "catalogue",
    "cost",
    "failures",
    "extent",
    "ring",
    "segment",
    "source",
    "accumulator",
    "segments",
    "reaper",
    "guard",
    "native",
    "sharing",
    "negotiation",
    "protobuf",
    "class_names",
    "arrays",
    "results",
    "device",
    "model_names",
    "onnx_outputs",
    "pace",
    "rows",
    "about",
    "exemplars",
    "histogram",
    "config",
    "refusals",
    "call",
    "meter",
    "queue",
    "info",
    "cache",
    "series",
    "fold",
    "traffic",
    "endpoints",
    "payload",
    "tally",
    "durable",
    "dead",
    "view",
    "multiprocess",
    "streams",
    "wrap",
    "patch",
    "asgi",
    "wsgi",
    "load",
    "track",
    "marks",
    "watched",
    "steps",
    "hub",
    "generation",
    "short_way",
    "fork",
    "exposition",
    "text",
    "messages",
    "timer",
    "turn",
    "ledger",
    "registration",
    "page",
    "textfile",
    "server",
    "arrivals",
    "instruments",
    "recorder",
    "__init__",
)


# What watches one library each: imported when that library is watched, so nothing else imports one of them.
INTEGRATIONS = LIBRARY / "integrations"


def tracked_files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: " + listed.stderr.decode().strip())
    return listed.stdout.decode().split()


def imported_modules(path: Path) -> set[str]:
    """Modules of the library that the file imports when it runs, also inside functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module == "infermeter":
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("infermeter."):
            found.add(node.module.removeprefix("infermeter."))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def test_every_module_has_its_place_in_the_order() -> None:
    """A new module is put in its place on purpose."""
    assert sorted(ORDER) == sorted(path.stem for path in LIBRARY.glob("*.py"))


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    """A module imports only more general ones."""
    allowed = set(ORDER[: ORDER.index(module)])
    assert imported_modules(LIBRARY / f"{module}.py") - allowed == set()


def test_an_integration_is_imported_by_none() -> None:
    """It imports what is below the recorder, and what it shares with another integration is no integration."""
    allowed = set(ORDER[: ORDER.index("instruments")])
    found = {path.stem: imported_modules(path) - allowed for path in INTEGRATIONS.glob("*.py")}
    assert {name for name, extra in found.items() if extra} == set()
    entries = {entry.value.rpartition(".")[2] for entry in entry_points(group="infermeter.integrations")}
    assert entries == set(found) - {"__init__"}


def test_an_integration_imports_its_library_late() -> None:
    """Where an integration is loaded, its library need not be: it is imported by who uses it."""
    allowed = {"infermeter", "numpy", *sys.stdlib_module_names}
    found = {path.stem: imported_at_once(path) - allowed for path in INTEGRATIONS.glob("*.py")}
    assert {name for name, extra in found.items() if extra} == set()


def test_no_module_takes_the_name_of_a_verb() -> None:
    """A module that is imported late would take the place of a verb of its name, in the package."""
    for name in ORDER:
        import_module(f"infermeter.{name}")
    assert [name for name in infermeter.__all__ if isinstance(getattr(infermeter, name), ModuleType)] == []


def imported_at_once(path: Path) -> set[str]:
    """Packages that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path.name}"
            found.add((node.module or "").split(".")[0])
    return found


def test_library_needs_two_packages() -> None:
    """What a service imports needs prometheus_client and NumPy, and nothing else."""
    allowed = {"infermeter", "prometheus_client", "numpy"}
    found = set()
    for path in LIBRARY.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"relative import in {path.name}"
                found.add((node.module or "").split(".")[0])
    assert {name for name in found if name not in sys.stdlib_module_names} == allowed


def test_roots_are_no_packages() -> None:
    """`instrumentation` and `exporters` hold packages and are none."""
    assert [name for name in tracked_files() if name in {"instrumentation/__init__.py", "exporters/__init__.py"}] == []


def test_files_are_short() -> None:
    """A file over 400 lines is split by subject."""
    sources = [name for name in tracked_files() if name.endswith(".py") and (ROOT / name).exists()]
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in sources}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_files_are_named_for_their_subject() -> None:
    """No file is named after syntax."""
    vague = {"util", "utils", "helper", "helpers", "common", "misc", "types", "constants"}
    assert [name for name in tracked_files() if Path(name).stem in vague] == []
