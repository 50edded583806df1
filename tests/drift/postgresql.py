"""A real PostgreSQL, whose files and socket are in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg

PATIENCE = 60.0


def programs() -> Path | None:
    """The folder of its programs, which Debian keeps off PATH; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    known = [*found, *map(Path, filter(None, [shutil.which("initdb")]))]
    return known[-1].parent if known else None


class PostgreSQL:
    """A server without a port, which can be ended and started again; what it keeps need not outlive the machine."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        # Not below the folder of a test: nobody else may enter that, and the path of a socket has to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="infermeter-pg-"))
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._schemas = count()
        # It refuses to be run by root.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", f"--pgdata={self._data}", "--username=test", "--auth=trust", "--encoding=UTF8",
                  "--locale=C", "--no-sync").wait(PATIENCE)  # fmt: skip
        self.start()

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._bin / program, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=None if self._user is None else self._user.pw_uid,
                group=None if self._user is None else self._user.pw_gid,
                extra_groups=None if self._user is None else [],
            )

    def start(self) -> None:
        """Start it; returns when it answers."""
        self._process = self._run(
            "postgres", "-D", str(self._data), "-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off",
            "-c", "full_page_writes=off", "-c", "timezone=America/New_York",
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                said = (self.folder / "log").read_text()
                assert self._process.poll() is None and time.monotonic() < deadline, said  # noqa: PT018
                time.sleep(0.02)
            else:
                return

    def end(self) -> None:
        """End it as if it had crashed: whoever is connected is cut off."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(PATIENCE)
            finally:
                self._process.kill()
                self._process = None

    def url(self, schema: str = "public") -> str:
        """How to connect to it, to see the tables of a schema."""
        return f"postgresql://test@/postgres?host={quote(str(self.folder))}&options=-csearch_path%3D{schema}"

    def fresh(self) -> str:
        """How to connect to it, to see no tables yet."""
        schema = f"s{next(self._schemas)}"
        self.execute(f"CREATE SCHEMA {schema}")
        return self.url(schema)

    def execute(self, *statements: str, url: str = "") -> None:
        """Some statements, each in a transaction of its own."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def remove(self) -> None:
        """End it, and leave nothing of it."""
        self.end()
        shutil.rmtree(self.folder)
