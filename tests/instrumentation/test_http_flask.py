"""Endpoints of Flask: the rules of routes, never paths, however applications are put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.instrumentation.test_wsgi import ask
from tests.web import gauge, needed, requests

if TYPE_CHECKING:
    from infermeter import Recorder

flask = needed("flask")
DispatcherMiddleware: Any = needed("werkzeug.middleware.dispatcher").DispatcherMiddleware
ProxyFix: Any = needed("werkzeug.middleware.proxy_fix").ProxyFix


def flask_app() -> Any:
    """A blueprint with a prefix, an error handler, a stream and a failure."""
    app = flask.Flask(__name__)
    blueprint = flask.Blueprint("api", __name__, url_prefix="/api/<version>")
    blueprint.route("/items/<int:item_id>", endpoint="item")(lambda version, item_id: f"{version} {item_id}")
    app.register_blueprint(blueprint)
    app.route("/stream/<name>", endpoint="stream")(lambda name: (part for part in ("a", "b", name)))
    app.route("/teapot", endpoint="teapot")(lambda: ("short and stout", 418))
    app.route("/fails/<how>")(fails)
    app.route("/upload", methods=["POST"], endpoint="upload")(lambda: str(len(flask.request.data)))
    return app


def fails(how: str) -> str:
    """An endpoint that fails."""
    raise ValueError(how)


@pytest.mark.parametrize(
    ("method", "path", "endpoint", "status"),
    [
        ("GET", "/api/v1/items/5", "/api/<version>/items/<int:item_id>", 200),
        ("HEAD", "/api/v1/items/5", "/api/<version>/items/<int:item_id>", 200),
        ("GET", "/api/v1/items/x", "_unmatched", 404),
        ("GET", "/stream/c", "/stream/<name>", 200),
        ("GET", "/teapot", "/teapot", 418),
        ("GET", "/fails/badly", "/fails/<how>", 500),
        ("GET", "/none", "_unmatched", 404),
        ("GET", "/static/none.css", "/static/<path:filename>", 404),
    ],
)
@pytest.mark.parametrize("way", ["around", "inside"])
def test_endpoints_are_rules(
    recorder: Recorder, method: str, path: str, endpoint: str, status: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same at the first request as later."""
    app = flask_app()
    monkeypatch.setattr(app.logger, "disabled", True)
    if way == "around":
        watched = recorder.wsgi_middleware(app)
    else:
        app.wsgi_app = recorder.wsgi_middleware(app.wsgi_app)
        watched = app
    for _ in range(2):
        assert f" {status} ".encode() in ask(watched, REQUEST_METHOD=method, PATH_INFO=path).splitlines()[0] + b" "

    assert requests(recorder) == {(method, endpoint, str(status)): 2}
    assert gauge(recorder) == 0


@pytest.mark.parametrize(("path", "endpoint"), [("/fails/badly", "/fails/<how>"), ("/teapot", "/teapot")])
def test_an_exception_that_flask_lets_through(recorder: Recorder, path: str, endpoint: str) -> None:
    """Flask has forgotten then what it matched."""
    app = flask_app()
    app.testing = True
    app.before_request(lambda: fails("first"))
    with pytest.raises(ValueError, match="first"):
        recorder.wsgi_middleware(app)({"REQUEST_METHOD": "GET", "PATH_INFO": path} | _SERVER, lambda *_: None)

    assert requests(recorder) == {("GET", endpoint, "500"): 1}


_SERVER: dict[str, Any] = {"SERVER_NAME": "test", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "SCRIPT_NAME": ""}


def test_what_is_dispatched_to(recorder: Recorder) -> None:
    """Has the prefix under which it is, with routes of its own or without."""

    def opaque(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"opaque"]

    app = flask_app()
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": opaque, "/sub": flask_app()})
    watched = recorder.wsgi_middleware(app)
    for path in ("/metrics/any", "/sub/stream/c", "/stream/c", "/sub/none"):
        ask(watched, PATH_INFO=path)

    assert requests(recorder) == {
        ("GET", "/metrics", "200"): 1,
        ("GET", "/sub/stream/<name>", "200"): 1,
        ("GET", "/stream/<name>", "200"): 1,
        ("GET", "_unmatched", "404"): 1,
    }


def test_what_a_header_makes_a_prefix_of_is_none(recorder: Recorder) -> None:
    """A client could make up any number of them."""
    app = flask_app()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)
    watched = recorder.wsgi_middleware(app)
    for name in ("a", "b"):
        ask(watched, PATH_INFO="/teapot", HTTP_X_FORWARDED_PREFIX=f"/{name}")

    assert requests(recorder) == {("GET", "/teapot", "418"): 2}
