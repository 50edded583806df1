"""What waits for a fold stays small, whatever the timer does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infermeter.observation import STRIDE

if TYPE_CHECKING:
    import infermeter
    from tests.instrumentation.conftest import Scrape


def test_bare_records_are_folded_inline(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """A loop that never lets the timer in holds 256 records at most."""
    track = recorder.track(model="m")
    function = track(lambda: None)
    most = 0
    for _ in range(2000):
        function()
        with track:
            pass
        series = next(iter(recorder.series.values()))
        most = max(most, len(series.bare))
    assert most < 256
    assert scrape(recorder).value("inferences_total") == 4000


def test_full_records_are_folded_inline(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """The same for inferences with detections."""
    function = recorder.track(model="m", detections=lambda result: result)(lambda: [0.5])
    most = 0
    for _ in range(2000):
        function()
        most = max(most, len(next(iter(recorder.series.values())).full))
    assert most < 256 * STRIDE
    assert scrape(recorder).value("detections_total") == 2000


def test_large_payloads_are_weighed_across_series(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """Payloads of many series together stay within 8 MiB and the one that came last."""
    confidences = np.full(100_000, 0.5, dtype=np.float32)
    most = 0
    for number in range(200):
        with recorder.track(model=f"m{number % 50}") as call:
            call.detections(confidences)
        waiting = sum(len(one.full[2]) for one in recorder.series.values() if one.full)
        most = max(most, waiting)
    assert most <= 8 * 1024 * 1024 + confidences.nbytes
    assert scrape(recorder).value("detections_total") == 200 * 100_000
