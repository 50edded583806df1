"""Many processes as one: each page shows what all of them counted, and what cannot be read is named and left out."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from infermeter import CostModel, Recorder
from tests.processes import in_another, recorder_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.instrumentation.conftest import RunPython, Scrape


def infer(recorder: Recorder, seconds: float = 0.25, model: str = "m") -> None:
    track = recorder.track(model=model)
    track.finish(track.begin(), seconds)


def reap(recorder: Recorder) -> None:
    """Move the dead into the accumulator, as the timer does now and then."""
    assert recorder._shared is not None
    recorder._shared._reap_at = 0
    recorder._shared.upkeep()


@pytest.mark.parametrize(
    ("mode", "alive", "one_dead"),
    [("livesum", 7.0, 4.0), ("livemax", 4.0, 4.0), ("livemin", 3.0, 4.0), ("mostrecent", 3.0, 3.0)],
)
def test_gauges_of_several_processes(tmp_path: Path, scrape: Scrape, mode: Any, alive: float, one_dead: float) -> None:
    """As their mode says; those of the dead are gone, but for the most recent one, which is kept."""
    reader, other, dying = (recorder_in(tmp_path, gauges=mode) for _ in range(3))
    for recorder, size in ((other, 4), (dying, 3)):
        infer(recorder)
        recorder.model_memory("m", size, device="cpu")
        recorder.fold()
    assert scrape(reader).value("model_memory_usage_bytes") == alive
    assert dying._shared is not None
    dying._shared.close()  # as at its end: all that is left are its files
    for step in (lambda: None, lambda: reap(reader)):
        step()
        assert scrape(reader).value("model_memory_usage_bytes") == one_dead


def test_what_nobody_alive_tells_is_gone(tmp_path: Path, scrape: Scrape) -> None:
    """Calls in flight, queues, memory and what a model runs on end with the process; what was counted stays."""

    def work() -> None:
        recorder = recorder_in(tmp_path)
        infer(recorder)
        recorder.track(model="m").begin()
        recorder.queue("m").put()
        recorder.model_memory("m", 7)
        recorder.model_info("m", device="cuda:0")
        recorder.model_accuracy("m", 0.75)
        recorder.fold()

    in_another(work)
    reader = recorder_in(tmp_path)
    for step in (lambda: None, lambda: reap(reader)):
        step()
        page = scrape(reader)
        gone = {"inferences_in_flight", "model_queue_length", "model_memory_usage_bytes", "model_info"}
        assert page.names & gone == set()
        assert [page.value("inferences_total"), page.value("model_accuracy_score")] == [1, 0.75]


def test_a_gauge_comes_back_with_a_process_that_tells_it(tmp_path: Path, scrape: Scrape) -> None:
    """A row that was hidden is shown again, with the value of now."""
    reader = recorder_in(tmp_path)
    for size in (7, 9):
        teller = recorder_in(tmp_path)
        infer(teller)
        teller.model_memory("m", size)
        teller.model_info("m", device=f"cuda:{size}")
        teller.fold()
        page = scrape(reader)
        assert [page.value("model_memory_usage_bytes"), page.by("device", "model_info")] == [size, {f"cuda:{size}": 1}]
        assert teller._shared is not None
        teller._shared.close()
        assert scrape(reader).names & {"model_memory_usage_bytes", "model_info"} == set()


def test_sums_do_not_change_when_the_dead_are_absorbed(tmp_path: Path, scrape: Scrape) -> None:
    """Not by a last bit, in whatever order they are added: Prometheus takes any fall for a restart."""
    chance = random.Random(7)
    reader = recorder_in(tmp_path)
    for _ in range(60):
        for _ in range(3):
            dying = recorder_in(tmp_path)
            for _ in range(5):
                infer(dying, chance.uniform(0, 10))
            assert dying._shared is not None
            dying._shared.close()
        infer(reader, chance.uniform(0, 10))
        before = scrape(reader).value("inference_duration_sum")
        reap(reader)
        assert scrape(reader).value("inference_duration_sum") == before
        assert scrape(recorder_in(tmp_path)).value("inference_duration_sum") == before


def test_what_a_model_runs_on_is_told_anew(tmp_path: Path, scrape: Scrape) -> None:
    """What was told before is gone, also from the pages of others."""
    reader, teller = recorder_in(tmp_path), recorder_in(tmp_path)
    infer(teller)
    for device in ("cuda:0", "cpu", "cuda:0"):
        teller.model_info("m", device=device)
        teller.fold()
        assert scrape(reader).by("device", "model_info") == {device: 1}


def test_the_price_of_a_record_is_that_of_its_process(tmp_path: Path, scrape: Scrape) -> None:
    """Records that a dead process left cost what they cost there, tokens included."""

    def work() -> None:
        recorder = recorder_in(tmp_path, cost=CostModel(usd_per_hour=3600, usd_per_1k_prompt_tokens=2))
        infer(recorder, 0.5)
        track = recorder.track(model="m")
        call = track.begin()
        call.tokens(prompt=1000)
        track.finish(call, 0.25)

    in_another(work)
    page = scrape(recorder_in(tmp_path))
    assert [page.value("inference_cost_count"), page.value("inference_cost_sum")] == [2, 0.5 + 0.25 + 2]


def test_buckets_are_those_of_the_process(tmp_path: Path, scrape: Scrape, caplog: pytest.LogCaptureFixture) -> None:
    """Histograms with other buckets are no part of ours: they are left out and named, and reaped with their own."""

    def work() -> None:
        infer(recorder_in(tmp_path, buckets={"inference_duration": (0.5, 1)}), 0.75)

    in_another(work)
    reader = recorder_in(tmp_path)
    for step in (lambda: None, lambda: reap(reader)):
        step()
        page = scrape(reader)
        assert "inference_duration_count" not in page.names
        assert page.value("inferences_total") == 1
    assert [record.message for record in caplog.records].count(
        f"multi-process folder {tmp_path}: inference_duration: rows with other buckets, or of another version, "
        "are not shown"
    ) == 1
    same = scrape(recorder_in(tmp_path, buckets={"inference_duration": (0.5, 1)}))
    assert same.by("le", "inference_duration_bucket") == {"0.5": 0, "1.0": 1, "+Inf": 1}


def test_native_histograms_of_several_processes_are_merged(tmp_path: Path) -> None:
    """The living, the dead and the absorbed; the buckets are those of one process that recorded it all."""
    alone = Recorder(service="test", registry=CollectorRegistry(), histograms="both")
    seconds = [float(2 ** (number / 7)) for number in range(-60, 60)]

    def work(some: list[float]) -> None:
        mine = recorder_in(tmp_path, histograms="both")
        for one in some:
            infer(mine, one)

    reader = recorder_in(tmp_path, histograms="both")
    for part in range(3):
        in_another(lambda part=part: work(seconds[part::4]))  # type: ignore[misc]
        if part == 0:
            reap(reader)
    for one in seconds[3::4]:
        infer(reader, one)
    for one in seconds:
        infer(alone, one)

    def buckets(recorder: Recorder) -> Any:
        recorder.protobuf(classic=False)
        row = recorder._visible.histogram_row("inference_duration", ("test", "m", ""))
        assert row.native is not None
        schema, threshold, zeros, spans, deltas, *_ = row.native.sparse()
        return schema, threshold, zeros, spans, deltas.tolist()

    assert buckets(reader) == buckets(alone)


def test_exemplars_of_other_processes(tmp_path: Path) -> None:
    """Those of the living and of the dead, the latest one of a bucket."""
    reader, other = recorder_in(tmp_path), recorder_in(tmp_path)

    def slow(recorder: Recorder, seconds: float, trace: str) -> None:
        track = recorder.track(model="m")
        call = track.begin()
        call.exemplar(trace_id=trace)
        track.finish(call, seconds)

    def work() -> None:
        slow(recorder_in(tmp_path), 20, "dead")

    slow(other, 2, "earlier")
    other.fold()
    slow(reader, 2, "later")
    in_another(work)
    for step in (lambda: None, lambda: reap(reader)):
        step()
        page = reader.text(b"# EOF\n", open_metrics=True).decode()
        shown = {
            sample.labels["le"]: sample.exemplar.labels["trace_id"]
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.exemplar
        }
        assert shown == {"2.5": "later", "30.0": "dead"}


def test_names_of_the_writer_outlive_it(tmp_path: Path, scrape: Scrape) -> None:
    """Class names that are folded, and objects that can only be asked while they live, are resolved when recorded."""

    class Names(dict[int, str]):
        def __missing__(self, index: int) -> str:
            return f"class {index}"

    def work() -> None:
        recorder = recorder_in(tmp_path, max_label_values={"class": 2})
        with recorder.track(model="m") as call:
            call.detections([0.5, 0.5, 0.5], classes=np.array([1, 2, 3]), names=Names())

    in_another(work)
    page = scrape(recorder_in(tmp_path))
    assert page.by("class", "detections_total") == {"class 1": 1, "class 2": 1, "_other": 1}
    assert page.value("infermeter_label_values_folded_total", label="class") == 1


def test_detections_without_end_wait_in_the_ring(tmp_path: Path, scrape: Scrape) -> None:
    """A payload that is too long is counted at once, and outlives the process too, in many frames as in one."""

    def work() -> None:
        recorder = recorder_in(tmp_path)
        infer(recorder)
        with recorder.track(model="m") as call:
            for _ in range(3):
                call.detections(np.full(300_000, 0.5, np.float32), classes=np.zeros(300_000, np.int64))
        with recorder.track(model="m") as call:
            call.detections(np.array([0.5, np.nan, -1.0] * 100_000))

    in_another(work)
    page = scrape(recorder_in(tmp_path))
    assert page.value("detection_confidence_count") == 1_000_000
    assert page.by("class", "detections_total") == {"0": 900_000, "": 300_000}
    assert page.value("objects_per_frame_sum") == 1_200_000
    assert page.dropped() == {"non_finite": 100_000, "negative": 100_000}


def test_the_environment_names_the_folder(run_python: RunPython, tmp_path: Path) -> None:
    """INFERMETER_MULTIPROC_DIR, or a folder of ours in that of prometheus_client, whose metrics are shown too."""
    source = """
        import os, infermeter
        from prometheus_client import Counter
        orders = Counter("orders", "-")
        infermeter.configure(service="gate")
        if os.fork() == 0:
            orders.inc(2)
            with infermeter.track(model="m"):
                pass
            os._exit(0)
        os.wait()
        orders.inc(3)
        with infermeter.track(model="m"):
            pass
        page = b"".join(infermeter.wsgi_app()({"REQUEST_METHOD": "GET"}, lambda *_: None)).decode()
        print(*sorted(line for line in page.splitlines() if line.startswith(("orders_total", "inferences_total"))))
    """
    for variables, orders in (
        ({"INFERMETER_MULTIPROC_DIR": str(tmp_path / "ours")}, "3.0"),
        ({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "theirs")}, "5.0"),
    ):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        printed = run_python(source, environment=variables, python_warnings="ignore")
        assert printed == f'inferences_total{{model="m",service="gate",version=""}} 2.0 orders_total {orders}\n'
    assert list((tmp_path / "ours").glob("*.segment")) != []
    assert list((tmp_path / "theirs" / "infermeter").glob("*.segment")) != []


def test_what_was_told_before_any_inference_outlives_an_exit(
    tmp_path: Path, scrape: Scrape, run_python: RunPython
) -> None:
    """A job that only loads a model, and names its service late."""
    run_python(f"""
        import infermeter
        infermeter.configure(multiprocess_dir={str(tmp_path)!r})
        infermeter.load("m").loaded(2)
        infermeter.cache("features").hit()
        infermeter.configure(service="test")
    """)
    page = scrape(recorder_in(tmp_path))
    assert page.value("model_load_seconds_sum", service="test") == 2
    assert page.value("cache_hits_total", service="test") == 1


def test_a_page_made_by_hand(tmp_path: Path) -> None:
    """`register` puts all processes into any registry."""
    recorder, other = recorder_in(tmp_path), recorder_in(tmp_path)
    for one in (recorder, other):
        infer(one)
    other.fold()
    registry = CollectorRegistry()
    recorder.register(registry)
    assert b'inferences_total{model="m",service="test",version=""} 2.0' in generate_latest(registry)


def test_containers_may_share_a_folder(tmp_path: Path, scrape: Scrape) -> None:
    """Processes that all have the id 1, each in a namespace of its own: the living are told from the dead."""
    source = f"""
        import os, sys, infermeter
        infermeter.configure(service="test", multiprocess_dir={str(tmp_path)!r})
        with infermeter.track(model="m"):
            pass
        infermeter.track(model="m").begin()
        infermeter.write_textfile({str(tmp_path / "page")!r})
        print(os.getpid(), flush=True)
        sys.stdin.read()
    """
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", textwrap.dedent(source)]
    pipe = subprocess.PIPE
    if subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to make namespaces")
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
        reader = recorder_in(tmp_path)
        page = scrape(reader)
        assert [page.value("inferences_total"), page.value("inferences_in_flight")] == [2, 2]
        processes[0].kill()
        processes[0].communicate()
        for _ in range(2):
            page = scrape(reader)
            assert [page.value("inferences_total"), page.value("inferences_in_flight")] == [2, 1]
            reap(reader)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
