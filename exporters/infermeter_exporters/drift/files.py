"""Tables in files: each Parquet or CSV file that comes is counted once, as a whole."""

import glob
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from infermeter_exporters.drift.config import FilesSource
from infermeter_exporters.drift.intake import Intake
from infermeter_exporters.drift.samples import Samples, SamplesError, Times
from infermeter_exporters.drift.store import Store, StoreError
from infermeter_exporters.drift.tables import from_table

log = logging.getLogger("infermeter.drift.files")

_EVERY = 5.0
_ROWS = 1 << 17
"""Rows that are in memory at a time."""


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
        self._complained: set[str] = set()

    def __call__(self, end: threading.Event) -> None:
        """Count files until `end` is set."""
        while not end.is_set():
            try:
                self.poll(end)
            except StoreError as error:
                log.warning("%s waits: %s", self._settings.name, error)
            end.wait(_EVERY)

    def poll(self, end: threading.Event) -> None:
        """Count the files that have come and are complete.

        Raises:
            StoreError: the store does not answer; files wait.
        """
        name = self._settings.name
        with self._store.transaction() as transaction:
            counted = {str(path): str(identity) for path, identity in transaction(_COUNTED, name)}
        for path in sorted(glob.glob(self._settings.path, recursive=True)):  # noqa: PTH207  (of any pattern)
            if end.is_set():
                return
            try:
                found = os.stat(path)  # noqa: PTH116
            except OSError:
                continue  # it is gone again
            identity = f"{found.st_size} {found.st_mtime_ns}"
            if path in counted:
                if counted[path] != identity and path not in self._complained:
                    self._complained.add(path)
                    self._intake.counts["samples changed"] += 1
                    log.warning("%s changed after it was counted, and is not counted again: a file is whole", path)
            elif time.time() - found.st_mtime >= self._settings.settle:
                self._count(path, identity, found.st_mtime)

    def _count(self, path: str, identity: str, written: float) -> None:
        now = time.time()
        by_row = self._settings.time == "column"
        times = Times(written, now - self._keep if by_row else -np.inf, now + 300)
        try:
            with self._store.transaction() as transaction:
                number = 0
                for found in read(path, times, self._settings.service, self._settings.model, by_row=by_row):
                    self._intake.keep(transaction, found)
                    number += found.number
                transaction("INSERT INTO files VALUES (?, ?, ?)", self._settings.name, path, identity)
        except SamplesError as error:
            self._intake.forget()
            self._intake.counts[f"samples {error.reason}"] += 1
            log.warning("%s is not counted: %s", path, error)
            with self._store.transaction() as transaction:  # or it would be read again and again
                transaction("INSERT INTO files VALUES (?, ?, ?)", self._settings.name, path, identity)
        except BaseException:
            self._intake.forget()
            raise
        else:
            self._intake.counts["samples accepted"] += number


_COUNTED = "SELECT path, identity FROM files WHERE source = ?"


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
    try:
        import pyarrow as pa  # noqa: PLC0415  (only who has files pays for it)
        from pyarrow import csv, parquet  # noqa: PLC0415
    except ImportError as error:
        raise SamplesError("malformed", "files need pyarrow: pip install 'infermeter[drift]'") from error
    try:
        for table in _tables(path, pa, csv, parquet):
            chosen = table if by_row or "time" not in table.column_names else table.drop_columns(["time"])
            yield from_table(chosen, times, service, model)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SamplesError("malformed", f"it is no table: {' '.join(str(error).split())[:200]}") from error


def _tables(path: str, pa: Any, csv: Any, parquet: Any) -> Iterator[Any]:
    if path.endswith((".csv", ".csv.gz", ".csv.zst")):
        with csv.open_csv(path) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
        return
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            yield pa.Table.from_batches([batch])
