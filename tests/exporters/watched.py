"""A small exporter of nothing in particular: `python watched.py FOLDER FLAGS` serves what the files of FOLDER say.

slow     every page takes so many seconds
reason   it is not ready, because of this
wrong    its configuration cannot be read again, because of this
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from infermeter_exporters import server
from infermeter_exporters.errors import ConfigError
from infermeter_exporters.families import Family, Samples, by_name

FAMILIES = by_name(
    Family("things_total", "counter", "Things that were counted.", ("kind",)),
    Family("patience_seconds", "gauge", "Seconds that the last scrape would have waited."),
    Family("reloads_total", "counter", "How often the configuration was read again."),
)


class Watched:
    """The exporter."""

    name = "watched"
    title = "watched <exporter> & co"
    families = FAMILIES
    routes = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reloads = 0

    def says(self, name: str) -> str:
        """A file, if there is one."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def start(self) -> None:
        """Begin."""
        print("started", flush=True)

    def stop(self) -> None:
        """End."""
        print("stopped", flush=True)

    def reload(self) -> None:
        """Read the configuration again."""
        if self.says("wrong"):
            raise ConfigError(self.says("wrong"))
        self.reloads += 1

    async def samples(self, timeout: float) -> Samples:  # noqa: ASYNC109  (as the protocol has it)
        """What there is, after a while."""
        slow = self.says("slow")
        if slow:
            await asyncio.sleep(float(slow))
        return {
            "things_total": {('a"b\\c\nd',): 1.5, ("e",): 2},
            "patience_seconds": {(): timeout},
            "reloads_total": {(): self.reloads},
        }

    def ready(self) -> str:
        """Why not."""
        return self.says("reason")

    def landing(self) -> list[tuple[str, str]]:
        """What there is to say."""
        return [("Said", "1 < 2 & <b>more</b>")]


def main() -> int:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser()
    server.add_web_flags(parser, 9999)
    options = parser.parse_args(sys.argv[2:])
    try:
        return server.serve(Watched(Path(sys.argv[1])), server.web_settings(options))
    except ConfigError as error:
        print(f"watched: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
