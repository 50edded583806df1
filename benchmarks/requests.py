"""What watching HTTP requests adds to each: this library beside the usual exporters, in one run, without a network.

The same application of each framework is asked as it is, with our middleware, and if they are installed with
prometheus-fastapi-instrumentator or prometheus-flask-exporter; their turns alternate, so that all see the same state of
the machine. Needs fastapi and flask.
"""

import asyncio
import gc
import importlib
import io
import statistics
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.promises import Promise, conclude, parser
from infermeter import Recorder

_TURN = 200
_WARM = 2
_MOST = 1 / 5  # of what the other one adds

Ask = Callable[[], None]


def fastapi_app() -> Any:
    app = importlib.import_module("fastapi").FastAPI()

    async def item(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    app.get("/items/{item_id}")(item)
    return app


def flask_app() -> Any:
    app = importlib.import_module("flask").Flask("requests")
    app.route("/items/<int:item_id>")(lambda item_id: {"item": item_id})
    return app


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message: Any) -> None:
    pass


async def ask_asgi(app: Any) -> None:
    """A turn: requests one after the other, each as a server makes its scope."""
    for number in range(_TURN):
        path = f"/items/{number}"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost"), (b"user-agent", b"b"), (b"accept", b"*/*"), (b"connection", b"close")],
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        await app(scope, receive, send)


def ask_wsgi(app: Any) -> None:
    """A turn, the same."""
    for number in range(_TURN):
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": f"/items/{number}",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        body = app(environ, lambda *_: None)
        for _ in body:
            pass
        body.close()


def instrumentator() -> Any:
    """The FastAPI application with prometheus-fastapi-instrumentator as its documentation has it."""
    app = fastapi_app()
    module = importlib.import_module("prometheus_fastapi_instrumentator")
    module.Instrumentator(registry=CollectorRegistry()).instrument(app)
    return app


def exporter() -> Any:
    """The Flask application with prometheus-flask-exporter as its documentation has it."""
    app = flask_app()
    importlib.import_module("prometheus_flask_exporter").PrometheusMetrics(app, registry=CollectorRegistry())
    return app


def measured(rounds: int, asks: dict[str, Ask]) -> dict[str, float]:
    """The median time of a request of each, in microseconds."""
    taken: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(rounds + _WARM):
        for name, ask in asks.items():
            gc.collect()
            started = perf_counter()
            ask()
            if number >= _WARM:
                taken[name].append((perf_counter() - started) / _TURN * 1e6)
    return {name: statistics.median(times) for name, times in taken.items()}


def asks_of(recorder: Recorder, framework: str) -> dict[str, Ask]:
    """The ways to ask an application of a framework: bare, ours, and theirs if it is installed."""
    asgi = framework == "fastapi"
    other = instrumentator if asgi else exporter
    apps = (
        {"bare": fastapi_app(), "infermeter": recorder.asgi_middleware(fastapi_app())}
        if asgi
        else {"bare": flask_app(), "infermeter": recorder.wsgi_middleware(flask_app())}
    )
    try:
        apps[other.__name__] = other()
    except ImportError as error:
        print(f"{framework}: {error.name} is not installed, so there is nothing to compare with")

    def ask(app: Any) -> Ask:
        return (lambda: asyncio.run(ask_asgi(app))) if asgi else (lambda: ask_wsgi(app))

    return {name: ask(app) for name, app in apps.items()}


def main() -> int:
    options = parser(__doc__ or "", 40).parse_args()
    recorder = Recorder(service="benchmark", registry=CollectorRegistry())
    figures: dict[str, Any] = {}
    promises: list[Promise] = []
    short = []
    for framework, promised in (("fastapi", True), ("flask", False)):
        asks = asks_of(recorder, framework)
        found = measured(options.rounds, asks)
        figures[framework] = found
        bare = found["bare"]
        print(f"{framework}: {bare:.1f} us a request")
        added = {name: time - bare for name, time in found.items() if name != "bare"}
        for name, time in added.items():
            print(f"  {name:<16} +{time:.1f} us")
        ours = added.pop("infermeter")
        for name, time in added.items():
            print(f"  {time / ours:.1f} times less than {name}")
            if promised:
                promises.append((f"{framework}: share of what {name} adds", ours / time, "<=", _MOST))
        if promised and not added:
            short.append(f"{framework}: nothing to compare with")
    counted = recorder.text(open_metrics=False).decode().count('status="200"')
    if counted != len(figures):
        short.append(f"{counted} endpoints were counted, expected {len(figures)}")
    return conclude(options, figures, promises, short)


if __name__ == "__main__":
    sys.exit(main())
