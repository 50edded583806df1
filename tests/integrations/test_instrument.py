"""Which libraries `instrument` watches, and when."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from infermeter import ConfigError
from infermeter.arrivals import Arrivals

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from infermeter import Recorder


@pytest.mark.parametrize(
    ("names", "exclude", "said"),
    [
        (("onxruntime",), (), r"instrument\('onxruntime'\) names no integration, did you mean 'onnxruntime'\?"),
        (("zzz",), (), r"names no integration, expected one of .*flask.*"),
        ((), ("torchh",), r"instrument\('torchh'\) names no integration, did you mean 'torch'\?"),
    ],
)
def test_a_name_of_no_integration(
    recorder: Recorder, names: tuple[str, ...], exclude: tuple[str, ...], said: str
) -> None:
    """One sentence, with what was meant; nothing is watched then."""
    with pytest.raises(ConfigError, match=said):
        recorder.instrument(*names, exclude=exclude)


def test_uninstrument_knows_its_names(recorder: Recorder) -> None:
    """What is not watched may be given back, what does not exist may not."""
    recorder.uninstrument("onnxruntime")
    with pytest.raises(ConfigError, match=r"uninstrument\('zzz'\) names no integration"):
        recorder.uninstrument("zzz")


@pytest.mark.parametrize("library", ["ultralytics", "transformers"])
def test_a_library_that_is_not_installed(recorder: Recorder, library: str) -> None:
    """Asked for by name it is a mistake; unasked it is left out."""
    if importlib.util.find_spec(library) is not None:
        pytest.skip(f"{library} is installed")
    with pytest.raises(ConfigError, match=f"instrument\\('{library}'\\) needs {library}, which is not installed"):
        recorder.instrument(library)
    recorder.instrument()


def test_an_object_of_no_library(recorder: Recorder) -> None:
    """Nothing could watch it."""
    with pytest.raises(ConfigError, match=r"got a \w+, which is of no library that is known"):
        recorder.watch(importlib.import_module("pathlib").Path())


@pytest.mark.parametrize(
    "first", ["import onnxruntime\nrecorder.instrument()", "recorder.instrument()\nimport onnxruntime"]
)
def test_imported_before_or_after(first: str) -> None:
    """The order of importing and watching does not matter."""
    pytest.importorskip("onnxruntime")
    program = (
        "from prometheus_client import CollectorRegistry\nimport infermeter\n"
        "recorder = infermeter.Recorder(service='test', registry=CollectorRegistry())\n"
        + first
        + textwrap.dedent("""
        from tests.integrations.onnx_models import adder, session
        import numpy as np
        one = session(adder())
        zeros = np.zeros((1, 3, 8, 8), np.float32)
        one.run(None, {"a": zeros, "b": zeros})
        recorder.fold()
        (series,) = [one for one in recorder.series.values() if one.infers]
        print(series.totals.value("inferences_total"))
        """)
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("1.0\n", 0), done.stderr


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that can be imported and loaded anew."""
    (tmp_path / "arriving_library.py").write_text("import itertools\nloaded = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield_name = "arriving_library"
    monkeypatch.delitem(sys.modules, yield_name, raising=False)
    return yield_name


def test_arrivals_are_told_each_time(library: str) -> None:
    """When the code of a module has run, and again when it is loaded anew; not once nobody waits any more."""
    arrivals = Arrivals()
    told: list[bool] = []

    def arrived(module: ModuleType) -> None:
        told.append(module.loaded)

    forget = arrivals.when(library, arrived)
    module = importlib.import_module(library)
    assert told == [True]
    importlib.reload(module)
    assert told == [True, True]
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"  # type: ignore[union-attr]
    assert "exec_module" not in vars(module.__spec__.loader)  # type: ignore[union-attr]
    forget()
    importlib.reload(module)
    assert told == [True, True]
    assert arrivals not in sys.meta_path
    del sys.modules[library]


def test_a_module_that_is_there_is_told_of_at_once(library: str) -> None:
    """Whoever comes late is told now."""
    importlib.import_module(library)
    told: list[str] = []
    forget = Arrivals().when(library, lambda module: told.append(module.__name__))
    forget()
    assert told == [library]
    del sys.modules[library]
