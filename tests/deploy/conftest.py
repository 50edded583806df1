"""A demo that runs while its dashboards are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture(scope="module")
def demo(
    running_demo: Callable[[Path], AbstractContextManager[dict[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """The Prometheus of a running demo."""
    with (
        running_demo(tmp_path_factory.mktemp("demo")) as urls,
        httpx.Client(base_url=urls["Prometheus"], trust_env=False, timeout=10) as client,
    ):
        yield client


@pytest.fixture
def answer(demo: httpx.Client) -> Callable[..., Any]:
    """What the Prometheus of the demo answers: the data of a path of its API."""

    def ask(path: str, **parameters: str) -> Any:
        body = demo.get(f"/api/v1/{path}", params=parameters).json()
        assert body["status"] == "success", f"{path} {parameters}: {body['error']}"
        return body["data"]

    return ask
