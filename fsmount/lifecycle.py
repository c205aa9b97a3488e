"""The life of an op as one table; the only place that makes a new state.

    (program closes) ──> pending ──claim──> sending ──acknowledge──> (gone)
                          │  ^                │ │
                          │  └──postpone──────┘ └──bury──> dead-letter ──supersede/discard──> discarded
                          │                                  │   ^                              │
                          ├──interrupt (recovery)────────────┼───┘                              │
                          ├──discard─────────────────────────┼────────────────────────────────> │
                          ├──hold──> held ──discard──────────┼────────────────────────────────> │
                          │<──retry───┘                      │                                  │
                          │<─────────────retry───────────────┴──────────────────────────────────┤
                          └──replace──> (gone)                                 purge ──> (gone)─┘

What the remote accepted and the provider behind it failed with can also be acknowledged as it waits: pending or a dead
letter ──acknowledge──> (gone), when the provider has taken it after all.

Invariant: a transition that is not in the table cannot be made; the journal's rows change state only through ``after``.
"""

from __future__ import annotations

from enum import StrEnum

from fsmount.model import Op, OpKind, Record, State


class Event(StrEnum):
    """What happens to an op."""

    CLAIM = "claim"
    POSTPONE = "postpone"
    BURY = "bury"
    ACKNOWLEDGE = "acknowledge"
    INTERRUPT = "interrupt"
    REPLACE = "replace"
    SUPERSEDE = "supersede"
    DISCARD = "discard"
    HOLD = "hold"
    RETRY = "retry"
    PURGE = "purge"


GONE = None
"""The op's row leaves the journal."""

TRANSITIONS: dict[tuple[State, Event], State | None] = {
    (State.PENDING, Event.CLAIM): State.SENDING,
    (State.PENDING, Event.INTERRUPT): State.DEAD,
    (State.PENDING, Event.ACKNOWLEDGE): GONE,
    (State.PENDING, Event.REPLACE): GONE,
    (State.PENDING, Event.DISCARD): State.DISCARDED,
    (State.PENDING, Event.HOLD): State.HELD,
    (State.HELD, Event.INTERRUPT): State.DEAD,
    (State.HELD, Event.RETRY): State.PENDING,
    (State.HELD, Event.REPLACE): GONE,
    (State.HELD, Event.DISCARD): State.DISCARDED,
    (State.SENDING, Event.POSTPONE): State.PENDING,
    (State.SENDING, Event.BURY): State.DEAD,
    (State.SENDING, Event.ACKNOWLEDGE): GONE,
    (State.DEAD, Event.RETRY): State.PENDING,
    (State.DEAD, Event.ACKNOWLEDGE): GONE,
    (State.DEAD, Event.DISCARD): State.DISCARDED,
    (State.DEAD, Event.SUPERSEDE): State.DISCARDED,
    (State.DISCARDED, Event.RETRY): State.PENDING,
    (State.DISCARDED, Event.PURGE): GONE,
}


class IllegalTransition(Exception):
    """An op in this state cannot do that."""


def after(state: State, event: Event) -> State | None:
    """The state that follows, None when the op's row goes; raises IllegalTransition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"an op that is {state} cannot {event}") from None


def may_change(record: Record) -> bool:
    """Whether the op's path, body and base may still be changed: until its first attempt begins."""
    return record.state in (State.PENDING, State.HELD) and not record.attempted


def blocks_when_dead(op: Op) -> bool:
    """Whether later ops on or below its names wait even for the dead letter (the view ``blocker`` has the same)."""
    return op.kind is OpKind.MOVE


def stands(record: Record) -> bool:
    """Whether the op decides what its path shows: a dead delete or rmdir does not, the remote's file is back."""
    return record.state is not State.DEAD or record.op.kind in (OpKind.PUT, OpKind.MOVE)
