"""What exporters log: a line on standard error, as logfmt or JSON."""

import json
import logging
import re
import sys
import time

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("logfmt", "json")
_BARE = re.compile(r"[^\s\\\"=\x00-\x1f]+")


class _Lines(logging.Formatter):
    """Formats a record as one line."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._json = kind == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The line: time, level, where it comes from, what it says, and a traceback if there is one."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = {"ts": stamp, "level": record.levelname.lower(), "logger": record.name, "msg": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(fields)
        return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def _quoted(value: str) -> str:
    return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def set_up(level: str, kind: str) -> None:
    """Have everything logged to standard error from now on.

    Args:
        level: the least that is logged, one of `LEVELS`.
        kind: one of `FORMATS`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(kind))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn tells how it starts and ends; who runs an exporter wants to hear where it listens, once, from us.
    logging.getLogger("uvicorn").setLevel(max(root.level, logging.WARNING))
