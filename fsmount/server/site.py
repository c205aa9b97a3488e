"""From a request to what is to be done with it: route, token, correlation id, rules, in this order.

Invariant: a request that fails one of these checks reaches neither a route nor a rule. The order is
that of relayfile-api, section 1: an unauthenticated call without a correlation id gets 401, not 400.
"""

from collections.abc import Callable
from urllib.parse import quote, unquote

import msgspec

from fsmount.server import bulk, routes
from fsmount.server.feed import Live
from fsmount.server.messages import Answer, Rejected, Request, answer, rejection
from fsmount.server.paths import normal
from fsmount.server.routes import Call, Route
from fsmount.server.rules import Manner, Rules, body_of
from fsmount.server.store import Store
from fsmount.server.tokens import Issuer
from fsmount.wire.relayfile import Health

FEATURES = ("byte-size", "bulk-status")
ROUTES: dict[tuple[str, str], tuple[str, str, Route]] = {
    # method, route below /fs: scope, the method that rules know it by, function
    ("GET", "tree"): ("fs:read", "LIST", routes.tree),
    ("GET", "file"): ("fs:read", "GET", routes.get_file),
    ("PUT", "file"): ("fs:write", "PUT", routes.put_file),
    ("DELETE", "file"): ("fs:write", "DELETE", routes.delete_file),
    ("GET", "events"): ("fs:read", "EVENTS", routes.events),
}


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with one request: `perform` does it, or makes the answer that stands in for it."""

    manner: Manner
    perform: Callable[[], Answer]


class Site:
    """The routes over one store. With `extensions` off it offers what the plain API has, and no more."""

    def __init__(self, store: Store, issuer: Issuer, rules: Rules, *, extensions: bool) -> None:
        self._store = store
        self._issuer = issuer
        self._rules = rules
        self._extensions = extensions
        self._live = Live(store, rules)

    def receive(self, request: Request) -> Exchange:
        """How to treat a request; nothing is done yet."""
        self._rules.refresh()
        correlation_id = request.headers.get("x-correlation-id", "")
        try:
            return self._public(request) or self._workspace(request, correlation_id)
        except Rejected as rejected:
            return _settled(rejection(rejected, correlation_id))

    def _public(self, request: Request) -> Exchange | None:
        if request.method != "GET":
            return None
        if request.path == "/health":
            return _settled(answer(200, Health(status="ok", features=FEATURES if self._extensions else ())))
        if request.path == "/.well-known/jwks.json":
            return _settled(Answer(status=200, body=self._issuer.jwks))
        return None

    def _workspace(self, request: Request, correlation_id: str) -> Exchange:
        workspace, name = _below_workspace(request.path)
        if (request.method, name) == ("GET", "ws") and workspace:
            return self._feed(request, workspace, correlation_id)
        found = ROUTES.get((request.method, name))
        is_bulk = (request.method, name) == ("POST", "bulk")
        if not workspace or not (found or is_bulk):
            raise Rejected(404, "not_found", "no such route")
        self._issuer.check(request.headers.get("authorization", ""), workspace, found[0] if found else "fs:write")
        if not correlation_id.strip():
            raise Rejected(400, "bad_request", "missing X-Correlation-Id header")
        call = Call(
            request=request,
            workspace=workspace,
            path=normal(request.query.get("path", "").strip()),
            correlation_id=correlation_id,
            store=self._store,
            extensions=self._extensions,
        )
        if found is None:
            return self._bulk(call)
        _, method, route = found
        return _exchange(correlation_id, self._rules.manner(method, _ruled_path(method, call)), lambda: route(call))

    def _feed(self, request: Request, workspace: str, correlation_id: str) -> Exchange:
        """The live feed: its token comes in the query, for browsers cannot send another header, or as elsewhere."""
        token = request.query.get("token", "").strip()
        authorization = f"Bearer {token}" if token else request.headers.get("authorization", "")
        self._issuer.check(authorization, workspace, "fs:read")
        manner = self._rules.manner("EVENTS", "/")
        return _exchange(correlation_id, manner, lambda: self._live.accept(request, workspace))

    def _bulk(self, call: Call) -> Exchange:
        files = bulk.parse(call)
        ruled = self._rules.bulk_manner([normal(file.path) for file in files])
        return _exchange(call.correlation_id, ruled.whole, lambda: bulk.write(call, files, ruled.refused))


def log_line(request: Request, status: int | None) -> str:
    """`METHOD PATH STATUS`, a dash for what was not answered; of the query only `path`, so no secret."""
    path = request.query.get("path")
    return f"{request.method} {request.path}{'' if path is None else '?path=' + quote(path)} {status or '-'}"


def _exchange(correlation_id: str, manner: Manner, perform: Callable[[], Answer]) -> Exchange:
    def performed() -> Answer:
        if manner.status is not None:
            made = Answer(status=manner.status, body=body_of(manner, correlation_id))
        else:
            try:
                made = perform()
            except Rejected as rejected:
                made = rejection(rejected, correlation_id)
        if manner.retry_after is None:
            return made
        return msgspec.structs.replace(made, headers=(*made.headers, ("Retry-After", str(manner.retry_after))))

    return Exchange(manner=manner, perform=performed)


def _settled(made: Answer) -> Exchange:
    return Exchange(manner=Manner(), perform=lambda: made)


def _below_workspace(path: str) -> tuple[str, str]:
    """The workspace and the route below its `/fs/`; empty strings for any other path."""
    match path.split("/"):
        case ["", "v1", "workspaces", workspace, "fs", name]:
            return unquote(workspace), name
    return "", ""


def _ruled_path(method: str, call: Call) -> str:
    return "/" if method == "EVENTS" else call.path
