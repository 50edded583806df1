"""Starlette is watched without a change to the code that uses it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from tests.integrations.web_contract import WebContract
from tests.web import ask, http_scope, needed

if TYPE_CHECKING:
    from infermeter import Recorder

starlette = needed("starlette.applications")
routing, responses = needed("starlette.routing"), needed("starlette.responses")


async def answer(request: Any) -> Any:
    """An endpoint."""
    return responses.PlainTextResponse(request.url.path)


class TestStarlette(WebContract):
    """The contract."""

    integration = "starlette"
    owner = starlette.Starlette
    uses: ClassVar[list[tuple[str, str, str, int]]] = [
        ("GET", "/one/5", "/one/{key}", 200),
        ("POST", "/one/5", "/one/{key}", 405),
        ("GET", "/sub/acme/two/5", "/sub/{tenant}/two/{key}", 200),
        ("GET", "/none", "_unmatched", 404),
    ]

    def app(self) -> Any:
        inner = starlette.Starlette(routes=[routing.Route("/two/{key}", answer)])
        routes = [routing.Route("/one/{key}", answer), routing.Mount("/sub/{tenant}", app=inner)]
        return starlette.Starlette(routes=[*routes, routing.Route("/excluded", answer)])

    def ask(self, app: Any, method: str, path: str) -> tuple[int, bytes]:
        sent = asyncio.run(ask(app, http_scope(method, path)))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)

    def by_hand(self, recorder: Recorder, app: Any) -> Any:
        app.add_middleware(recorder.asgi_middleware, exclude=["/excluded"])
        return recorder.asgi_middleware(app)
