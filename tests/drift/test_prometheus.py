"""What a Prometheus has is what statistics are made of: the real server, with a past that is known."""

from __future__ import annotations

import http.server
import json
import math
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import yaml

from infermeter_exporters.drift.decision import USUAL
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.prometheus import Access, Family, Prometheus
from infermeter_exporters.drift.promql import Histogram, rules
from infermeter_exporters.drift.promql_check import expected
from infermeter_exporters.drift.source import SourceError
from infermeter_exporters.drift.store import opened
from infermeter_exporters.drift.verdicts import Policy
from infermeter_exporters.drift.watch import Timing, Watch
from tests.drift.past import METRIC, STEP, buckets, remembering

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infermeter_exporters.drift.layout import Histogram as Counted

HOUR, WEEK = 3600, 7 * 24 * 3600
STEPS = HOUR // STEP
NOON = 1_795_003_200 // HOUR * HOUR  # some full hour, long ago
BOUNDS = ("0.5", "0.9", "0.99", "1.0", "+Inf")
OTHERS = ("0.5", "0.9", "0.99", "1", "+Inf")  # as older releases write them
USUAL_COUNTS, DRIFTED = (1, 4, 20, 30, 0), (4, 10, 25, 12, 1)
YOLO = Key("vision", "yolo", METRIC)


def counted(address: str, *families: Family) -> dict[Key, Counted]:
    """What it has of the hour before noon."""
    source = Prometheus("prometheus", Access(f"http://{address}"), families or (Family(METRIC),), ("seasonal",))
    with closing(source):
        return source.counted(NOON - HOUR, NOON)


@contextmanager
def watching(address: str, folder: Path, timing: Timing, baseline: str = "seasonal") -> Iterator[Watch]:
    """What watches it, with a store in a folder."""
    source = Prometheus("prometheus", Access(f"http://{address}"), (Family(METRIC),), (baseline,))
    with closing(opened(str(folder / "store"))) as store:
        watch = Watch(source, store, timing, Policy(USUAL, 0, told=False))
        try:
            yield watch
        finally:
            watch.stop()


def labelled(model: str, instance: str) -> str:
    """Labels of a series."""
    return f'service="vision",model="{model}",instance="{instance}"'


def series() -> dict[str, list[tuple[float, float]]]:
    """Two hours before noon, the same two hours in the two weeks before, of several models."""
    found: dict[str, list[tuple[float, float]]] = {}

    def add(name: str, more: dict[str, list[tuple[float, float]]]) -> None:
        assert name
        for one, samples in more.items():
            found.setdefault(one, []).extend(samples)

    for week in (2, 1, 0):
        began = NOON - week * WEEK - 2 * HOUR
        usual = [USUAL_COUNTS] * (2 * STEPS)
        mixed = [USUAL_COUNTS] * STEPS + [DRIFTED] * STEPS
        add("drifts", buckets(labelled("yolo", "a"), BOUNDS, usual if week else mixed, began))
        add("restarted", buckets(labelled("yolo", "b"), OTHERS, usual if week else mixed, began, restarts=90))
        add("stays", buckets(labelled("retina", "a"), BOUNDS, usual, began))
    began = NOON - 2 * HOUR
    add("other bounds", buckets(labelled("mixed", "a"), ("0.5", "0.9", "+Inf"), [(1, 2, 3)] * 2 * STEPS, began))
    add("others", buckets(labelled("mixed", "b"), ("0.25", "0.9", "+Inf"), [(4, 5, 6)] * 2 * STEPS, began))
    add("nobody's", buckets('service="",model="x",instance="a"', BOUNDS, usual, began))
    return found


@pytest.fixture(scope="module")
def address(program: str, promtool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that remembers all that."""
    with remembering(program, promtool, tmp_path_factory.mktemp("past"), series()) as found:
        yield found


def test_buckets_of_a_fleet(address: str) -> None:
    """Instances are summed, whichever way they write a bound, and whether or not they were restarted."""
    found = counted(address)
    assert sorted(found) == [Key("vision", "mixed", METRIC), Key("vision", "retina", METRIC), YOLO]
    assert found[YOLO].layout.edges == (0.5, 0.9, 0.99, 1.0)
    counts = found[YOLO].counts[:5]
    # Between samples that lie exactly at both ends of the window there is nothing to extrapolate; one scrape is lost to
    # the restart.
    assert counts / counts.sum() == pytest.approx(np.asarray(DRIFTED) / sum(DRIFTED), rel=1e-9)
    assert counts.sum() == pytest.approx(2 * STEPS * sum(DRIFTED), rel=0.02)


def test_bounds_that_not_all_instances_have(address: str) -> None:
    """Are merged into those that all have: a sum over the others would be of a part of the fleet."""
    found = counted(address)[Key("vision", "mixed", METRIC)]
    assert found.layout.edges == (0.9,)
    assert found.counts[:2] / found.counts[:2].sum() == pytest.approx([12 / 21, 9 / 21])


def test_drift_against_the_same_hour_of_weeks_before(address: str, tmp_path: Path) -> None:
    """It is found where it is, with the size that it has; a model that stays as it was is left in peace."""
    with watching(address, tmp_path, Timing(delay=0)) as watch:
        watch.evaluate(NOON)
    found = {one.comparison.key: one for one in watch.shown.findings}
    assert found[YOLO].status == "ok"
    reference, current = (np.asarray(one) * 2.0 * STEPS for one in (USUAL_COUNTS, DRIFTED))
    for name in ("psi", "kl_divergence", "tvd", "ks_statistic", "hellinger"):
        value = expected(2 * reference, current)[f"drift_{name}"]
        assert found[YOLO].statistics[name] == pytest.approx(value, rel=0.002)
    calm = found[Key("vision", "retina", METRIC)]
    assert (calm.status, calm.statistics["psi"] < 1e-4, calm.pvalue > 0.99) == ("ok", True, True)
    assert found[Key("vision", "mixed", METRIC)].status == "no_baseline"
    states = {key[0]: verdict.state.votes for key, verdict in watch.shown.verdicts.items()}
    assert (states[YOLO], states[calm.comparison.key]) == ((True,), (False,))


def test_previous_windows(address: str, tmp_path: Path) -> None:
    """The hour before is a reference that needs no past."""
    with watching(address, tmp_path, Timing(delay=0), "previous") as watch:
        watch.evaluate(NOON)
    found = {one.comparison.key: one.statistics["psi"] for one in watch.shown.findings}
    assert found[YOLO] > 0.2
    assert found[Key("vision", "mixed", METRIC)] == pytest.approx(0, abs=1e-4)


def test_windows_that_ended_while_nobody_watched(address: str, tmp_path: Path) -> None:
    """Are decided afterwards, each once, in their order."""
    timing = Timing(interval=300, window=1800, delay=0)
    with watching(address, tmp_path, timing, "previous") as first:
        first.evaluate(NOON - HOUR)  # one window
    with watching(address, tmp_path, timing, "previous") as later:
        later.evaluate(NOON + 299)  # two more, and what is newest is the same as the last of them
        later.evaluate(NOON + 299)
    votes = later.shown.verdicts[YOLO, "previous"].state.votes
    assert votes == (False, True, False)
    assert (first.status()["drift_windows_total"], later.status()["drift_windows_total"]) == (
        {("prometheus", "decided"): 1.0, ("prometheus", "skipped"): 0.0},
        {("prometheus", "decided"): 2.0, ("prometheus", "skipped"): 0.0},
    )


def test_rules_and_exporter_agree(program: str, promtool: str, tmp_path: Path) -> None:
    """To a millionth, on the same data, when the real server evaluates the rules."""
    now = int(time.time()) // STEP * STEP
    past: dict[str, list[tuple[float, float]]] = {}
    for week in (1, 0):
        began = now - week * WEEK - HOUR - 10 * STEP
        # Nothing of it is in the future: a server takes no results that are older than what it has.
        counts = [USUAL_COUNTS if week else DRIFTED] * (STEPS + (20 if week else 10))
        for instance, bounds in (("a", BOUNDS), ("b", OTHERS)):
            for name, samples in buckets(
                labelled("yolo", instance), bounds, counts, began, restarts=0 if week else 30
            ).items():
                past.setdefault(name, []).extend(samples)
    made = rules(Histogram(METRIC, [0.5, 0.9, 0.99, 1.0], weeks=1))
    made["groups"][0]["interval"] = "1s"
    (tmp_path / "drift.rules.yml").write_text(yaml.safe_dump(made))
    with remembering(program, promtool, tmp_path, past) as address:
        config = tmp_path / "prometheus.yml"
        config.write_text(config.read_text() + f"rule_files: ['{tmp_path}/drift.rules.yml']\n")
        with httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
            reload(client, address)
            query = "service_model:drift_psi:1h[1m]"
            deadline = time.monotonic() + 30
            while not (result := asked(client, query)):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            moment = float(result[0]["values"][0][0])
            recorded = {
                name: float(asked(client, f"service_model:drift_{name}:1h", moment)[0]["value"][1])
                for name in ("psi", "kl_divergence", "js_divergence", "hellinger", "tvd", "ks_statistic", "samples",
                             "psi_noise_floor")
            }  # fmt: skip
        with watching(address, tmp_path, Timing(interval=0.001, window=HOUR, delay=0, seasons=1)) as watch:
            watch.evaluate(moment)
    (finding,) = watch.shown.findings
    found = finding.statistics | {"samples": finding.samples}
    assert recorded["psi"] > 0.2
    for name, value in recorded.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def asked(client: httpx.Client, query: str, moment: float | None = None) -> list[dict[str, Any]]:
    """The result of a query."""
    given = {"query": query} | ({} if moment is None else {"time": repr(moment)})
    answer = client.get("/api/v1/query", params=given).json()
    assert answer["status"] == "success", answer
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def reload(client: httpx.Client, address: str) -> None:
    """Have it read its configuration again."""
    answer = client.post("/-/reload")
    assert answer.is_success, (address, answer.text)


# --- servers that fail, hang or lie -----------------------------------------------------------------------------------


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Host and port of a server that answers everything so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def vector(*series: dict[str, object]) -> bytes:
    """An answer."""
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": list(series)}}).encode()


REFUSAL = json.dumps({"status": "error", "error": "parse error"}).encode()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"<html>", "invalid"),
        (200, b'{"status": "success"}', "invalid"),
        (200, b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', "invalid"),
        (200, b"[1, 2]", "invalid"),
        (200, vector({"metric": {"service": "s", "le": "wide"}, "value": [1, "2"]}), "invalid"),
        (200, vector({"metric": {"service": "s", "le": "1"}}), "invalid"),
        (400, REFUSAL, "refused"),
        (401, b"no", "refused"),
        (502, b"bad gateway", "unreachable"),
    ],
)
def test_answers_that_make_no_sense(status: int, body: bytes, reason: str) -> None:
    """Are said to be what they are; nothing else is raised."""
    with answering(status, body) as address, pytest.raises(SourceError) as raised:
        counted(address)
    assert raised.value.reason == reason
    assert "\n" not in str(raised.value)


def test_numbers_that_are_none() -> None:
    """A histogram with NaN in it is left out, as is one without an infinite bound."""
    bad: list[dict[str, object]] = [
        {"metric": {"service": "s", "le": le}, "value": [1, value]} for le, value in (("1", "NaN"), ("+Inf", "3"))
    ]
    with answering(200, vector(*bad)) as address:
        assert counted(address) == {}
    with answering(200, vector({"metric": {"service": "s", "le": "1"}, "value": [1, "2"]})) as address:
        assert counted(address) == {}


def test_nobody_answers(tmp_path: Path) -> None:
    """The windows wait, the last verdict is kept, and it is said and counted."""
    with answering(200, vector()) as address:
        pass
    with watching(address, tmp_path, Timing(interval=0.1, window=0.2, delay=0)) as watch:
        watch.start()
        deadline = time.monotonic() + 10
        while not watch.error:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    status = watch.status()
    assert "does not answer" in watch.error
    assert status["drift_source_up"] == {("prometheus",): 0.0}
    assert status["drift_source_errors_total"]["prometheus", "unreachable"] >= 1


def test_data_that_are_old(address: str, tmp_path: Path) -> None:
    """A server that gets no new samples is no server whose models are silent."""
    with watching(address, tmp_path, Timing(delay=0)) as watch, pytest.raises(SourceError) as raised:
        watch.evaluate(NOON + 1800)
    assert raised.value.reason == "stale"
    assert math.isclose(watch.shown.ended, 0)
