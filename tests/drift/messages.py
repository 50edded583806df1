"""Messages that are sent to a drift exporter."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa

OWNER = {"service": "vision", "model": "yolo"}


def samples(number: int = 1, feature: str = "a", **more: Any) -> list[dict[str, Any]]:
    """As many of them."""
    return [{**OWNER, "features": {feature: float(place % 7)}, **more} for place in range(number)]


def written(content: Any) -> bytes:
    """As JSON."""
    return json.dumps(content).encode()


def arrow(columns: dict[str, Any], *, file: bool = False, compression: str | None = None) -> bytes:
    """A table as Arrow IPC."""
    table, sink = pa.table(columns), io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def table(number: int, feature: str = "a") -> dict[str, Any]:
    """Samples as columns."""
    return {"service": ["vision"] * number, "model": ["yolo"] * number, feature: np.arange(number) % 7 * 1.0}
