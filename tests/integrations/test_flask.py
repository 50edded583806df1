"""Flask is watched without a change to the code that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tests.integrations.web_contract import WebContract
from tests.web import needed

if TYPE_CHECKING:
    from infermeter import Recorder

flask = needed("flask")
Client: Any = needed("werkzeug.test").Client


class TestFlask(WebContract):
    """The contract."""

    integration = "flask"
    owner = flask.Flask
    uses: ClassVar[list[tuple[str, str, str, int]]] = [
        ("GET", "/items/5", "/items/<int:item_id>", 200),
        ("GET", "/teapot", "/teapot", 418),
        ("POST", "/none", "_unmatched", 404),
    ]

    def app(self) -> Any:
        app = flask.Flask(__name__)
        app.route("/items/<int:item_id>", endpoint="item")(lambda **named: str(named))
        app.route("/teapot", endpoint="teapot")(lambda: ("short and stout", 418))
        app.route("/excluded", endpoint="excluded")(lambda: "yes")
        return app

    def ask(self, app: Any, method: str, path: str) -> tuple[int, bytes]:
        with Client(app).open(path, method=method) as response:
            return response.status_code, response.data

    def by_hand(self, recorder: Recorder, app: Any) -> Any:
        app.wsgi_app = recorder.wsgi_middleware(app.wsgi_app, exclude=["/excluded"])
        return app
