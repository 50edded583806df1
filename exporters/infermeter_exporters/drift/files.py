"""Tables in files: each Parquet or CSV file that comes is counted once, as a whole."""

import glob
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from infermeter_exporters.drift.config import FilesSource
from infermeter_exporters.drift.intake import Intake
from infermeter_exporters.drift.samples import AHEAD, Samples, SamplesError, Times
from infermeter_exporters.drift.store import Store, StoreError
from infermeter_exporters.drift.tables import from_table

log = logging.getLogger("infermeter.drift.files")

_EVERY = 5.0
_ROWS = 1 << 17
"""Rows that are in memory at a time."""
_CSV = (".csv", ".csv.gz", ".csv.zst")
_BLOCK = 1 << 23
"""Bytes of a CSV file that are."""


class Files:
    """Watches for files.

    Args:
        settings: which.
        intake: where their rows go.
        store: of what was counted.
        keep: seconds for which rows are counted after they were taken.
    """

    def __init__(self, settings: FilesSource, intake: Intake, store: Store, keep: float) -> None:
        self._settings = settings
        self._intake = intake
        self._store = store
        self._keep = keep
        self._complained: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def __call__(self, end: threading.Event) -> None:
        """Count files until `end` is set."""
        while not end.is_set():
            try:
                self.poll(end)
            except StoreError as error:
                log.warning("%s waits: %s", self._settings.name, error)
            end.wait(_EVERY)

    def refresh(self) -> None:
        """Count what has come by now; errors are as of `poll`."""
        self.poll(threading.Event())

    def poll(self, end: threading.Event) -> None:
        """Count the files that have come and are complete.

        Raises:
            StoreError: the store does not answer; files wait.
        """
        with self._lock:
            self._poll(end)

    def _poll(self, end: threading.Event) -> None:
        name = self._settings.name
        with self._store.transaction() as transaction:
            counted = {str(path): str(identity) for path, identity in transaction(_COUNTED, name)}
        for path in sorted(glob.glob(self._settings.path, recursive=True)):  # noqa: PTH207  (of any pattern)
            if end.is_set():
                return
            try:
                found = os.stat(path)  # noqa: PTH116
                if not stat.S_ISREG(found.st_mode):
                    continue  # to open a pipe would wait for who writes to it
                identity = f"{found.st_size} {found.st_mtime_ns}"
                before = counted.get(path, "")
                if before in {identity, _REFUSED + identity}:
                    continue
                if before and not before.startswith(_REFUSED):
                    self._complain(path, "changed", "changed after it was counted, and is not counted again")
                    continue
                # Of one that was refused, nothing was counted.
                if time.time() - found.st_mtime < self._settings.settle:
                    continue
                open(path, "rb").close()  # noqa: PTH123  (whether it can be)
            except FileNotFoundError:
                continue  # it is gone again
            except OSError as error:
                self._complain(path, "unreachable", f"cannot be read, and waits: {error.strerror}")
                continue
            self._count(path, before, identity, found.st_mtime)

    def _complain(self, path: str, outcome: str, text: str) -> None:
        """Say it once."""
        if (path, outcome) not in self._complained:
            self._complained.add((path, outcome))
            self._intake.counts[f"samples {outcome}"] += 1
            log.warning("%s %s", path, text)

    def _count(self, path: str, before: str, identity: str, written: float) -> None:
        now = time.time()
        by_row = self._settings.time == "column"
        times = Times(written, now - self._keep if by_row else -np.inf, now + AHEAD)
        try:
            with self._store.transaction() as transaction:
                known = transaction(f"{_COUNTED} AND path = ?", self._settings.name, path)
                if known and known[0][1] != before:
                    return  # another process was quicker
                number = 0
                for found in read(path, times, self._settings.service, self._settings.model, by_row=by_row):
                    self._intake.keep(transaction, found)
                    number += found.number
                transaction(_NOTE, self._settings.name, path, identity)
        except SamplesError as error:
            self._intake.forget()
            self._intake.counts[f"samples {error.reason}"] += 1
            log.warning("%s is not counted: %s", path, error)
            with self._store.transaction() as transaction:  # or it would be read again and again
                transaction(_NOTE, self._settings.name, path, _REFUSED + identity)
        except BaseException:
            self._intake.forget()
            raise
        else:
            self._intake.counts["samples accepted"] += number


_COUNTED = "SELECT path, identity FROM files WHERE source = ?"
_NOTE = "INSERT INTO files VALUES (?, ?, ?) ON CONFLICT (source, path) DO UPDATE SET identity = excluded.identity"
_REFUSED = "refused "
"""Before the identity of a file that could not be counted; if it changes, it is read again."""


def read(path: str, times: Times, service: str, model: str, *, by_row: bool) -> Iterator[Samples]:
    """The rows of a file, some at a time.

    Args:
        path: of a Parquet file, or a CSV file with a first line of names.
        times: which are allowed; `now` is that of all rows unless they say one.
        service: of all rows; empty where a column says it.
        model: the same.
        by_row: whether the column `time` counts.

    Raises:
        SamplesError: it cannot be read or counted.
    """
    pa = _pyarrow()
    try:
        for table in _tables(path):
            chosen = table if by_row or "time" not in table.column_names else table.drop_columns(["time"])
            yield from_table(chosen, times, service, model)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_table(error) from error


def columns(path: str) -> list[str]:
    """The names of the columns of a file; errors as of `read`."""
    pa = _pyarrow()
    from pyarrow import csv, parquet  # noqa: PLC0415

    try:
        if path.endswith(_CSV):
            with csv.open_csv(path) as reader:
                return list(reader.schema.names)
        with parquet.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_table(error) from error


def _pyarrow() -> Any:
    try:
        import pyarrow  # noqa: PLC0415, ICN001  (only who has files pays for it)
    except ImportError as error:
        raise SamplesError("malformed", "files need pyarrow: pip install 'infermeter[drift]'") from error
    return pyarrow


def _no_table(error: Exception) -> SamplesError:
    return SamplesError("malformed", f"it is no table: {' '.join(str(error).split())[:200]}")


def _tables(path: str) -> Iterator[Any]:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv, parquet  # noqa: PLC0415

    if path.endswith(_CSV):
        # Types are those of the first block. That its numbers are whole says nothing of the others.
        blocks = csv.ReadOptions(block_size=_BLOCK)
        with csv.open_csv(path, blocks) as reader:
            kinds = {field.name: pa.float64() for field in reader.schema if pa.types.is_integer(field.type)}
        kinds |= dict.fromkeys(("service", "model", "id"), pa.string())
        wanted = csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
        with csv.open_csv(path, blocks, convert_options=wanted) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
        return
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            yield pa.Table.from_batches([batch])
