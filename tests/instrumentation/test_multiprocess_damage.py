"""Folders that processes share and cannot use as they should: what is wrong is named, and the service goes on."""

from __future__ import annotations

import logging
import resource
import signal
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from infermeter import ConfigError, Recorder
from tests.processes import in_another, recorder_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.instrumentation.conftest import RunPython, Scrape


def infer(recorder: Recorder, seconds: float = 0.25, model: str = "m") -> None:
    track = recorder.track(model=model)
    track.finish(track.begin(), seconds)


def test_a_full_disk_stops_no_inference(tmp_path: Path, scrape: Scrape, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot outlive the process is said once, and the service goes on."""
    recorder = recorder_in(tmp_path / "full")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with recorder.track(model="m") as call:
            call.detections([0.5])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert sum("no room for" in record.message for record in caplog.records) > 0
    assert scrape(recorder).value("infermeter_files_skipped") == 0


@pytest.mark.parametrize("content", [b"", b"not a segment" * 100, b"infermtr" + bytes(4096)])
def test_a_foreign_file_is_counted_and_named(
    tmp_path: Path, scrape: Scrape, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Once in the log, and on every page; what others counted is there all the same."""
    (tmp_path / f"{'0' * 32}.segment").write_bytes(content)
    recorder = recorder_in(tmp_path)
    infer(recorder)
    for _ in range(2):
        page = scrape(recorder)
        assert [page.value("infermeter_files_skipped"), page.value("inferences_total")] == [1, 1]
    assert sum("0" * 32 in record.message for record in caplog.records) == 1


def test_damage_takes_no_scrape_and_no_count_of_others(tmp_path: Path, scrape: Scrape) -> None:
    """Bytes of what a dead process left are flipped, one at a time: its neighbour's counts are as they were."""
    logging.disable()
    folder = tmp_path / "folder"

    def work() -> None:
        recorder = recorder_in(folder)
        for _ in range(3):
            infer(recorder, model="damaged")
        recorder.fold()
        with recorder.track(model="damaged") as call:
            call.detections([0.5], classes=["cat"])

    in_another(work)
    (path,) = folder.glob("*.segment")
    healthy = recorder_in(folder)
    infer(healthy, model="healthy")
    content = path.read_bytes()
    places = [place for place, byte in enumerate(content) if byte][:6000:7]
    try:
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 0xFF
            path.write_bytes(damaged)
            assert healthy._shared is not None
            healthy._shared._folder = type(healthy._shared._folder)(folder)  # which keeps what it read of the dead
            page = scrape(healthy)
            assert page.value("inferences_total", model="healthy") == 1
    finally:
        logging.disable(logging.NOTSET)
    assert len(places) > 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiprocess_dir": ""}, "multiprocess_dir='' is not the path of a folder"),
        ({"multiprocess_dir": 3}, "multiprocess_dir=3 is not the path of a folder"),
        (
            {"multiprocess_dir": "/dev/null/x"},
            "multiprocess_dir='/dev/null/x' cannot be made a folder: Not a directory",
        ),
        ({"gauges": "all"}, "gauges='all' is none of 'livesum', 'livemax', 'livemin', 'mostrecent'"),
        ({"gauges": {"model_queue_len": "livemax"}}, "did you mean 'model_queue_length'?"),
        (
            {"gauges": {"model_queue_length": "max"}},
            "gauges={'model_queue_length': 'max'} is none of 'livesum', 'livemax', 'livemin', 'mostrecent'",
        ),
    ],
)
def test_mistakes_get_one_sentence(options: Any, message: str) -> None:
    """They name the value and what was expected."""
    with pytest.raises(ConfigError) as raised:
        Recorder(registry=CollectorRegistry(), **options)
    assert message in str(raised.value)


def test_a_folder_that_cannot_be_used_leaves_a_process_alone(run_python: RunPython) -> None:
    """It is said, and the service goes on as one process."""
    printed = run_python(
        """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        import infermeter
        infermeter.configure(service="gate")
        with infermeter.track(model="m"):
            pass
        """,
        environment={"INFERMETER_MULTIPROC_DIR": "/dev/null/x"},
    )
    assert printed.splitlines()[0] == (
        "this process counts for itself alone, because of the variable INFERMETER_MULTIPROC_DIR: "
        "multiprocess_dir='/dev/null/x' cannot be made a folder: Not a directory"
    )
