"""The metrics of prometheus_client's own multi-process mode, in the same workers and on the same page as ours."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.servers.conftest import Figures, Page, Server, Watch, Work

    Expected = Callable[[Iterable[int]], Figures]

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def server(
    request: pytest.FixtureRequest,
    run_server: Callable[[str, Path, str], AbstractContextManager[Server]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server that knows of nothing but PROMETHEUS_MULTIPROC_DIR."""
    with run_server(request.param, tmp_path_factory.mktemp("server"), "PROMETHEUS_MULTIPROC_DIR") as running:
        yield running


def theirs(page: Page, model: str) -> dict[str, float]:
    """What the service counts with prometheus_client."""
    return {
        "requests": page.value("served_requests_total", model=model),
        "all": page.value("served_requests_total"),
        "answers": page.value("served_objects_count"),
        "objects": page.value("served_objects_sum"),
        "answers to 1": page.value("served_objects_bucket", le="1.0"),
    }


def served(work: Work) -> dict[str, float]:
    """What that must be after the only work there was."""
    sizes = [abs(found) for found in work.found]
    return {
        "requests": len(sizes),
        "all": len(sizes),
        "answers": len(sizes),
        "objects": sum(sizes),
        "answers to 1": sum(size <= 1 for size in sizes),
    }


@pytest.fixture(scope="module")
def work(server: Server, watched: type[Watch]) -> Work:
    """All that is served, in the middle of which a worker is killed that was idle."""
    with watched(server) as watch:
        first = server.work("busy", 300)
        (victim, _), *_ = first.by_worker().most_common()
        server.kill(victim)
        server.until_absorbed()
        second = server.work("busy", 300)
        watch.more()
    assert watch.falls == []
    assert (first.broken, second.broken) == ([], [])
    return type(first)(first.done + second.done, [])


@pytest.mark.parametrize("accept", ["text/plain", OPEN_METRICS], ids=["text", "OpenMetrics"])
def test_both_are_right_on_the_page_of_every_worker(
    server: Server, work: Work, expected: Expected, read_page: type[Page], accept: str
) -> None:
    """Each family once, with what all workers counted, the dead one included."""

    def get(server: Server) -> tuple[int, Page]:
        worker, text = server.get("/metrics", accept)
        assert text.endswith("# EOF\n") == (accept == OPEN_METRICS)
        return worker, read_page(text, open_metrics=accept == OPEN_METRICS)

    server.each()  # so that nothing of ours waits to be shown
    pages = list(server.each(get).values())
    assert [page.figures("busy") for page in pages] == [expected(work.found)] * server.workers
    assert [theirs(page, "busy") for page in pages] == [served(work)] * server.workers
    assert [page.value("infermeter_processes") for page in pages] == [server.workers] * server.workers
    for page in pages:
        assert [name for name, times in Counter(page.families).items() if times > 1] == []


def test_each_has_its_own_files(server: Server, work: Work) -> None:
    """Theirs are where the variable says, and ours in the folder `infermeter` in it."""
    kinds = {path.suffix or path.name for path in server.folder.iterdir()}
    assert kinds == {".db", "infermeter"}
    ours = {path.suffix or path.name for path in (server.folder / "infermeter").iterdir()}
    assert {".segment", "lock", "accumulator"} <= ours <= {".segment", ".extent", ".new", "lock", "accumulator"}
