"""`/sync`: how providers' own changes come in. None come in here, and the answers say so.

What a provider would refuse of an agent's writes does exist: the dead letters of `/ops` are counted.
"""

from fsmount.server.messages import Answer, Rejected, answer
from fsmount.server.paths import provider
from fsmount.server.routes import Call, bad_cursor, decode
from fsmount.wire.providers import DeadLetterPage, Queued, RefreshRequest, SyncIngress, SyncProvider, SyncStatus


def status(call: Call) -> Answer:
    """`GET /sync/status`: every provider that has files or dead letters, or the one asked for."""
    wanted = call.request.query.get("provider") or None
    failures = call.store.ops.failures(call.workspace)
    rows = call.store.listings.tree(call.workspace, "/", depth=1, after=None, limit=-1)
    known = {provider(row.path + "/") for row in rows if row.revision is None} | failures.keys()
    providers = tuple(
        SyncProvider(
            provider=name,
            status="healthy",
            last_error=failures[name].newest_error if name in failures else None,
            dead_lettered_ops=failures[name].count if name in failures else 0,
        )
        for name in sorted(known - {""})
        if wanted in {None, name}
    )
    return answer(200, SyncStatus(workspace_id=call.workspace, providers=providers))


def ingress(call: Call) -> Answer:
    """`GET /sync/ingress`: nothing came and nothing waits."""
    return answer(200, SyncIngress(workspace_id=call.workspace))


def refresh(call: Call) -> Answer:
    """`POST /sync/refresh`: accepted, with nothing to fetch from."""
    asked = decode(call.request, RefreshRequest)
    if not (asked.provider and asked.reason):
        raise Rejected(400, "bad_request", "provider and reason are needed")
    return answer(202, Queued(status="queued", id=f"refresh_{asked.provider}", correlation_id=call.correlation_id))


def dead_letters(call: Call) -> Answer:
    """`GET /sync/dead-letter`: there are none, so that no cursor is one of them."""
    if call.request.query.get("cursor"):
        raise bad_cursor()
    return answer(200, DeadLetterPage())


def no_dead_letter(call: Call) -> Answer:
    """Whatever is asked of one dead letter."""
    raise Rejected(404, "not_found", f"envelope not found: {call.name}")
