"""Gunicorn with threads and Uvicorn with coroutines: whichever worker is scraped shows what all of them served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.servers.conftest import Figures, Server, Watch, Work

    Expected = Callable[[Iterable[int]], Figures]


@pytest.fixture(scope="module", params=["gunicorn", "preloaded", "uvicorn"])
def server(
    request: pytest.FixtureRequest,
    run_server: Callable[[str, Path, str], AbstractContextManager[Server]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server whose workers share a folder; it ends cleanly."""
    with run_server(request.param, tmp_path_factory.mktemp("server"), "INFERMETER_MULTIPROC_DIR") as running:
        yield running


def check_between(low: Figures, shown: Figures, high: Figures) -> None:
    assert {name: shown[name] for name in shown if not low[name] <= shown[name] <= high[name]} == {}


def test_every_worker_shows_what_all_served(server: Server, watched: type[Watch], expected: Expected) -> None:
    """Soon, whoever is scraped; and nobody ever shows less than somebody before."""
    with watched(server) as watch:
        work = server.work("busy", 600)
        server.eventually("busy", expected(work.found))
        watch.more()
    assert watch.falls == []
    assert work.broken == []
    assert len(work.by_worker()) > 1
    for _ in range(3):
        assert server.figures("busy") == [expected(work.found)] * server.workers


def test_a_worker_that_is_killed_loses_nothing(server: Server, watched: type[Watch], expected: Expected) -> None:
    """What it answered last is there as soon as it is dead, and stays there when others have taken over from it."""
    found: list[int] = []
    with watched(server) as watch:
        for _ in range(3):
            before = len(found)
            work = server.work("killed idle", 100)
            found += work.found
            (victim, most), *_ = work.by_worker().most_common()
            server.kill(victim)
            survivor, page = server.each().popitem()
            assert page.figures("killed idle")["inferences"] >= before + most + work.by_worker()[survivor]
            assert server.figures("killed idle") == [expected(found)] * server.workers
            server.until_absorbed()
            assert server.figures("killed idle") == [expected(found)] * server.workers
            watch.more()
    assert watch.falls == []


def test_a_worker_that_is_killed_at_work(server: Server, watched: type[Watch], expected: Expected) -> None:
    """Everything that was answered is counted; of the requests that it took with it, each once or not at all."""

    def kill_busiest(work: Work) -> None:
        (victim, _), *_ = work.by_worker().most_common()
        server.kill(victim)

    with watched(server) as watch:
        work = server.work("killed at work", 600, kill_busiest)
        shown, *same = server.figures("killed at work")
        watch.more()
    assert watch.falls == []
    assert same == [shown] * (server.workers - 1)
    check_between(expected(work.found), shown, expected(work.found + work.broken))
    assert server.figures("killed at work") == [shown] * server.workers


def test_a_reload_keeps_the_totals(server: Server, watched: type[Watch], expected: Expected) -> None:
    """The new workers go on where the old ones end, though these are replaced at work."""
    with watched(server) as watch:
        work = server.work("reloaded", 600, lambda _: server.reload())
        shown, *same = server.figures("reloaded")
        watch.more()
        again = server.work("reloaded", 100)
        check_between(expected(work.found), shown, expected(work.found + work.broken))
        more = expected(again.found)
        assert server.figures("reloaded") == [{name: shown[name] + more[name] for name in shown}] * server.workers
        watch.more()
    assert watch.falls == []
    assert same == [shown] * (server.workers - 1)


def test_another_server_on_the_same_folder_goes_on(server: Server, expected: Expected) -> None:
    """Its first page shows all that was counted before it was started."""
    before = server.work("restarted", 200)
    assert server.terminate() == 0
    server.start()
    first = server.each().values()
    assert [page.figures("restarted") for page in first] == [expected(before.found)] * server.workers
    after = server.work("restarted", 200)
    assert server.figures("restarted") == [expected(before.found + after.found)] * server.workers
    assert (before.broken, after.broken) == ([], [])
