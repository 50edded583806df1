"""The endpoint of a request to an ASGI application: the template of the route that answered it, never its path.

Routers of Starlette and FastAPI leave in the scope what they matched, so nothing is matched a second time: the template
of that, with the prefixes of the mounts and routers around it, is looked up in the tree of routes once and remembered.
Only where what was matched stands in the tree more than once, or where a middleware answered before any router, is the
path matched here.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from infermeter.traffic import UNMATCHED, UNROUTED

# Mounts in mounts, and middlewares around an application.
_DEEPEST = 20
_MOST_KNOWN = 10_000

_Scope = Mapping[str, Any]
Matched = tuple[int, int, int, int]


class _Leaf(NamedTuple):
    """What a request may end at.

    Attributes:
        endpoint: what the scope names then.
        route: to which it belongs.
        context: how FastAPI included that, if it did.
        template: of the whole path; None for an application that has routes of its own.
    """

    endpoint: Any
    route: Any
    context: Any
    template: str | None


def matched(scope: _Scope) -> Matched:
    """What the routers matched, as numbers that tell one from another as long as it lives."""
    context = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
    get = scope.get
    return id(get("endpoint")), id(get("route")), id(context), id(get("router"))


class Endpoints:
    """Tells endpoints, and remembers them as long as their routes live.

    Args:
        forget: called when one of those is gone.
    """

    def __init__(self, forget: Callable[[], None]) -> None:
        self._forget = forget
        self._known: dict[Matched, tuple[str | None, list[Any]]] = {}

    def of(self, scope: _Scope, path: str, app: Any) -> tuple[str, bool]:
        """The endpoint of a request that was answered, and whether it is that of all for which the same was matched.

        Args:
            scope: as the application left it.
            path: as it was in the scope at first; old releases of Starlette cut it at mounts.
            app: the application.
        """
        endpoint, router = scope.get("endpoint"), scope.get("router")
        if endpoint is None:
            if router is not None:
                return UNMATCHED, False
            # A middleware answered, or there is no router at all.
            routes = _routes(scope.get("app"))
            if routes is None:
                routes = _routes(app)
            return UNROUTED if routes is None else _searched(routes, scope, path), False
        route = scope.get("route")
        context = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
        key = matched(scope)
        try:
            template = self._known[key][0]
        except KeyError:
            template = self._learnt(key, endpoint, route, context, router)
        if template is not None:
            return template, key in self._known
        routes = _routes(router)
        return UNROUTED if routes is None else _searched(routes, scope, path), False

    def _learnt(self, key: Matched, endpoint: Any, route: Any, context: Any, router: Any) -> str | None:
        """The template of what was matched; None where that does not tell it."""
        leaves = [leaf for leaf in _leaves(_routes(router) or [], "", 0) if leaf.endpoint is endpoint]
        # The scope may name the route of a mount around, so these two tell only where they fit.
        for some in (
            [leaf for leaf in leaves if context is not None and leaf.context is context],
            [leaf for leaf in leaves if route is not None and leaf.route is route],
        ):
            if some:
                leaves = some
                break
        found = {leaf.template for leaf in leaves}
        template = found.pop() if len(found) == 1 else None
        # What is made anew for each request must not be kept, and what is gone not be taken for something new.
        if leaves and len(self._known) < _MOST_KNOWN:
            known, forget = self._known, self._forget

            def gone(_: object) -> None:
                known.pop(key, None)
                forget()

            try:
                named = [one for one in (endpoint, route, context, router) if one is not None]
                known[key] = (template, [weakref.ref(one, gone) for one in named])
            except TypeError:  # something without weak references
                pass
        return template


def _routes(app: Any) -> list[Any] | None:
    """The routes of an application or a router, also behind middlewares."""
    for _ in range(_DEEPEST):
        if app is None:
            return None
        routes = getattr(app, "routes", None)
        if isinstance(routes, list):
            return routes
        app = getattr(app, "app", None)
    return None


def _included(routes: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Routes, and the contexts in which FastAPI includes those of other routers; None for those of its own."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route, None
        else:
            for context in contexts():
                yield context.starlette_route or context, context


def _leaves(routes: list[Any], prefix: str, depth: int) -> Iterator[_Leaf]:
    """All that requests may end at, below the path `prefix`."""
    for route, context in _included(routes):
        original = context.original_route if context is not None else route
        path = prefix + (getattr(route, "path", None) or "")
        if hasattr(route, "endpoint"):
            yield _Leaf(route.endpoint, original, context, path)
        elif hasattr(route, "app"):  # mounted there, or under the name of a host
            below = _routes(route.app)
            yield _Leaf(route.app, original, context, None if below is not None else path or "/")
            if below is not None and depth < _DEEPEST:
                yield from _leaves(below, path, depth + 1)


def _searched(routes: list[Any], scope: _Scope, path: str) -> str:
    """The endpoint of a path, found as routers do."""
    root = scope.get("app_root_path")  # that of the outermost application, where something is mounted
    below = scope.get("root_path", "")
    found = None
    for prefix in ("", below) if root is None else (root,):
        if found is None and path.startswith(prefix):
            found = _matched(routes, scope, path[len(prefix) :] or "/", 0)
    # Old releases of Starlette move what they have matched from the path to the root path, behind that of a proxy.
    start = 0
    while found is None and start >= 0:
        found = _matched(routes, scope, below[start:] + scope["path"], 0)
        start = below.find("/", start + 1)
    return UNMATCHED if found is None else found


def _matched(routes: list[Any], scope: _Scope, path: str, depth: int) -> str | None:
    """The template that matches a path: with the method, if there is one."""
    partial = None
    for route, _ in _included(routes):
        regex = getattr(route, "path_regex", None)
        template = getattr(route, "path", "")
        if hasattr(route, "endpoint"):
            if regex is not None and regex.match(path):
                methods = getattr(route, "methods", None)
                if not methods or scope["method"] in methods:
                    return str(template)
                partial = partial or template
            continue
        hosts = getattr(route, "host_regex", None)
        if hosts is not None:
            match, rest = hosts.match(_host(scope)), path
        elif regex is not None:
            match = regex.match(path)
            rest = "/" + match["path"] if match else ""
        else:
            continue
        if match:
            below = _routes(getattr(route, "app", None))
            if below is None:
                return template or "/"
            found = _matched(below, scope, rest, depth + 1) if depth < _DEEPEST else None
            return template + found if found is not None else UNMATCHED
    return partial


def _host(scope: _Scope) -> str:
    """The name of the host that was asked, without a port."""
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1").lower()
            return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return ""
