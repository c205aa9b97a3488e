"""`POST /writeback/sweep-drafts`: agents' drafts whose provider never gave them a name, removed at once.

Invariant: a file goes only if its name is a draft's, no op of it waits, no record of a provider stands behind it, and
the caller's permission rules show it. No op is made: no provider follows.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from fsmount.server.messages import Answer, answer
from fsmount.server.paths import normal
from fsmount.server.records import Row
from fsmount.server.routes import Call, decode
from fsmount.wire.providers import SweepRequest, SweepResult, SweptDraft

_DRAFT = re.compile(r".+ [0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\.json", re.DOTALL)
"""What relayfile's own tools call a draft: a resource, a blank and a UUID."""


def sweep(call: Call) -> Answer:
    """The drafts below a path; they are only named unless the request says `apply`."""
    asked = decode(call.request, SweepRequest)
    base = normal((asked.path_prefix or "").strip())
    sight = call.store.guards.sight(call.workspace, base, call.principal)
    rows = call.store.listings.files(call.workspace, base, sight=sight)
    waiting = {op.path for op in call.store.ops.waiting(call.workspace)}
    removed: list[SweptDraft] = []
    skipped: list[SweptDraft] = []
    for row in rows:
        why = _draft(row.path, asked.patterns or ())
        if why is not None:
            kept = _kept(row, waiting)
            (skipped if kept else removed).append(SweptDraft(path=row.path, reason=kept or why))
    if asked.apply:
        with call.store.transaction():
            for draft in removed:
                call.store.discard(call.workspace, draft.path, correlation_id=call.correlation_id)
    found = SweepResult(dry_run=not asked.apply, scanned=len(rows), removed=tuple(removed), skipped=tuple(skipped))
    return answer(200, found)


def _draft(path: str, patterns: Sequence[str]) -> str | None:
    """Why the file is taken for a draft, if it is."""
    name = path.rpartition("/")[2]
    if _DRAFT.fullmatch(name):
        return "space-uuid-draft"
    return "pattern" if any(fnmatchcase(name, pattern) for pattern in patterns) else None


def _kept(row: Row, waiting: set[str]) -> str | None:
    """Why the draft stays, if it does."""
    if row.path in waiting:
        return "pending-writeback"
    return "provider-linked" if row.object_id else None
