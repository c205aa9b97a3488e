"""What to do about an op, in commands that exist.

Invariant: every command named here can be pasted into a shell that stands in the mount's root.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from fsmount.model import OpId, Reason, Record, RemotePath, SetApart, State, is_below, parent_of
from fsmount.render.escape import counted, escape, rfc3339, size


def mount_path(path: RemotePath, root: RemotePath) -> str:
    """``path`` relative to a mount that shows ``root``; ``.`` for the root itself."""
    if path == root:
        return "."
    return path[len(root.rstrip("/")) + 1 :] if is_below(path, root) else path.lstrip("/")


def retry_command(op_id: OpId, source: str = "dead-letter", relay: str = ".relay") -> str:
    """The ``mv`` that has ``op_id`` tried again."""
    return _move(op_id, source, "retry", relay)


def discard_command(op_id: OpId, source: str = "dead-letter", relay: str = ".relay") -> str:
    """The ``mv`` that gives ``op_id`` up."""
    return _move(op_id, source, "discarded", relay)


def force_command(op_id: OpId, relay: str = ".relay") -> str:
    """The ``mv`` that has a conflict's own version win."""
    return _move(op_id, "dead-letter", "force", relay)


def held_commands(relay: str = ".relay", *, many: bool = False) -> tuple[str, str]:
    """What lets all held ops go, and what brings their files back; ``many`` are too many for one command's line."""
    directory = _directory(relay)
    if many:
        return f"echo release held > {directory}/ctl", f"echo discard held > {directory}/ctl"
    return f"mv {directory}/held/* {directory}/retry/", f"mv {directory}/held/* {directory}/discarded/"


def resume_command(relay: str = ".relay") -> str:
    """What has uploads go on."""
    return f"echo resume > {_directory(relay)}/ctl"


def _move(op_id: OpId, source: str, verb: str, relay: str) -> str:
    directory = _directory(relay)
    return f"mv {directory}/{source}/{op_id}.json {directory}/{verb}/"


def _directory(relay: str) -> str:
    return escape(shlex.quote(relay))


_DEAD = {
    Reason.EXHAUSTED: "once the remote is well again: {again}",
    Reason.FORBIDDEN: "get permission for this path on the remote, then: {again}",
    Reason.TOO_LARGE: "make the file smaller and save it, or give it up: {give_up}",
    Reason.PARENT_MISSING: "make the directory {parent} on the remote, then: {again}",
    Reason.NOT_EMPTY: "remove what is in {file}, then: {again}; or give it up: {give_up}",
    Reason.PROVIDER_FAILED: (
        "the remote has this change, the provider behind it does not; to have it tried again there: {again};"
        " a later save of the file replaces it; or give it up: {give_up}"
    ),
    Reason.INTERRUPTED: "it was never closed and may be cut: look at {content}; whole: {keep}; not: {give_up}",
    Reason.CORRUPT_SPOOL: "its bytes changed on this disk; save the file again, or give it up: {give_up}",
}
_WITH_BODY = "fix the file and save it, or: {again}"
_DEAD_WITH_BODY = {
    Reason.CONFLICT: (
        "it changed on the remote too: diff {versions}/theirs {versions}/mine; take theirs: {give_up};"
        " yours wins: {force}; merged: setfattr -n user.relay.base -v theirs {file}, then save it there"
    ),
    Reason.REMOTE_DELETED: "it was deleted on the remote; agree: {give_up}; make it again: {force}",
}
_WITHOUT_BODY = "mend the cause, then: {again}; or give it up: {give_up}"
_DEAD_WITHOUT_BODY = {
    Reason.CONFLICT: "the remote has a newer version: {versions}/theirs; keep it: {give_up}; or all the same: {force}",
    Reason.REMOTE_DELETED: "it was deleted on the remote; agree: {give_up}",
}


_AGAIN = "{again}"
_NEXT = {
    Reason.REJECTED: "fix the file and save it, or: {again}",
    Reason.CONFLICT: "{versions}theirs: {give_up}; yours: {force}",
    Reason.REMOTE_DELETED: "agree: {give_up}; make it again: {force}",
    Reason.FORBIDDEN: "get permission there, then: {again}",
    Reason.TOO_LARGE: "save it smaller, or give it up: {give_up}",
    Reason.PARENT_MISSING: "make its directory there, then: {again}",
    Reason.NOT_EMPTY: "empty it there, then: {again}",
    Reason.PROVIDER_FAILED: "have it tried again there: {again}; or give it up: {give_up}",
    Reason.INTERRUPTED: "it may be cut; whole: {keep}; not: {give_up}",
    Reason.CORRUPT_SPOOL: "save it again, or give it up: {give_up}",
}
"""Where trying again is not all there is to do; shorter than a hint, for lists and the log."""


def next_step(op_id: OpId, reason: Reason | None, file: str | None = None, relay: str = ".relay") -> str:
    """One line for a dead letter: what to do about it, as commands for ``mv`` and ``cp``.

    ``file`` is where its bytes belong, None where it has none or that is not known here; ``reason`` None is a damaged
    record.
    """
    if reason is None:
        return "it is kept and never sent; make the change again and save it"
    if file is None and reason is Reason.INTERRUPTED:
        return f"it may be cut; what to do: {_look_up(op_id, relay)}"
    keep = "" if file is None else f"cp {_directory(relay)}/content/{op_id} {shlex.quote(escape(file))}"
    return _NEXT.get(reason, _AGAIN).format(
        again=retry_command(op_id, relay=relay),
        give_up=discard_command(op_id, relay=relay),
        force=force_command(op_id, relay),
        versions=f"see {_directory(relay)}/conflict/{op_id}/; ",
        keep=keep,
    )


def next_step_at_rest(op_id: OpId, reason: Reason | None, mount: str | None) -> str:
    """The same where no daemon runs: what needs the tree comes after the next mount. ``mount`` is a MOUNT argument."""
    where = "" if mount is None else f" {escape(shlex.quote(mount))}"
    if reason is None:
        return next_step(op_id, None)
    if reason is Reason.INTERRUPTED:
        return f"it may be cut; mount it, then: fsmount writeback show {op_id}{where}"
    again = f"fsmount writeback retry --opId {op_id}{where}"
    return _NEXT.get(reason, _AGAIN).format(
        again=again,
        give_up=f"fsmount writeback discard --opId {op_id}{where}",
        force=f"{again} --force",
        versions=f"fsmount writeback diff {op_id}{where}; ",
        keep="",
    )


def next_step_to_look_up(op_id: OpId, reason: Reason) -> str:
    """For the log, which does not know where the mount is: the way to retry, or to the hint that tells more."""
    if reason in _NEXT:
        return f"what to do: {_look_up(op_id, '.relay')}"
    return f"fix it and save, or: {retry_command(op_id)}"


def _look_up(op_id: OpId, relay: str) -> str:
    return f"grep hint {_directory(relay)}/dead-letter/{op_id}.json"


def apart(found: Sequence[SetApart]) -> str:
    """What lies in the spool's ``apart``, one line; empty where that is nothing."""
    if not found:
        return ""
    files, whole = counted(len(found), "file"), size(sum(one.size for one in found))
    return (
        f"the end of the journal was forgotten, as after a power failure or on a damaged disk: {files} ({whole}) of"
        f" changes that were not sent {'is' if len(found) == 1 else 'are'} kept in {os.path.dirname(found[0].path)};"
        " copy back what is wanted, then remove them"
    )


def why_apart(one: SetApart) -> str:
    """Of one of them, for ``problems``."""
    return (
        f"it holds {size(one.size)} of a change of {rfc3339(one.at)} that the end of the journal forgot, so that its"
        " name is not known: copy it to where it belongs, then remove it"
    )


def hint(record: Record, root: RemotePath) -> str | None:
    """The next step for whoever finds this op; None where there is nothing to do but wait."""
    if record.malformed is not None:
        return "it is kept as it is and never sent; make the change again and save it"
    if record.state is State.DEAD:
        return _for_dead_letter(record, root)
    if record.state is State.HELD:
        return _for_held(record.op.op_id)
    if record.state is State.DISCARDED:
        return _for_discarded(record, root)
    if record.blocked_by is not None:
        return f"it goes after {record.blocked_by}; see: ls .relay/*/{record.blocked_by}.json"
    if record.state is State.PENDING:
        return f"to give it up: {discard_command(record.op.op_id, 'pending')}"
    return None


def _for_held(op_id: OpId) -> str:
    release, undo = held_commands()
    one = f"let it go: {retry_command(op_id, 'held')}; undo it: {discard_command(op_id, 'held')}"
    return f"{one}; all that is held: {release}; or: {undo}"


def _for_discarded(record: Record, root: RemotePath) -> str:
    keep = f"to save its bytes: {_keep(record, root)}" if record.op.body else ""
    if record.superseded_by is not None:
        first = "a later change was delivered instead"
    else:
        first = f"to send it after all: {retry_command(record.op.op_id, 'discarded')}"
    return "; ".join(filter(None, (first, keep)))


def _for_dead_letter(record: Record, root: RemotePath) -> str:
    own, other = (_DEAD_WITH_BODY, _WITH_BODY) if record.op.body else (_DEAD_WITHOUT_BODY, _WITHOUT_BODY)
    template = (_DEAD | own).get(record.reason, other) if record.reason else other
    return template.format(
        again=retry_command(record.op.op_id),
        give_up=discard_command(record.op.op_id),
        keep=_keep(record, root),
        force=force_command(record.op.op_id),
        versions=f".relay/conflict/{record.op.op_id}",
        content=f".relay/content/{record.op.op_id}",
        file=_file(record, root),
        parent=shlex.quote(escape(parent_of(record.op.target))),
    )


def _keep(record: Record, root: RemotePath) -> str:
    return f"cp .relay/content/{record.op.op_id} {_file(record, root)}"


def _file(record: Record, root: RemotePath) -> str:
    return shlex.quote(escape(mount_path(record.op.target, root)))
