"""FastAPI is watched without a change to the code that uses it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.integrations.web_contract import WebContract
from tests.web import ask, http_scope, needed, requests

if TYPE_CHECKING:
    from infermeter import Recorder

fastapi = needed("fastapi")


def item(item_id: int) -> int:
    """An endpoint."""
    return item_id


class TestFastApi(WebContract):
    """The contract."""

    integration = "fastapi"
    owner = fastapi.FastAPI
    uses: ClassVar[list[tuple[str, str, str, int]]] = [
        ("GET", "/items/5", "/items/{item_id}", 200),
        ("GET", "/items/x", "/items/{item_id}", 422),
        ("GET", "/v1/items/5", "/v1/items/{item_id}", 200),
        ("GET", "/sub/items/5", "/sub/items/{item_id}", 200),
        ("DELETE", "/none", "_unmatched", 404),
    ]

    def app(self) -> Any:
        app, sub, router = fastapi.FastAPI(), fastapi.FastAPI(), fastapi.APIRouter()
        for owner in (app, sub, router):
            owner.get("/items/{item_id}")(item)
        app.get("/excluded")(lambda: "yes")
        app.include_router(router, prefix="/v1")
        app.mount("/sub", sub)
        return app

    def ask(self, app: Any, method: str, path: str) -> tuple[int, bytes]:
        sent = asyncio.run(ask(app, http_scope(method, path)))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)

    def by_hand(self, recorder: Recorder, app: Any) -> Any:
        app.add_middleware(recorder.asgi_middleware, exclude=["/excluded"])
        return recorder.asgi_middleware(app)

    @pytest.mark.parametrize("names", [("starlette",), ("fastapi", "starlette"), ("starlette", "fastapi")])
    def test_it_is_starlette_too(self, recorder: Recorder, names: tuple[str, ...]) -> None:
        """Whichever of the two is watched, or both: each request is counted once, and all is given back."""
        module = needed("starlette.applications")
        before = [vars(owner).get("__call__") for owner in (self.owner, module.Starlette)]
        for name in names:
            recorder.instrument(name)
        self.outcome(self.app())
        assert requests(recorder) == self.expected()
        for name in names:
            recorder.uninstrument(name)
        assert [vars(owner).get("__call__") for owner in (self.owner, module.Starlette)] == before
