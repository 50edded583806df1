"""The layout of the exporters: which module imports which, and what none of them imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "exporters" / "infermeter_exporters"
# From the general to the specific: a module imports only from modules above it, and a package is a word before its own.
ORDER = (
    "__init__",
    "errors",
    "families",
    "accept",
    "page",
    "logs",
    "listening",
    "connection",
    "yaml_file",
    "web_config",
    "server",
    "run",
    "gpu.__init__",
    "gpu.xids",
    "gpu.catalogue",
    "gpu.readings",
    "gpu.partition",
    "gpu.accounts",
    "gpu.cgroups",
    "gpu.attribution_rules",
    "gpu.processes",
    "gpu.containers",
    "gpu.grpc_unary",
    "gpu.kubernetes",
    "gpu.services",
    "gpu.attribution",
    "gpu.config",
    "gpu.board",
    "gpu.nvml_calls",
    "gpu.nvml_mig",
    "gpu.nvml_gpm",
    "gpu.nvml_fast",
    "gpu.nvml_normal",
    "gpu.nvml_slow",
    "gpu.nvml",
    "gpu.sysfs",
    "gpu.smi_values",
    "gpu.smi",
    "gpu.dcgm_names",
    "gpu.dcgm",
    "gpu.kmsg",
    "gpu.simulated_load",
    "gpu.simulated",
    "gpu.worker",
    "gpu.child",
    "gpu.watchdog",
    "gpu.exporter",
    "drift.__init__",
    "drift.counts",
    "drift.psi",
    "drift.kl",
    "drift.distances",
    "drift.ks",
    "drift.wasserstein",
    "drift.gamma",
    "drift.pooling",
    "drift.chi_square",
    "drift.false_discovery",
    "drift.wilson",
    "drift.estimated_accuracy",
    "drift.evidence",
    "drift.bins",
    "drift.decision",
    "drift.promql",
    "drift.promql_check",
    "drift.dispersion",
    "drift.layout",
    "drift.embeddings",
    "drift.evaluation",
    "drift.catalogue",
    "drift.store",
    "drift.baselines",
    "drift.triggers",
    "drift.verdicts",
    "drift.source",
    "drift.samples",
    "drift.tables",
    "drift.slots",
    "drift.labels",
    "drift.intake",
    "drift.prometheus",
    "drift.watch",
    "drift.config",
    "drift.push",
    "drift.files",
    "drift.sql",
    "drift.report",
    "drift.setup",
    "drift.exporter",
    "drift.baseline_command",
    "drift.command",
    "cli",
    "__main__",
)
PACKAGE = "infermeter_exporters"
# What would weigh as much as the exporter itself.
HEAVY = {"infermeter", "numpy", "prometheus_client", "pydantic", "psutil", "httpx"}


def path_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def imported(module: str) -> set[str]:
    """Modules of the exporters that a module imports, also within functions and for types."""
    found = set()
    for node in ast.walk(ast.parse(path_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            base = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                found.add(inner if path_of(inner).exists() else base)
    return found


def test_every_module_has_its_place_in_the_order() -> None:
    """A new module is put in its place on purpose."""
    files = (path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))
    assert sorted(ORDER) == sorted(".".join(path.parts) for path in files)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    """A module imports only more general ones."""
    assert imported(module) - set(ORDER[: ORDER.index(module)]) == set()


def test_the_kernel_knows_no_exporter() -> None:
    """What all exporters share imports none of them."""
    kernel = ORDER[: ORDER.index("run")]
    assert [module for module in kernel if any("." in name for name in imported(module))] == []


@pytest.mark.parametrize("module", ["gpu.exporter", "gpu.worker", "server"])
def test_an_exporter_is_light(module: str) -> None:
    """It imports neither the library nor what the library needs."""
    program = f"import sys, {PACKAGE}.{module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(said.split()) == set()
