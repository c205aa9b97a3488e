"""From a request to what is to be done with it: route, token, correlation id, rules, in this order.

Invariant: a request that fails one of these checks reaches neither a route nor a rule. The order is
that of relayfile-api, section 1: an unauthenticated call without a correlation id gets 401, not 400.
"""

from collections.abc import Callable, Sequence
from urllib.parse import quote, unquote

import msgspec

from fsmount.server import bulk, drafts, ops, raw, routes, sync
from fsmount.server.bearers import Bearers, require, token_of
from fsmount.server.export import export
from fsmount.server.feed import Live
from fsmount.server.jwks import TrustedKeys
from fsmount.server.limits import DeleteStorm, RateLimit
from fsmount.server.merge import merge_file
from fsmount.server.messages import Answer, Rejected, Request, Sink, answer, rejection
from fsmount.server.paths import normal
from fsmount.server.query import query
from fsmount.server.routes import Call, Route, gate
from fsmount.server.rules import Manner, Rules, body_of
from fsmount.server.store import Store
from fsmount.server.tokens import Issuer
from fsmount.wire.relayfile import Health

FEATURES = ("byte-size", "bulk-status", "raw")


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


class Endpoint(msgspec.Struct, frozen=True):
    """One route: the scope that it needs, where that must be granted, and what answers it.

    `places` gives the paths that the grant must cover and that permission rules are asked about, None for a
    route without one. `treat` makes the exchange of a call that passed every check. A `socket` asks neither for
    a correlation id nor permission rules (section 14). An `extension` is ours alone; a request that is `streamed`
    comes without its body. One that is `live` is about the live tree whatever fork is named.
    """

    scope: str
    places: Callable[[Request], Sequence[str] | None]
    treat: Callable[[Call, "Site"], Exchange]
    socket: bool = False
    extension: bool = False
    streamed: bool = False
    live: bool = False


class Site:
    """The routes over one store. With `extensions` off it offers what the plain API has, and no more."""

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        rules: Rules,
        *,
        extensions: bool,
        trusted: TrustedKeys | None = None,
        rate_limit: RateLimit | None = None,
        delete_storm: DeleteStorm | None = None,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self.rules = rules
        self._extensions = extensions
        self._bearers = Bearers(issuer, trusted)
        self._rate_limit = rate_limit
        self._delete_storm = delete_storm
        self.live = Live(store, rules)

    async def ready(self, request: Request) -> None:
        """Get at hand what `receive` will need of elsewhere: another issuer's keys. A checkpoint; raises nothing."""
        await self._bearers.ready(_authorization(request).removeprefix("Bearer ").strip())

    def streams(self, request: Request) -> bool:
        """Whether the request is to be received without its body, which goes to the exchange's sink then."""
        try:
            return self._extensions and _routed(request)[1].streamed
        except Rejected:
            return False

    def admit_again(self, call: Call) -> None:
        """What held when the head came is asked anew once a long body is here: token and rules. Raises Rejected."""
        self._bearers.again(call.principal)
        gate(call, call.path)

    def receive(self, request: Request) -> Exchange:
        """How to treat a request; nothing is done yet."""
        self.rules.refresh()
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
        workspace, endpoint, name = _routed(request)
        if endpoint.extension and not self._extensions:
            raise Rejected(404, "not_found", "no such route")
        principal = self._bearers.principal(token_of(_authorization(request)), workspace)
        places = endpoint.places(request)
        require(principal, endpoint.scope, places)
        call = Call(
            request=request,
            workspace=workspace,
            principal=principal,
            path=normal(request.query.get("path", "").strip()),
            name=name,
            correlation_id=correlation_id,
            store=self._store,
            extensions=self._extensions,
        )
        if not endpoint.socket:
            for place in places or ():
                gate(call, normal(place))
            if not correlation_id.strip():
                raise Rejected(400, "bad_request", "missing X-Correlation-Id header")
            _refuse_fork(request, endpoint)
        if self._rate_limit is not None:
            self._rate_limit.count(principal)
        if self._delete_storm is not None and request.method == "DELETE":
            self._delete_storm.count(workspace)
        return endpoint.treat(call, self)


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


def _ruled(method: str, route: Route) -> Callable[[Call, Site], Exchange]:
    """A route that rules know by `method` and its path; by an empty method only rules for any method do."""
    return lambda call, site: _exchange(call, site.rules.manner(method, call.path), lambda: route(call))


def _events(call: Call, site: Site) -> Exchange:
    """The feed is the root's, whatever path is named."""
    return _exchange(call, site.rules.manner("EVENTS", "/"), lambda: routes.events(call))


def _live(call: Call, site: Site) -> Exchange:
    """The same feed, pushed."""
    manner = site.rules.manner("EVENTS", "/")
    return _exchange(call, manner, lambda: site.live.accept(call.request, call.workspace))


def _bulk(call: Call, site: Site) -> Exchange:
    """Each file of a bulk is under the rules by itself."""
    files = bulk.parse(call)
    ruled = site.rules.bulk_manner([normal(file.path) for file in files])
    return _exchange(call, ruled.whole, lambda: bulk.write(call, files, ruled.refused))


def _raw_put(call: Call, site: Site) -> Exchange:
    """A write whose body is still to come; of one that is refused in any case nothing is kept."""
    manner = site.rules.manner("PUT", call.path)
    try:
        body = raw.receive(call)
    except Rejected as rejected:
        made = rejection(rejected, call.correlation_id)
        return _exchange(call, manner, lambda: made)
    kept = None if manner.replaces_request() or manner.refuses_file() else body

    def perform() -> Answer:
        site.admit_again(call)
        return raw.put(call, body)

    return _exchange(call, manner, perform, kept)


def _refuse_fork(request: Request, endpoint: Endpoint) -> None:
    """Raise Rejected (404) where a fork is named: this server has none, and the live tree must not stand in for it."""
    fork = request.query.get("forkId", "").strip()
    if fork and not endpoint.live:
        raise Rejected(404, "not_found", f"fork not found: {fork} (this server has no forks)")


def _authorization(request: Request) -> str:
    """The header; of a WebSocket's handshake the query, if there is one: browsers cannot send another header."""
    token = request.query.get("token", "").strip() if request.path.endswith("/fs/ws") else ""
    return f"Bearer {token}" if token else request.headers.get("authorization", "")


def _listed(request: Request) -> list[str]:
    return [normal(request.query.get("path", "").strip())]


def _named(request: Request) -> list[str]:
    # As it was sent: a grant never covers a path without its leading slash.
    return [request.query.get("path", "").strip()]


def _filtered(request: Request) -> list[str]:
    """Every filter of a feed; without one it is the root's."""
    return [path.strip() for path in request.every("path") if path.strip()]


def _root(_: Request) -> list[str]:
    return ["/"]


def _nowhere(_: Request) -> None:
    return None


# Method and path below the workspace, where {} is any one segment.
ROUTES: dict[str, Endpoint] = {
    "GET fs/tree": Endpoint("fs:read", _listed, _ruled("LIST", routes.tree)),
    "GET fs/file": Endpoint("fs:read", _named, _ruled("GET", routes.get_file)),
    "PUT fs/file": Endpoint("fs:write", _named, _ruled("PUT", routes.put_file)),
    "DELETE fs/file": Endpoint("fs:write", _named, _ruled("DELETE", routes.delete_file)),
    "GET fs/raw": Endpoint("fs:read", _named, _ruled("GET", raw.get), extension=True),
    "HEAD fs/raw": Endpoint("fs:read", _named, _ruled("GET", raw.get), extension=True),
    "PUT fs/raw": Endpoint("fs:write", _named, _raw_put, extension=True, streamed=True),
    "POST fs/bulk": Endpoint("fs:write", _nowhere, _bulk),
    "POST fs/merge": Endpoint("fs:write", _named, _ruled("PUT", merge_file)),
    "GET fs/query": Endpoint("fs:read", _listed, _ruled("LIST", query)),
    "GET fs/export": Endpoint("fs:read", _listed, _ruled("LIST", export), live=True),
    "GET fs/events": Endpoint("fs:read", _root, _events),
    "GET fs/ws": Endpoint("fs:read", _filtered, _live, socket=True),
    "GET ops": Endpoint("ops:read", _nowhere, _ruled("", ops.list_ops)),
    "GET ops/{}": Endpoint("ops:read", _nowhere, _ruled("", ops.get_op)),
    "POST ops/{}/replay": Endpoint("ops:replay", _nowhere, _ruled("", ops.replay_op)),
    "GET writeback/pending": Endpoint("sync:read", _nowhere, _ruled("", ops.pending)),
    "POST writeback/sweep-drafts": Endpoint("sync:trigger", _nowhere, _ruled("", drafts.sweep)),
    "POST writeback/{}/ack": Endpoint("sync:trigger", _nowhere, _ruled("", ops.acknowledge)),
    "GET sync/status": Endpoint("sync:read", _nowhere, _ruled("", sync.status)),
    "GET sync/ingress": Endpoint("sync:read", _nowhere, _ruled("", sync.ingress)),
    "POST sync/refresh": Endpoint("sync:trigger", _nowhere, _ruled("", sync.refresh)),
    "GET sync/dead-letter": Endpoint("sync:read", _nowhere, _ruled("", sync.dead_letters)),
    "GET sync/dead-letter/{}": Endpoint("sync:read", _nowhere, _ruled("", sync.no_dead_letter)),
    "POST sync/dead-letter/{}/replay": Endpoint("sync:trigger", _nowhere, _ruled("", sync.no_dead_letter)),
    "POST sync/dead-letter/{}/ack": Endpoint("sync:trigger", _nowhere, _ruled("", sync.no_dead_letter)),
}


def _routed(request: Request) -> tuple[str, Endpoint, str]:
    """The workspace, the endpoint, and what stands for {}. Raises Rejected (404)."""
    match request.path.split("/"):
        case ["", "v1", "workspaces", workspace, *parts] if workspace and len(parts) <= 4:
            # The last turn leaves all parts as they are.
            for at, name in enumerate((*parts, "")):
                route = "/".join("{}" if part and place == at else part for place, part in enumerate(parts))
                endpoint = ROUTES.get(f"{request.method} {route}")
                if endpoint is not None:
                    return unquote(workspace), endpoint, unquote(name)
    raise Rejected(404, "not_found", "no such route")
