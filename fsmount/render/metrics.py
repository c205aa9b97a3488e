"""``.relay/metrics``: the Snapshot in Prometheus' text format, version 0.0.4.

Invariant: what nobody knows is left out, never shown as 0; a name can break no line.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from fsmount.model import ConnectionState, Feed, Reason, State
from fsmount.render.escape import escape
from fsmount.status import Health, Snapshot

Sample = tuple[Mapping[str, str], float | None]
"""Labels beside ``mount``, and the value."""
Family = tuple[str, str, str, Sequence[Sample]]
"""Name without the prefix, ``gauge`` or ``counter``, what it tells, its samples."""


def metrics(snapshot: Snapshot) -> str:
    """Every metric of one mount, each with the label ``mount`` for its name."""
    return "".join(line for family in _families(snapshot) for line in _lines(snapshot.name, family))


def _families(snapshot: Snapshot) -> Iterator[Family]:
    yield from _mount(snapshot)
    yield from _queue(snapshot)
    yield from _totals(snapshot)
    yield from _disk(snapshot)


def _mount(snapshot: Snapshot) -> Iterator[Family]:
    connection, beside = snapshot.connection, snapshot.beside
    about = {
        "remote": snapshot.remote,
        "remote_path": snapshot.remote_path,
        "mountpoint": snapshot.mountpoint or "",
        "version": snapshot.version,
    }
    yield "info", "gauge", "Which mount this is; always 1.", [(about, 1)]
    yield "health", "gauge", "1 for the health that the mount has now.", _one_of(Health, snapshot.health)
    yield "connection_state", "gauge", "1 for how the remote stands now.", _one_of(ConnectionState, connection.state)
    yield "feed", "gauge", "1 for how changes made elsewhere are learned.", _one_of(Feed, connection.feed, "feed")
    yield _gauge("uploads_paused", "1 while a person has paused uploads.", beside.paused)
    yield _gauge("uploads_refusing", "1 while uploads all but stopped after many refusals.", beside.refusing)
    yield _gauge("start_time_seconds", "When the daemon started, seconds since the epoch.", snapshot.started_at)
    yield _gauge("uptime_seconds", "How long the daemon runs.", snapshot.uptime_seconds)
    last = "When the remote last answered, seconds since the epoch."
    yield _gauge("last_contact_timestamp_seconds", last, connection.last_contact_at)
    since = "Since when the remote is offline, seconds since the epoch."
    yield _gauge("offline_since_timestamp_seconds", since, connection.offline_since)


def _queue(snapshot: Snapshot) -> Iterator[Family]:
    queue, beside = snapshot.queue, snapshot.beside
    by_state = {
        State.PENDING: queue.pending,
        State.SENDING: queue.sending,
        State.HELD: queue.held,
        State.DEAD: queue.dead_letter,
        State.DISCARDED: queue.discarded,
    }
    samples = [({"state": state}, count) for state, count in by_state.items()]
    yield "queue_ops", "gauge", "Ops now, by state.", samples
    yield _gauge("blocked_ops", "Pending ops that wait for another op.", queue.blocked)
    reasons = dict.fromkeys(Reason, 0) | beside.dead_by_reason
    dead = [({"reason": reason}, count) for reason, count in reasons.items()]
    yield "dead_letters", "gauge", "Dead letters now, by reason.", dead
    yield _gauge("queue_bytes", "Bytes that are still to be sent.", queue.bytes)
    oldest = "When the oldest op that is not sent was queued, seconds since the epoch."
    yield _gauge("oldest_op_timestamp_seconds", oldest, queue.oldest_at)
    yield _gauge("transfers", "Bodies that are being sent.", len(snapshot.transfers))
    yield _gauge("local_entries", "Directories, links, litter and attributes that only this mount has.", beside.local)
    yield _gauge("problems", "Names that are not shown as they are.", len(beside.problems))


def _totals(snapshot: Snapshot) -> Iterator[Family]:
    counters = snapshot.counters
    yield _counter("failed_attempts", "Answers that were not 2xx.", snapshot.failed_attempts)
    yield _counter("failed_writebacks", "Ops that became dead letters.", snapshot.failed_writebacks)
    yield _counter("acknowledged_ops", "Ops that the remote acknowledged.", counters.acknowledged)
    yield _counter("superseded_ops", "Ops that a later one replaced.", counters.superseded)
    yield _counter("discarded_ops", "Ops that were given up.", counters.discarded)
    yield _counter("sent_bytes", "Bytes of bodies that the remote acknowledged.", counters.bytes_up)
    yield _counter("received_bytes", "Bytes of content read from the remote.", counters.bytes_down)
    yield _counter("requests", "Requests sent to the remote.", counters.requests)
    yield _counter("invalidations", "Times the kernel was told to forget what it knew.", counters.invalidations)


def _disk(snapshot: Snapshot) -> Iterator[Family]:
    cache, spool = snapshot.cache, snapshot.spool
    yield _gauge("cache_bytes", "Bytes in the cache.", cache.bytes)
    yield _gauge("cache_limit_bytes", "Bytes that the cache may hold.", cache.limit)
    yield _counter("cache_hits", "Reads that the cache answered.", cache.hits)
    yield _counter("cache_misses", "Reads that the remote had to answer.", cache.misses)
    yield _gauge("spool_bytes", "Bytes in the spool.", spool.bytes)
    yield _gauge("spool_limit_bytes", "Bytes that the spool may hold.", spool.limit)


def _gauge(name: str, meaning: str, value: float | None) -> Family:
    return name, "gauge", meaning, [({}, value)]


def _counter(name: str, meaning: str, value: float) -> Family:
    return f"{name}_total", "counter", meaning, [({}, value)]


def _one_of(words: type[StrEnum], now: StrEnum, label: str = "state") -> list[Sample]:
    return [({label: word}, word is now) for word in words]


def _lines(mount: str, family: Family) -> Iterator[str]:
    name, sort, meaning, samples = family
    known = [(labels, value) for labels, value in samples if value is not None]
    if not known:
        return
    yield f"# HELP fsmount_{name} {meaning}\n# TYPE fsmount_{name} {sort}\n"
    for labels, value in known:
        pairs = ",".join(f'{label}="{_quoted(text)}"' for label, text in ({"mount": mount} | dict(labels)).items())
        yield f"fsmount_{name}{{{pairs}}} {_number(value)}\n"


def _quoted(text: str) -> str:
    """Backslash, quote and newline as the format has them; what else a terminal would act on, as in the log."""
    return "\\n".join(escape(part).replace("\\", "\\\\").replace('"', '\\"') for part in text.split("\n"))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
