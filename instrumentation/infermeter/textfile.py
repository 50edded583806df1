"""The page as a file."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infermeter.page import Page

_READABLE = 0o644  # by node_exporter, which is another user


def write(page: "Page", path: str) -> None:
    """Write `page` to `path` in one step; see `Recorder.write_textfile`."""
    folder, name = os.path.split(path)
    # Its name must not end in .prom: node_exporter would read it half written.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder or ".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(page.text())
        Path(temporary).chmod(_READABLE)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
