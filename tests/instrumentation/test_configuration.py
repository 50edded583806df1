"""Options: what they do, and the one sentence that a mistake gets where it is made."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

import infermeter
from infermeter import ConfigError, CostModel, Recorder

if TYPE_CHECKING:
    from tests.instrumentation.conftest import NewRecorder, RunPython, Scrape

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"servce": "a"}, "configure() has no option 'servce', did you mean 'service'?"),
    (
        {"colour": "red"},
        "configure() has no option 'colour', expected one of buckets, cost, gauges, histograms, "
        "labels, max_label_values, max_native_buckets, max_series, multiprocess_dir, registry, service",
    ),
    ({"service": ""}, "service='' is not a non-empty string that begins with anything but an underscore"),
    ({"service": "_idle"}, "service='_idle' is not a non-empty string that begins with anything but an underscore"),
    ({"service": 7}, "service=7 is not a non-empty string that begins with anything but an underscore"),
    ({"cost": 2.1}, "cost=2.1 is not a CostModel, for example CostModel(usd_per_hour=2.10)"),
    ({"registry": "r"}, "registry='r' is not a prometheus_client.CollectorRegistry"),
    ({"labels": ["a"]}, "labels=['a'] is not a mapping of label name to value"),
    (
        {"labels": {"1st": "a"}},
        "labels={'1st': ...} is not a label name: letters, digits and underscores, no digit first, no two underscores "
        "first",
    ),
    (
        {"labels": {"__name__": "a"}},
        "labels={'__name__': ...} is not a label name: letters, digits and underscores, no digit first, no two "
        "underscores first",
    ),
    (
        {"labels": {"model": "a"}},
        "labels={'model': ...} is a label that the library sets itself, expected another",
    ),
    ({"labels": {"le": "a"}}, "labels={'le': ...} is a label that the library sets itself, expected another"),
    ({"labels": {"region": 1}}, "labels={'region': 1} is not a string that UTF-8 can hold"),
    ({"buckets": [1, 2]}, "buckets=[1, 2] is not a mapping of histogram name to edges"),
    (
        {"buckets": {"inference_duratio": [1]}},
        "buckets={'inference_duratio': ...} names no histogram, did you mean 'inference_duration'?",
    ),
    (
        {"buckets": {"inference_duration": [1, 3, 2]}},
        "buckets={'inference_duration': [1, 3, 2]} are not finite edges in strictly rising order",
    ),
    (
        {"buckets": {"inference_duration": [1, 1]}},
        "buckets={'inference_duration': [1, 1]} are not finite edges in strictly rising order",
    ),
    (
        {"buckets": {"inference_duration": []}},
        "buckets={'inference_duration': []} are not finite edges in strictly rising order",
    ),
    (
        {"buckets": {"inference_duration": ["a"]}},
        "buckets={'inference_duration': ['a']} is not a sequence of numbers",
    ),
    ({"histograms": "sparse"}, """histograms='sparse' is none of "classic", "native" and "both\""""),
    (
        {"histograms": {"inference_duration": 3}},
        """histograms={'inference_duration': 3} is none of "classic", "native" and "both\"""",
    ),
    (
        {"histograms": {"objects_per_frame": "native"}},
        "histograms={'objects_per_frame': ...} is always classic, expected another family",
    ),
    (
        {"histograms": {"inference_durations": "native"}},
        "histograms={'inference_durations': ...} names no histogram, did you mean 'inference_duration'?",
    ),
    ({"max_native_buckets": 0}, "max_native_buckets=0 is not a whole number of 1 or more"),
    ({"max_series": 0}, "max_series=0 is not a whole number of 1 or more"),
    ({"max_label_values": 1.5}, "max_label_values={'model': 1.5} is not a whole number of 1 or more"),
    (
        {"max_label_values": {"region": 5}},
        "max_label_values={'region': ...} limits no label, did you mean 'version'?",
    ),
]


@pytest.mark.parametrize(("options", "expected"), MISTAKES, ids=[next(iter(options)) for options, _ in MISTAKES])
def test_mistakes_in_options_get_one_sentence(options: dict[str, Any], expected: str) -> None:
    """It names the value and what was expected, and nothing is half configured."""
    recorder = Recorder(registry=CollectorRegistry(), service="before")
    settings = recorder.settings
    with pytest.raises(ConfigError) as raised:
        recorder.configure(**options)
    assert str(raised.value) == expected
    assert recorder.settings is settings
    with pytest.raises(ConfigError) as raised:
        Recorder(**options)
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": ""}, "track(model='') is not a non-empty string"),
        ({"model": 8}, "track(model=8) is not a non-empty string"),
        ({"model": "m", "version": 2}, "track(version=2) is not a string"),
        (
            {"model": "m", "colour": 1},
            "track() has no option 'colour', expected one of model, version, detections, names, cost, stream",
        ),
        ({"model": "m", "stream": "token"}, 'track(stream=\'token\') is neither "call" nor "item"'),
        ({"model": "m", "stream": ["item"]}, 'track(stream=[\'item\']) is neither "call" nor "item"'),
        ({"model": "m", "names": "face"}, "track(names='face') is not a mapping or list of class names"),
        ({"model": "m", "names": 5}, "track(names=5) is not a mapping or list of class names"),
        (
            {"model": "m", "detections": "autos"},
            "track(detections='autos') is neither a callable on the result nor \"auto\"",
        ),
        ({"model": "m", "cost": 1}, "cost=1 is not a CostModel, for example CostModel(usd_per_hour=2.10)"),
    ],
)
def test_mistakes_in_track_get_one_sentence(recorder: Recorder, options: dict[str, Any], expected: str) -> None:
    """They are raised where the model is declared, not when it infers."""
    with pytest.raises(ConfigError) as raised:
        recorder.track(**options)
    assert str(raised.value) == expected


def test_configuring_after_the_first_inference_is_refused(recorder: Recorder) -> None:
    """Series that exist cannot change their labels or buckets."""
    with recorder.track(model="m"):
        pass
    with pytest.raises(ConfigError, match=r"^configure\(service\) came after the first inference was recorded"):
        recorder.configure(service="other")


def test_configuring_after_decorating_and_scraping_is_fine(recorder: Recorder, scrape: Scrape) -> None:
    """Modules decorate when they are imported, `main` configures, and a scrape may come between."""
    function = recorder.track(model="m")(lambda: None)
    assert scrape(recorder).by("service", "inferences_total") == {"test": 0}
    recorder.configure(service="other", labels={"region": "eu"})
    function()
    assert scrape(recorder).by("region", "inferences_total", service="other") == {"eu": 1}


@pytest.mark.parametrize("kind", ["histogram", "counter"])
def test_a_registry_that_holds_a_name_is_refused(kind: str) -> None:
    """The sentence says which metric clashes; the registry that worked before stays."""
    taken, free = CollectorRegistry(), CollectorRegistry()
    if kind == "histogram":
        Histogram("inference_duration", "mine", registry=taken)
    else:
        Counter("inferences", "mine", registry=taken)
    recorder = Recorder(registry=free, service="test")
    recorder.track(model="m")
    with pytest.raises(ConfigError, match=r"already holds a metric of a name that infermeter uses .*inference"):
        recorder.configure(registry=taken)
    with pytest.raises(ConfigError, match=r"already holds a metric of a name that infermeter uses .*inference"):
        recorder.register(taken)
    with pytest.raises(ConfigError, match=r"already holds a metric of a name that infermeter uses .*inference"):
        Recorder(registry=taken).track(model="m")
    assert b"infermeter_build_info" in generate_latest(free)


def test_the_registry_can_be_changed_before_the_first_inference() -> None:
    """The families move; the old registry no longer has them."""
    old, new = CollectorRegistry(), CollectorRegistry()
    recorder = Recorder(registry=old, service="test")
    recorder.track(model="m")
    recorder.configure(registry=new)
    assert (generate_latest(old) == b"", b"infermeter_build_info" in generate_latest(new)) == (True, True)


def test_custom_buckets_replace_the_default_ones(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """Infinity may be spelled out; other histograms keep theirs."""
    recorder = new_recorder(buckets={"detection_confidence": [0.5, 1, float("inf")]})
    with recorder.track(model="m") as call:
        call.detections([0.5, 0.75])
    page = scrape(recorder)
    assert page.by("le", "detection_confidence_bucket") == {"0.5": 1, "1.0": 2, "+Inf": 2}
    assert len(page.by("le", "inference_duration_bucket")) == 16


def test_the_environment_names_the_service(run_python: RunPython) -> None:
    """INFERMETER_SERVICE wins over OTEL_SERVICE_NAME, and `configure` over both."""
    program = """
        import infermeter, prometheus_client
        infermeter.configure({options})
        with infermeter.track(model="m"): pass
        print([sample.labels["service"] for metric in prometheus_client.REGISTRY.collect() for sample in metric.samples
               if sample.name == "inferences_total"])
    """
    both = {"INFERMETER_SERVICE": "ours", "OTEL_SERVICE_NAME": "theirs"}
    assert run_python(program.format(options=""), environment=both) == "['ours']\n"
    assert run_python(program.format(options=""), environment={"OTEL_SERVICE_NAME": "theirs"}) == "['theirs']\n"
    assert run_python(program.format(options="service='given'"), environment=both) == "['given']\n"


def test_an_unnamed_service_is_warned_about_once(run_python: RunPython) -> None:
    """A name that cannot be used is named in the log, and does not stop the service."""
    printed = run_python(
        """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
        import infermeter
        for _ in range(3):
            with infermeter.track(model="m"): pass
            with infermeter.track(model="n"): pass
        """,
        environment={"OTEL_SERVICE_NAME": "_reserved"},
    )
    assert printed.splitlines() == [
        "WARNING ignoring the environment variable OTEL_SERVICE_NAME: service='_reserved' is not a non-empty string "
        "that begins with anything but an underscore",
        "WARNING no service name: set INFERMETER_SERVICE or call infermeter.configure(service=...); using "
        "'unknown_service'",
    ]


def test_a_port_in_use_gets_one_sentence(recorder: Recorder) -> None:
    """It names the port and the address."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^port {port} on 127\.0\.0\.1 is in use, expected a free one"):
            recorder.serve(port, addr="127.0.0.1")


@pytest.mark.parametrize("port", [-1, 65536, "8002", 80.5, True])
def test_what_is_no_port_gets_one_sentence(recorder: Recorder, port: Any) -> None:
    """It names what was given."""
    with pytest.raises(ConfigError) as raised:
        recorder.serve(port, addr="127.0.0.1")
    assert str(raised.value) == f"serve({port!r}) is not a port number of 0 to 65535"


def test_an_address_of_another_host_gets_one_sentence(recorder: Recorder) -> None:
    """192.0.2.1 belongs to nobody."""
    with pytest.raises(ConfigError, match=r"^cannot serve on '192\.0\.2\.1' port 0: "):
        recorder.serve(0, addr="192.0.2.1")


async def page_of_asgi(app: Any) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return (await client.get("/metrics")).text


def test_every_way_of_serving_gives_the_same_page(recorder: Recorder) -> None:
    """The server, both applications and a second registry show the same samples."""
    import asyncio

    second = CollectorRegistry()
    recorder.register(second)
    with recorder.track(model="m") as call:
        call.detections([0.5], classes=["face"])

    def comparable(text: str) -> list[str]:
        return [line for line in text.splitlines() if "infermeter_fold_seconds" not in line]

    expected = comparable(generate_latest(second).decode())
    assert any(line.startswith("detections_total{") for line in expected)
    with recorder.serve(0, addr="127.0.0.1") as server:
        assert comparable(httpx.get(f"http://127.0.0.1:{server.port}/metrics").text) == expected
    assert comparable(asyncio.run(page_of_asgi(recorder.asgi_app()))) == expected
    with httpx.Client(transport=httpx.WSGITransport(recorder.wsgi_app()), base_url="http://test") as client:
        assert comparable(client.get("/metrics").text) == expected


def test_closing_a_server_frees_its_port(recorder: Recorder) -> None:
    """The same port can be served again at once."""
    server = recorder.serve(0, addr="127.0.0.1")
    port = server.port
    server.close()
    server.close()
    with recorder.serve(port, addr="127.0.0.1") as again:
        assert again.port == port


def test_module_level_verbs_share_one_recorder() -> None:
    """`infermeter.track` and the others belong together."""
    verbs = [infermeter.track, infermeter.configure, infermeter.serve, infermeter.asgi_app, infermeter.register]
    assert len({verb.__self__ for verb in verbs}) == 1  # type: ignore[attr-defined]


def test_prices_are_set_for_every_model(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """`configure(cost=)` holds for models without a price of their own."""
    recorder = new_recorder(cost=CostModel(usd_per_hour=3600))
    track = recorder.track(model="m")
    track.finish(track.begin(), 0.25)
    assert scrape(recorder).value("inference_cost_sum") == 0.25
