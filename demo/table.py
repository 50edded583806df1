"""The table: redrawn in place on a terminal, printed now and then into anything else."""

from __future__ import annotations

import contextlib
import math
import time
import urllib.request
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.window import SECONDS, Row, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from demo.services import Service

SCRAPE_SECONDS = 1.0
PRINT_SECONDS = 5.0
HEADINGS = ("service", "model", "rate/s", "p50 ms", "p95 ms", "p99 ms", "objects /frame", "confidence", "$/1K")
"""Of inferences: a second, quantiles of their duration, objects in each, and the price of a thousand."""
WORDS = 2
"""The first columns are words, aligned left; the others are numbers, aligned right."""


def show(services: Sequence[Service], stopped: Callable[[], bool], check: Callable[[], None]) -> None:
    """Show the table until `stopped`, calling `check`, which may raise, ten times a second.

    On a terminal it is redrawn every second; elsewhere it is printed every 5 seconds, and once more at the end.
    """
    windows = {service: Window() for service in services}
    console = Console()
    if console.is_terminal:
        with Live(drawn(windows), console=console, auto_refresh=False) as live:
            for _ in _scrapes(windows, stopped, check):
                live.update(drawn(windows), refresh=True)
        return
    printed = time.monotonic()
    for _ in _scrapes(windows, stopped, check):
        if time.monotonic() - printed >= PRINT_SECONDS:
            printed = time.monotonic()
            print(plain(windows), flush=True)
    print(plain(windows), flush=True)


def drawn(windows: Mapping[Service, Window]) -> Table:
    """Return the table for a terminal."""
    table = Table(title=_title(windows), box=SIMPLE_HEAD, padding=0, pad_edge=False)  # fits into 80 columns
    for column, heading in enumerate(HEADINGS):
        table.add_column(heading.replace(" ", "\n"), justify="left" if column < WORDS else "right", no_wrap=True)
    for line in _lines(windows):
        table.add_row(*line)
    return table


def plain(windows: Mapping[Service, Window]) -> str:
    """Return the table as lines of text, without colours or frames, and an empty line after them."""
    lines = [HEADINGS, *_lines(windows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join(
            cell.ljust(width) if column < WORDS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([_title(windows), *aligned, ""])


def _scrapes(
    windows: Mapping[Service, Window], stopped: Callable[[], bool], check: Callable[[], None]
) -> Iterator[None]:
    """Scrape every service once a second into its window, and yield each time, until `stopped`."""
    due = time.monotonic()
    while not stopped():
        check()
        if time.monotonic() >= due:
            due = time.monotonic() + SCRAPE_SECONDS
            for service, window in windows.items():
                # A scrape that fails is a gap, as in Prometheus; a service that is gone is noticed by `check`.
                with contextlib.suppress(OSError), urllib.request.urlopen(service.url, timeout=2) as answer:  # noqa: S310
                    window.add(time.monotonic(), answer.read().decode())
            yield
        time.sleep(0.1)


def _title(windows: Mapping[Service, Window]) -> str:
    """Return what stands above the table."""
    length = max((window.length for window in windows.values()), default=0.0)
    return f"the last {min(length, SECONDS):.0f} s, from the services' own /metrics"


def _lines(windows: Mapping[Service, Window]) -> list[tuple[str, ...]]:
    """Return the cells below the headings: a line per model, or one of dashes for a service without numbers yet."""
    return [
        _cells(row)
        for service, window in windows.items()
        for row in window.rows() or [Row(service.name, "-", *[math.nan] * 7)]
    ]


def _cells(row: Row) -> tuple[str, ...]:
    """Return one line of the table."""
    numbers = (
        (row.rate, 1), (row.p50 * 1e3, 1), (row.p95 * 1e3, 1), (row.p99 * 1e3, 1),
        (row.objects, 2), (row.confidence, 3), (row.cost, 4),
    )  # fmt: skip
    return (row.service, row.model, *("-" if math.isnan(value) else f"{value:.{digits}f}" for value, digits in numbers))
