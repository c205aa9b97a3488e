"""``.relay/status``: the Snapshot for a person, on one screen.

Invariant: no line holds an unescaped name, and every dead letter stands with what to do about it.
"""

from __future__ import annotations

import shlex

from fsmount.errors import JournalDamaged
from fsmount.model import CacheUse, ConnectionState, ProviderResults, Refuser, SpoolUse, WriteAccess
from fsmount.render.advice import apart, held_commands, mount_path, next_step, next_step_at_rest, resume_command
from fsmount.render.escape import counted, escape, size, span, when
from fsmount.status import DeadLetter, Health, Snapshot

_EROFS = "Read-only file system"
_EACCES = "Permission denied"
_LISTED = 4
_CUT = 140
_MANY = 10_000
"""So many names the shell may refuse to hand to one ``mv``."""


def status(snapshot: Snapshot) -> str:
    """One screen; at most 24 lines while no more than four dead letters and two providers are in trouble."""
    lines = [
        *_head(snapshot),
        *_writes(snapshot),
        *_apart(snapshot),
        *_transfers(snapshot),
        *_held(snapshot),
        *_dead_letters(snapshot),
        *_last_errors(snapshot),
    ]
    return "".join(f"{line}\n" for line in lines)


def _head(snapshot: Snapshot) -> list[str]:
    return [
        f"{escape(snapshot.remote)} at {escape(snapshot.mountpoint or '(no mount point known)')}",
        f"health    {snapshot.health.value}: {_why(snapshot)}",
        f"remote    {_connection(snapshot)}",
        f"queue     {_queue(snapshot)}",
        f"failed    {_failed(snapshot)}",
        f"done      {_done(snapshot)}",
        f"disk      cache {_share(snapshot.cache)}; spool {_share(snapshot.spool)}",
        f"daemon    {_daemon(snapshot)}",
    ]


def _writes(snapshot: Snapshot) -> list[str]:
    """Why a program is refused, where one is."""
    writes = snapshot.writes
    if writes is None or writes.allowed is WriteAccess.ANYWHERE:
        return []
    if writes.because is Refuser.READ_ONLY:
        why = f"nothing can be written ({_EROFS}): the mount is read-only"
    elif writes.allowed is WriteAccess.NOWHERE:
        another = f"with another in its place: kill -HUP {snapshot.pid}"
        why = f"nothing can be written ({_EROFS}): the token grants no writing; {another}"
    else:
        places = ", ".join(escape(place) for place in writes.places[:_LISTED])
        more = "" if len(writes.places) <= _LISTED else f" and {len(writes.places) - _LISTED} more places"
        why = f"only {places}{more}; elsewhere {_EACCES}: the token grants no more"
    return [f"writes    {why}"]


def _queue(snapshot: Snapshot) -> str:
    queue, now = snapshot.queue, snapshot.beside.at
    oldest = "" if queue.oldest_at is None else f"; oldest {when(queue.oldest_at, now)}"
    waiting = f"{queue.pending} pending, {queue.sending} sending, {queue.blocked} blocked, {queue.held} held"
    return f"{waiting}; {size(queue.bytes)} to send{oldest}"


def _failed(snapshot: Snapshot) -> str:
    now = counted(snapshot.queue.dead_letter, "dead letter")
    ever = counted(snapshot.failed_writebacks, "dead letter")
    return f"{now} now; ever: {counted(snapshot.failed_attempts, 'failed attempt')}, {ever}"


def _done(snapshot: Snapshot) -> str:
    done = snapshot.counters
    delivered = f"{done.acknowledged} delivered ({size(done.bytes_up)})"
    return f"{delivered}, {done.superseded} superseded, {done.discarded} discarded"


def _why(snapshot: Snapshot) -> str:
    match snapshot.health:
        case Health.STOPPED:
            return "no daemon is running; what waits is delivered at the next mount"
        case Health.AUTH:
            return "the remote refuses the credential; uploads wait until it is changed"
        case Health.OFFLINE:
            return "the remote cannot be reached; changes are kept and sent when it answers"
        case Health.PAUSED:
            return f"a person paused uploads; to go on: {resume_command(_relay(snapshot))}"
        case Health.FAILING:
            return _failing(snapshot)
        case Health.BUSY:
            return "sending changes"
    return "everything is delivered"


def _failing(snapshot: Snapshot) -> str:
    queue, parts = snapshot.queue, []
    dead = counted(queue.dead_letter, "dead letter")
    if queue.blocked:
        blocked = f"{counted(queue.blocked, 'op')} blocked"
        parts.append(f"{dead}, {blocked} by them" if queue.dead_letter else blocked)
    elif queue.dead_letter:
        parts.append(f"{dead}; nothing is tried again by itself")
    if queue.held:
        parts.append(f"{counted(queue.held, 'op')} of a mass delete held")
    if snapshot.damage:
        parts.append(f"{escape(snapshot.damage)}; nothing can be written; {JournalDamaged.WAY_OUT}")
    if snapshot.beside.apart:
        parts.append(f"the journal forgot changes: {counted(len(snapshot.beside.apart), 'file')} of them kept apart")
    if snapshot.beside.refusing:
        once = f"to go on at once: {resume_command(_relay(snapshot))}"
        parts.append(f"so much was refused that one op a minute is tried; {once}")
    return "; ".join(parts)


def _connection(snapshot: Snapshot) -> str:
    connection, now = snapshot.connection, snapshot.beside.at
    parts = [f"{connection.state}, last contact {when(connection.last_contact_at, now)}"]
    if connection.offline_since is not None:
        parts.append(f"offline since {when(connection.offline_since, now)}")
    if connection.next_probe_at is not None:
        parts.append(f"next try {when(connection.next_probe_at, now)}")
    parts.append(f"changes elsewhere: {connection.feed}")
    if connection.state is ConnectionState.ONLINE and snapshot.provider_results is ProviderResults.UNKNOWN:
        parts.append("provider results: unknown")
    return "; ".join(parts)


def _share(use: CacheUse | SpoolUse) -> str:
    return size(use.bytes) if use.limit is None else f"{size(use.bytes)} of {size(use.limit)}"


def _daemon(snapshot: Snapshot) -> str:
    if snapshot.pid is None or snapshot.started_at is None:
        return f"none (mount {escape(snapshot.name)})"
    up = span(snapshot.uptime_seconds or 0)
    return f"pid {snapshot.pid}, fsmount {snapshot.version}, up {up}, mount {escape(snapshot.name)}"


def _relay(snapshot: Snapshot) -> str:
    return f"{(snapshot.mountpoint or '').rstrip('/')}/.relay" if snapshot.mountpoint else ".relay"


def _apart(snapshot: Snapshot) -> list[str]:
    """What the remote does not have, and what this mount does not show."""
    beside, lines = snapshot.beside, []
    if beside.local:
        kept = counted(beside.local, "entry", "entries")
        lines.append(f"only here {kept}: directories, links, litter and attributes that the remote does not have")
    if beside.apart:
        lines.append(f"apart     {escape(apart(beside.apart))}")
    if beside.problems:
        told = counted(len(beside.problems), "entry", "entries")
        lines.append(f"problems  {told}: see {escape(_relay(snapshot))}/problems")
    return lines


def _held(snapshot: Snapshot) -> list[str]:
    """The two ways out; without a daemon they wait for the next mount."""
    held = snapshot.queue.held
    if not held:
        return []
    release, undo = held_commands(_relay(snapshot), many=held > _MANY)
    later = "mount it again to decide" if snapshot.health is Health.STOPPED else "decide for all of them"
    return [
        f"held: {counted(held, 'op')} of a mass delete; {later}",
        f"  to delete there too: {release}",
        f"  to bring them back:  {undo}",
    ]


def _transfers(snapshot: Snapshot) -> list[str]:
    if not snapshot.transfers:
        return []
    lines = ["sending"]
    for transfer in snapshot.transfers[:_LISTED]:
        share = 100 * transfer.bytes_sent // transfer.size if transfer.size else 0
        lines.append(f"  {escape(transfer.path)}  {size(transfer.bytes_sent)} of {size(transfer.size)} ({share} %)")
    return [*lines, *_more(len(snapshot.transfers) - _LISTED, "see .relay/pending/")]


def _dead_letters(snapshot: Snapshot) -> list[str]:
    if not snapshot.queue.dead_letter:
        return []
    lines = ["dead letters, the newest first"]
    for letter in snapshot.dead_letters[:_LISTED]:
        lines += [f"  {_letter(letter, snapshot.beside.at)}", f"    {_next(snapshot, letter)}"]
    return [*lines, *_more(snapshot.queue.dead_letter - _LISTED, _rest(snapshot))]


def _letter(letter: DeadLetter, now: float) -> str:
    reason = letter.reason.value if letter.reason else "damaged record"
    answer = f", status {letter.last_status}" if letter.last_status else ""
    return f"{escape(letter.path)}  {reason}{answer}, {counted(letter.attempts, 'attempt')}, {when(letter.ts, now)}"


def _next(snapshot: Snapshot, letter: DeadLetter) -> str:
    """Works from any directory; without a daemon there is no tree to move anything in."""
    if snapshot.health is Health.STOPPED or snapshot.mountpoint is None:
        return next_step_at_rest(letter.op_id, letter.reason, snapshot.mountpoint)
    top, belongs = snapshot.mountpoint.rstrip("/"), snapshot.beside.kept.get(letter.op_id)
    file = None if belongs is None else f"{top}/{mount_path(belongs, snapshot.remote_path)}"
    return next_step(letter.op_id, letter.reason, file, f"{top}/.relay")


def _rest(snapshot: Snapshot) -> str:
    return "see .relay/dead-letter/" if snapshot.pid is not None else f"fsmount writeback status --json{_at(snapshot)}"


def _at(snapshot: Snapshot) -> str:
    return "" if snapshot.mountpoint is None else f" {escape(shlex.quote(snapshot.mountpoint))}"


def _last_errors(snapshot: Snapshot) -> list[str]:
    if not snapshot.last_error_by_provider:
        return []
    lines = ["last error by provider"]
    for provider, error in snapshot.last_error_by_provider.items():
        message = escape(error.message)
        shown = message if len(message) <= _CUT else f"{message[:_CUT]}…"
        lines.append(f"  {escape(provider)}  {escape(error.path)}  {shown}, {when(error.at, snapshot.beside.at)}")
    return lines


def _more(number: int, where: str) -> list[str]:
    return [f"  and {number} more: {where}"] if number > 0 else []
