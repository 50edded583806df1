"""Native and classic histograms in a Prometheus of another version than the installed one, from 2.49 on.

INFERMETER_PROMETHEUS=/path/to/prometheus pytest tests/prometheus/test_newer_servers.py
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infermeter import Recorder
from tests.prometheus.conftest import ADDRESS, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.prometheus.conftest import Prometheus, Scrape

EDGES = (0.05, 0.1, 1.0, 2.5)
SECONDS = np.append(np.random.default_rng(7).lognormal(-3.0, 0.5, 4000), (0.99, 1.0, 2.0))
KEPT = {str(edge): float(np.less_equal(SECONDS, edge).sum()) for edge in EDGES} | {"+Inf": float(len(SECONDS))}
NATIVE = ("both", "both-kept", "native", "native-kept")
"""The jobs that get native histograms."""


@pytest.fixture(scope="module")
def newer() -> str:
    """Where the other Prometheus is."""
    return os.environ.get("INFERMETER_PROMETHEUS") or pytest.skip("INFERMETER_PROMETHEUS names no other Prometheus")


@pytest.fixture(scope="module")
def options(newer: str) -> dict[str, str]:
    """What each job sets beside its target, spelt as this version does."""
    said = subprocess.run([newer, "--version"], check=True, capture_output=True, text=True)
    found = re.search(r"version (\d+)\.(\d+)", said.stdout + said.stderr)
    assert found, f"no version in {said.stdout}{said.stderr}"
    version = (int(found[1]), int(found[2]))
    native = "scrape_native_histograms: true, " if version >= (3, 8) else ""
    kept = "always_scrape_classic_histograms: true, " if version >= (3, 0) else "scrape_classic_histograms: true, "
    classic = "params: {histograms: [classic]}, "
    text = "scrape_protocols: [PrometheusText0.0.4], "
    return {
        job: native + setting
        for mode in ("both", "native")
        for job, setting in {
            mode: "", f"{mode}-kept": kept, f"{mode}-classic": classic, f"{mode}-text": text,
        }.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def scrapes(
    newer: str, options: dict[str, str], connect: type[Prometheus], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Scrape]]:
    """What each job made of the same inferences, having seen the zeros before."""
    folder = tmp_path_factory.mktemp("newer")
    recorders = {
        mode: Recorder(
            service=mode, registry=CollectorRegistry(), histograms=mode, buckets={"inference_duration": EDGES}
        )
        for mode in ("both", "native")
    }
    tracks = [recorder.track(model="m") for recorder in recorders.values()]
    for track in tracks:
        track(lambda: None)  # what is decorated announces its zeros
    with ExitStack() as stack:
        servers = {mode: stack.enter_context(recorder.serve(0, addr=ADDRESS)) for mode, recorder in recorders.items()}
        targets = {job: f"{ADDRESS}:{servers[job.split('-')[0]].port}" for job in options}
        jobs = (
            f"  - {{job_name: {job}, {options[job]}static_configs: [{{targets: ['{target}']}}]}}\n"
            for job, target in targets.items()
        )
        address = stack.enter_context(running(newer, folder, "".join(jobs), "--enable-feature=native-histograms"))
        clients = {job: stack.enter_context(connect(f"http://{address}", job=job)) for job in targets}
        for client in clients.values():
            client.next_scrape()
        for track in tracks:
            for seconds in SECONDS.tolist():
                track.finish(track.begin(), seconds)
        yield {job: client.next_scrape() for job, client in clients.items()}


@pytest.mark.parametrize("job", NATIVE)
def test_native_histograms_are_right(scrapes: dict[str, Scrape], job: str) -> None:
    """Quantiles within 5 %, and the rest exactly."""
    mine = f'inference_duration{{job="{job}"}}'
    for quantile in (0.5, 0.95, 0.99):
        found = scrapes[job].value(f"histogram_quantile({quantile}, rate({mine}[1m]))")
        assert found == pytest.approx(np.quantile(SECONDS, quantile), rel=0.05)
    assert scrapes[job].value(f"histogram_count({mine})") == len(SECONDS)
    assert scrapes[job].value(f"histogram_sum({mine})") == pytest.approx(SECONDS.sum())
    assert scrapes[job].value(f"histogram_fraction(0, 0.0625, {mine})") == pytest.approx((SECONDS <= 0.0625).mean())


@pytest.mark.parametrize("job", ["both-kept", "both-classic", "native-classic", "both-text", "native-text"])
def test_classic_buckets_are_kept(scrapes: dict[str, Scrape], job: str) -> None:
    """By the setting, by the parameter and by the text format, under the same values of `le`."""
    assert scrapes[job].by("le", f'inference_duration_bucket{{job="{job}"}}') == KEPT


@pytest.mark.parametrize("job", ["both", "native", "native-kept"])
def test_classic_buckets_are_dropped(scrapes: dict[str, Scrape], job: str) -> None:
    """Without the setting, and with it where the page has none."""
    assert scrapes[job].vector(f'{{__name__=~"inference_duration_(bucket|count|sum)", job="{job}"}}') == []
