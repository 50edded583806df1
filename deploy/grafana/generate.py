"""The dashboards as files: each is written from the module of its name."""

from __future__ import annotations

from pathlib import Path

from deploy.grafana.ai_performance import ai_performance

FOLDER = Path(__file__).resolve().parent


def files() -> dict[Path, str]:
    """The path of each generated file, absolute, and its text."""
    return {FOLDER / "ai-performance.json": ai_performance()}
