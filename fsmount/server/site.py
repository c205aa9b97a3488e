"""From a request to what is to be done with it: route, token, correlation id, rules, in this order.

Invariant: a request that fails one of these checks reaches neither a route nor a rule. The order is
that of relayfile-api, section 1: an unauthenticated call without a correlation id gets 401, not 400.
"""

from collections.abc import Callable
from urllib.parse import quote, unquote

import msgspec

from fsmount.server import bulk, raw, routes
from fsmount.server.messages import Answer, Rejected, Request, Sink, answer, rejection
from fsmount.server.paths import normal
from fsmount.server.routes import Call, Route
from fsmount.server.rules import Manner, Rules, body_of
from fsmount.server.store import Store
from fsmount.server.tokens import Issuer
from fsmount.wire.relayfile import Health

FEATURES = ("byte-size", "bulk-status", "raw")
ROUTES: dict[tuple[str, str], tuple[str, str, Route]] = {
    # method, route below /fs: scope, the method that rules know it by, function
    ("GET", "tree"): ("fs:read", "LIST", routes.tree),
    ("GET", "file"): ("fs:read", "GET", routes.get_file),
    ("PUT", "file"): ("fs:write", "PUT", routes.put_file),
    ("DELETE", "file"): ("fs:write", "DELETE", routes.delete_file),
    ("GET", "events"): ("fs:read", "EVENTS", routes.events),
    ("GET", "raw"): ("fs:read", "GET", raw.get),
    ("HEAD", "raw"): ("fs:read", "GET", raw.get),
}


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with one request: `perform` does it, or makes the answer that stands in for it.

    A body that is streamed goes to `sink` before that, or nowhere where there is none.
    """

    manner: Manner
    perform: Callable[[], Answer]
    sink: Sink | None = None

    def close(self) -> None:
        """Forgets the body if nothing was made of it."""
        if self.sink is not None:
            self.sink.close()


class Site:
    """The routes over one store. With `extensions` off it offers what the plain API has, and no more."""

    def __init__(self, store: Store, issuer: Issuer, rules: Rules, *, extensions: bool) -> None:
        self._store = store
        self._issuer = issuer
        self._rules = rules
        self._extensions = extensions

    def streams(self, request: Request) -> bool:
        """Whether the request is to be received without its body, which goes to the exchange's sink then."""
        return self._is_raw_put(request.method, _below_workspace(request.path)[1])

    def _is_raw_put(self, method: str, name: str) -> bool:
        return self._extensions and (method, name) == ("PUT", "raw")

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
        found = ROUTES.get((request.method, name)) if name != "raw" or self._extensions else None
        is_bulk = (request.method, name) == ("POST", "bulk")
        is_raw_put = self._is_raw_put(request.method, name)
        if not workspace or not (found or is_bulk or is_raw_put):
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
        if is_raw_put:
            return self._raw_put(call)
        if found is None:
            return self._bulk(call)
        _, method, route = found
        return _exchange(call, self._rules.manner(method, _ruled_path(method, call)), lambda: route(call))

    def _bulk(self, call: Call) -> Exchange:
        files = bulk.parse(call)
        ruled = self._rules.bulk_manner([normal(file.path) for file in files])
        return _exchange(call, ruled.whole, lambda: bulk.write(call, files, ruled.refused))

    def _raw_put(self, call: Call) -> Exchange:
        """A write whose body is still to come; of one that is refused in any case nothing is kept."""
        manner = self._rules.manner("PUT", call.path)
        try:
            body = raw.receive(call)
        except Rejected as rejected:
            made = rejection(rejected, call.correlation_id)
            return _exchange(call, manner, lambda: made)
        kept = None if manner.replaces_request() or manner.refuses_file() else body
        return _exchange(call, manner, lambda: raw.put(call, body), kept)


def log_line(request: Request, status: int | None) -> str:
    """`METHOD PATH STATUS`, a dash for what was not answered; of the query only `path`, so no secret."""
    path = request.query.get("path")
    return f"{request.method} {request.path}{'' if path is None else '?path=' + quote(path)} {status or '-'}"


def _exchange(call: Call, manner: Manner, perform: Callable[[], Answer], sink: Sink | None = None) -> Exchange:
    def performed() -> Answer:
        if manner.status is not None:
            made = Answer(status=manner.status, body=body_of(manner, call.correlation_id))
        else:
            try:
                made = perform()
            except Rejected as rejected:
                made = rejection(rejected, call.correlation_id)
        if manner.retry_after is None:
            return made
        return msgspec.structs.replace(made, headers=(*made.headers, ("Retry-After", str(manner.retry_after))))

    return Exchange(manner=manner, perform=performed, sink=sink)


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
