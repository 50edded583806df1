"""Endpoints of FastAPI and Starlette: the templates of routes, never paths, however the applications are built."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.web import ask, gauge, http_scope, needed, requests

if TYPE_CHECKING:
    from infermeter import Recorder

fastapi = needed("fastapi")
routing, responses = needed("starlette.routing"), needed("starlette.responses")
Host, Mount, Route, Router = routing.Host, routing.Mount, routing.Route, routing.Router
PlainTextResponse, StreamingResponse = responses.PlainTextResponse, responses.StreamingResponse
Starlette: Any = needed("starlette.applications").Starlette
BaseHTTPMiddleware: Any = needed("starlette.middleware.base").BaseHTTPMiddleware
BackgroundTask: Any = needed("starlette.background").BackgroundTask


async def answer(_request: Any) -> Any:
    """An endpoint that several routes share."""
    return PlainTextResponse("yes")


async def opaque(_scope: Any, _receive: Any, send: Any) -> None:
    """An application that has no routes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"opaque"})


def inner() -> Any:
    """What is mounted."""
    return Starlette(routes=[Route("/of/{name}", answer), Route("/", answer)])


def starlette_app() -> Any:
    """Mounts in mounts, one application mounted twice, one endpoint of two routes, a host, something opaque."""
    twice = inner()
    return Starlette(
        routes=[
            Route("/one/{key:int}", answer),
            Route("/two/{key}", answer, methods=["POST"]),
            Mount("/first", app=twice),
            Mount("/second/{tenant}", app=twice),
            Mount("/deep", routes=[Mount("/deeper/{level}", app=inner()), Route("/here", answer)]),
            Mount("/opaque", app=opaque),
            Mount("/wrapped", app=BaseHTTPMiddleware(inner(), dispatch=passing)),
            Host("{customer}.example.org", app=Router([Route("/hosted/{page}", answer)])),
        ]
    )


async def passing(request: Any, call_next: Any) -> Any:
    """A middleware that does nothing."""
    return await call_next(request)


def fastapi_app() -> Any:
    """Routers in routers with prefixes, one of them included twice, and an application mounted."""
    app, sub = fastapi.FastAPI(), fastapi.FastAPI()
    outer, deep = fastapi.APIRouter(prefix="/v1"), fastapi.APIRouter(prefix="/deep")

    async def item(item_id: int) -> int:
        return item_id

    app.get("/items/{item_id}")(item)
    app.get("/same/{item_id}")(item)
    outer.get("/items/{item_id}")(item)
    outer.add_route("/plain/{name}", answer)
    deep.post("/files/{path:path}")(answer_fastapi)
    outer.include_router(deep)
    app.include_router(outer, prefix="/api")
    app.include_router(outer, prefix="/other")
    sub.get("/of/{item_id}")(item)
    app.mount("/sub", sub)
    return app


async def answer_fastapi(path: str) -> str:
    """An endpoint of FastAPI."""
    return path


CASES = [
    (starlette_app, "GET", "/one/5", "/one/{key:int}", 200),
    (starlette_app, "HEAD", "/one/5", "/one/{key:int}", 200),
    (starlette_app, "POST", "/two/x", "/two/{key}", 200),
    (starlette_app, "GET", "/two/x", "/two/{key}", 405),
    (starlette_app, "GET", "/one/x", "_unmatched", 404),
    (starlette_app, "GET", "/first/of/a", "/first/of/{name}", 200),
    (starlette_app, "GET", "/first/", "/first/", 200),
    (starlette_app, "GET", "/second/acme/of/b", "/second/{tenant}/of/{name}", 200),
    (starlette_app, "GET", "/second/acme/none", "_unmatched", 404),
    (starlette_app, "GET", "/deep/deeper/3/of/c", "/deep/deeper/{level}/of/{name}", 200),
    (starlette_app, "GET", "/deep/here", "/deep/here", 200),
    (starlette_app, "GET", "/deep/nowhere", "_unmatched", 404),
    (starlette_app, "GET", "/opaque/any/thing", "/opaque", 200),
    (starlette_app, "GET", "/wrapped/of/d", "/wrapped/of/{name}", 200),
    (starlette_app, "GET", "/first", "_unmatched", 307),
    (fastapi_app, "GET", "/items/5", "/items/{item_id}", 200),
    (fastapi_app, "GET", "/items/x", "/items/{item_id}", 422),
    (fastapi_app, "POST", "/items/5", "/items/{item_id}", 405),
    (fastapi_app, "GET", "/same/5", "/same/{item_id}", 200),
    (fastapi_app, "GET", "/api/v1/items/5", "/api/v1/items/{item_id}", 200),
    (fastapi_app, "GET", "/other/v1/items/5", "/other/v1/items/{item_id}", 200),
    (fastapi_app, "GET", "/other/plain/n", "/other/plain/{name}", 200),
    (fastapi_app, "POST", "/api/v1/deep/files/a/b", "/api/v1/deep/files/{path:path}", 200),
    (fastapi_app, "GET", "/sub/of/5", "/sub/of/{item_id}", 200),
    (fastapi_app, "GET", "/sub/none", "_unmatched", 404),
    (fastapi_app, "GET", "/docs", "/docs", 200),
    (fastapi_app, "GET", "/none", "_unmatched", 404),
]


@pytest.mark.parametrize("way", ["around", "added"])
@pytest.mark.parametrize(("make", "method", "path", "endpoint", "status"), CASES)
def test_endpoints_are_templates(
    recorder: Recorder, make: Any, method: str, path: str, endpoint: str, status: int, way: str
) -> None:
    """With all prefixes, the same at the first request as later."""
    app = make()
    if way == "around":
        app = recorder.asgi_middleware(app)
    else:
        app.add_middleware(recorder.asgi_middleware)
    for _ in range(3):
        sent = asyncio.run(ask(app, http_scope(method, path)))
        assert sent[0]["status"] == status

    assert requests(recorder) == {(method, endpoint, str(status)): 3}
    assert gauge(recorder) == 0


def test_many_endpoints_of_one_application(recorder: Recorder) -> None:
    """What one request was answered by is not taken for what answers another one."""
    apps = {make: recorder.asgi_middleware(make()) for make, *_ in CASES}
    expected: dict[Any, int] = {}
    for make, method, path, endpoint, status in CASES * 3:
        asyncio.run(ask(apps[make], http_scope(method, path)))
        key = (method, endpoint, str(status))
        expected[key] = expected.get(key, 0) + 1

    assert requests(recorder) == expected


def test_routes_of_a_host(recorder: Recorder) -> None:
    """Have no prefix, for the host is no part of the path."""
    scope = http_scope(path="/hosted/p")
    scope["headers"] = [(b"host", b"acme.example.org:8080")]
    asyncio.run(ask(recorder.asgi_middleware(starlette_app()), scope))

    assert requests(recorder) == {("GET", "/hosted/{page}", "200"): 1}


def test_a_middleware_that_answers_itself(recorder: Recorder) -> None:
    """Counts for the route that would have answered; what no route would, for none."""

    async def refusing(_request: Any, _call_next: Any) -> Any:
        return PlainTextResponse("no", 429)

    app = fastapi_app()
    app.add_middleware(BaseHTTPMiddleware, dispatch=refusing)
    app.add_middleware(recorder.asgi_middleware)
    for path in ("/items/5", "/sub/of/5", "/nowhere"):
        asyncio.run(ask(app, http_scope(path=path)))

    assert requests(recorder) == {
        ("GET", "/items/{item_id}", "429"): 1,
        ("GET", "/sub/of/{item_id}", "429"): 1,
        ("GET", "_unmatched", "429"): 1,
    }


def test_only_a_mounted_application_is_watched(recorder: Recorder) -> None:
    """Its endpoints have the prefix all the same."""
    app = Starlette(routes=[Mount("/sub/{x}", app=recorder.asgi_middleware(inner())), Route("/other", answer)])
    for path in ("/sub/1/of/a", "/other"):
        asyncio.run(ask(app, http_scope(path=path)))

    assert requests(recorder) == {("GET", "/sub/{x}/of/{name}", "200"): 1}


def test_a_root_path_is_no_part_of_an_endpoint(recorder: Recorder) -> None:
    """It is what a proxy cuts off; where one application is mounted twice the path decides."""
    app, sub = fastapi.FastAPI(), fastapi_app()
    app.mount("/sub", sub)
    app.mount("/again", sub)
    # Servers and Starlette agreed late that a path begins with the root path.
    begin = "/proxied" if hasattr(needed("starlette._utils"), "get_route_path") else ""
    for path in (begin + "/sub/items/1", begin + "/again/items/1"):
        asyncio.run(ask(recorder.asgi_middleware(app), http_scope(path=path) | {"root_path": "/proxied"}))

    assert requests(recorder) == {
        ("GET", "/sub/items/{item_id}", "200"): 1,
        ("GET", "/again/items/{item_id}", "200"): 1,
    }


def test_routes_that_are_added_later(recorder: Recorder) -> None:
    """Are known like the others."""
    app = fastapi.FastAPI()
    watched = recorder.asgi_middleware(app)
    for name in ("a", "b"):
        app.get(f"/{name}/{{path}}")(answer_fastapi)
        asyncio.run(ask(watched, http_scope(path=f"/{name}/1")))

    assert requests(recorder) == {("GET", "/a/{path}", "200"): 1, ("GET", "/b/{path}", "200"): 1}


def test_an_exception_of_an_endpoint(recorder: Recorder) -> None:
    """Is 500, and reaches the server as it did."""
    error = ValueError("broken")

    async def failing(_request: Any) -> Any:
        raise error

    app = Starlette(routes=[Route("/fails/{how}", failing)])
    with pytest.raises(ValueError, match="broken") as caught:
        asyncio.run(ask(recorder.asgi_middleware(app), http_scope(path="/fails/badly")))
    assert caught.value is error
    assert requests(recorder) == {("GET", "/fails/{how}", "500"): 1}


def test_streams_and_background_tasks(recorder: Recorder) -> None:
    """A stream is in flight until its end; a task after the response is not."""
    seen = []

    async def parts() -> Any:
        for part in (b"a", b"b"):
            seen.append(gauge(recorder))
            yield part

    async def stream(_request: Any) -> Any:
        return StreamingResponse(parts(), background=BackgroundTask(lambda: seen.append(gauge(recorder))))

    app = recorder.asgi_middleware(Starlette(routes=[Route("/stream", stream)]))
    asyncio.run(ask(app, http_scope(path="/stream")))
    assert seen == [1, 1, 0]
    assert requests(recorder) == {("GET", "/stream", "200"): 1}


def test_connections_of_starlette(recorder: Recorder) -> None:
    """Are active while their endpoint talks."""
    seen = []

    async def talk(websocket: Any) -> None:
        await websocket.accept()
        seen.append(gauge(recorder, "websocket_connections_active"))
        await websocket.close()
        seen.append(gauge(recorder, "websocket_connections_active"))

    app = recorder.asgi_middleware(Starlette(routes=[routing.WebSocketRoute("/talk/{name}", talk)]))
    for path in ("/talk/a", "/refused"):
        scope = http_scope(path=path) | {"type": "websocket", "subprotocols": []}
        asyncio.run(ask(app, scope, [{"type": "websocket.connect"}]))

    assert seen == [1, 0]
    assert requests(recorder) == {}


def test_what_is_known_of_applications_goes_with_them(recorder: Recorder) -> None:
    """Nothing of ours keeps a route alive, and none is taken for one that had its place in memory."""
    import gc
    import weakref

    app = recorder.asgi_middleware(opaque)
    for name in ("a", "b", "c"):
        inside = Starlette(routes=[Route(f"/{name}/{{x}}", answer)])
        app.app = inside  # as an integration does: one watches many
        asyncio.run(ask(app, http_scope(path=f"/{name}/1")))
        alive = weakref.ref(inside.routes[0])
        app.app = opaque
        del inside
        gc.collect()
        assert alive() is None

    assert requests(recorder) == {("GET", f"/{name}/{{x}}", "200"): 1 for name in ("a", "b", "c")}
