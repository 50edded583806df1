"""The rules as Prometheus reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


FILES = sorted((ROOT / "rules").glob("*.rules.yml"))


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def file(request: pytest.FixtureRequest) -> Path:
    """Each file of rules."""
    path: Path = request.param
    return path


@pytest.fixture(scope="session")
def rules() -> list[dict[str, Any]]:
    """Every recording rule and every alert at every severity, of all files."""
    read = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES]
    return [rule for content in read for group in content["groups"] for rule in group["rules"]]


@pytest.fixture(scope="session")
def alerts(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every alert at every severity."""
    return [rule for rule in rules if "alert" in rule]


@pytest.fixture(scope="session")
def promises() -> list[dict[str, Any]]:
    """The unit tests of the rules, of all files."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.test.yml"))]
    return [test for text in texts for test in yaml.safe_load(text)["tests"]]


@pytest.fixture(scope="session")
def thresholds() -> list[dict[str, Any]]:
    """The rows of the table of thresholds."""
    return list(yaml.safe_load((ROOT / "rules" / "thresholds.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def queries() -> list[tuple[str, str]]:
    """The name of a runbook and a query to paste, for each."""
    found = []
    for page in sorted((ROOT / "docs" / "runbooks").glob("*.md")):
        blocks = page.read_text(encoding="utf-8").split("```promql\n")[1:]
        found += [(page.stem, line) for block in blocks for line in block.split("```")[0].splitlines()]
    return found
