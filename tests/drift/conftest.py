"""Stores of both kinds, and the real PostgreSQL that one of them needs."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from infermeter_exporters.drift.store import Store, opened
from tests.drift.postgresql import PostgreSQL, programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that runs; without one these tests are skipped, and in CI fail."""
    found = programs()
    if found is None:
        reason = "PostgreSQL is not installed: apt-get install --no-install-recommends postgresql"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    server = PostgreSQL(found)
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be that is empty, of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.fresh()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An empty store of each kind."""
    with closing(opened(store_url)) as found:
        yield found
