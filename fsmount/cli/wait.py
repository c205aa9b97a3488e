"""``fsmount wait``: until what was written so far is on the remote, or is known not to get there.

Invariant: it judges the ops that were unsent when it was called, and only those; older dead letters are mentioned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from msgspec import Struct
from msgspec.structs import replace

from fsmount.cli import values
from fsmount.cli.bar import Bar
from fsmount.cli.queue import HELD, Glance, Queue, ShownOp, Status, opened, shown, status_of
from fsmount.cli.target import Target, known, state_dir_option
from fsmount.errors import FsmountError, TimedOut
from fsmount.render.escape import counted, escape, size

_POLL = 0.2
_NAMED = 20
"""Ops that are named one by one; more are counted."""
_RETRIED = ("rejected", "exhausted")
"""Reasons for which trying again is the next step."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of the ops that were waited for; ids."""

    dead: list[str]
    held: list[str]
    blocked: list[str]
    waiting: list[str]

    @property
    def stuck(self) -> list[str]:
        """Those that only a person moves on."""
        return [*self.dead, *self.held, *self.blocked]

    @property
    def delivered_all(self) -> bool:
        """Whether nothing is left of any of them."""
        return not (self.stuck or self.waiting)


@click.command()
@click.argument("mount", required=False)
@click.option(
    "--timeout",
    type=values.positive_seconds,
    metavar="SECONDS",
    help="Give up after so long, with exit code 6.  [default: never]",
)
@state_dir_option
def wait(mount: str | None, timeout: float | None, state_dir: Path | None) -> int:
    """Wait for the writes that are queued now to reach the remote.

    Exits 0 when they did, 1 if one of them became a dead letter, is held by the mass-delete brake or blocked by a dead
    letter (each is named, with what to do), 6 when the time was up. Dead letters from before do not count.
    """
    return wait_for_ops(known(mount, state_dir), None, timeout=timeout)


def wait_for_ops(target: Target, ops: Mapping[str, int] | None, *, timeout: float | None) -> int:
    """Waits for ``ops`` (None: all that are unsent now), says what became of them, and returns the exit code.

    ``ops`` gives the bytes of each, because some may have arrived before the first look.

    Raises TimedOut after ``timeout`` seconds, FsmountError where no daemon would deliver them.
    """
    started = time.monotonic()
    with opened(target) as queue:
        before = queue.glance()
        chosen = before.pending if ops is None else list(ops)
        unsent = before.status.queue.bytes if ops is None else sum(ops.values())
        if not queue.served and chosen:
            raise _nobody(target, before.status.remote, len(chosen))
        with Bar(len(chosen), unsent) as bar:
            outcome = _follow(queue, chosen, None if timeout is None else started + timeout, bar.show)
        _complain_of(queue, target, outcome)
        if outcome.waiting:
            waiting = f"{counted(len(outcome.waiting), 'op')} of {len(chosen)}"
            raise _too_late(target, status_of(queue), waiting, timeout)
    _summarise(len(chosen), outcome, unsent, time.monotonic() - started)
    _mention_older(before, chosen, target)
    return 0 if outcome.delivered_all else 1


def _nobody(target: Target, remote: str | None, number: int) -> FsmountError:
    return FsmountError(
        f"no daemon delivers for {target}: {counted(number, 'op')} wait for the next mount",
        hint=replace(target, remote=target.remote or remote).mount_command,
    )


_STANDSTILL = {
    "auth": ("the remote refuses the credential", "replace the token file; a new one is tried at once"),
    "offline": ("the remote cannot be reached", "the writes are kept and sent when it answers"),
    "limited": ("the remote asks to wait", "the writes are kept and sent then"),
    "paused": ("a person paused uploads", "echo resume > .relay/ctl there lets them go on"),
    "failing": ("there are dead letters", "what each needs is told there"),
}


def _too_late(target: Target, status: Status, waiting: str, timeout: float | None) -> TimedOut:
    """Says what keeps them, as far as the mount's state tells."""
    health = "limited" if status.connection.state == "limited" else status.health
    why, do = _STANDSTILL.get(health, ("", ""))
    look = f"fsmount writeback status{target.argument}"
    return TimedOut(
        f"{waiting} still waiting after {timeout:g} s" + (f": {why}" if why else ""),
        hint=f"{do}; see: {look}" if do else look,
    )


def _follow(
    queue: Queue, chosen: Sequence[str], deadline: float | None, progress: Callable[[int, Status], None]
) -> Outcome:
    """Looks until none of ``chosen`` can move any more, or the deadline has come.

    An end is believed when a second look shows the same: an op that a person moves meanwhile may be in no directory
    for as long as one look takes.
    """
    mine, last = set(chosen), None
    while True:
        found = queue.glance()
        waiting = [op_id for op_id in found.pending if op_id in mine]
        dead = [op_id for op_id in found.dead if op_id in mine]
        held = [op_id for op_id in found.held if op_id in mine]
        blocked = _all_blocked(queue, found.status, waiting)
        progress(len(mine) - len(waiting), found.status)
        if len(blocked) == len(waiting):
            outcome = Outcome(dead=dead, held=held, blocked=blocked, waiting=[])
            if outcome == last:
                return outcome
            last = outcome
            continue
        last = None
        if deadline is not None and time.monotonic() >= deadline:
            return Outcome(dead=dead, held=held, blocked=[], waiting=waiting)
        time.sleep(_POLL)


def _all_blocked(queue: Queue, status: Status, waiting: Sequence[str]) -> list[str]:
    """``waiting`` if every op of the mount that is unsent is blocked by a dead letter, else nothing."""
    if not waiting or status.queue.blocked < status.queue.unsent:
        return []
    if any((op := shown(queue, op_id)) is None or op.blocked_by is None for op_id in waiting):
        return []
    return list(waiting)


def _complain_of(queue: Queue, target: Target, outcome: Outcome) -> None:
    """Names each op that will not get there by itself, with what to do about what is in its way."""
    stuck = outcome.stuck
    for op_id in stuck[:_NAMED]:
        if (op := shown(queue, op_id)) is not None:
            why = f"waits for {op.blocked_by}" if op.blocked_by else escape(op.message)
            step = _next_step(shown(queue, op.blocked_by) if op.blocked_by else op, target)
            click.echo(f"fsmount: {op_id} {escape(op.path)}: {why}\nfsmount:   {step}", err=True)
    if len(stuck) > _NAMED:
        click.echo(f"fsmount: and {len(stuck) - _NAMED} more: fsmount writeback list{target.argument}", err=True)


def _next_step(op: ShownOp | None, target: Target) -> str:
    """The command to try ``op`` again where that is all there is to do, else its hint, which means the mount's root."""
    if op is None:
        return f"fsmount writeback status{target.argument}"
    if op.state == HELD:
        let_go = f"fsmount writeback retry --opId {op.op_id}{target.argument}"
        return f"to delete it: {let_go}; to have it back: fsmount writeback discard --opId {op.op_id}{target.argument}"
    if op.reason in _RETRIED or not op.hint:
        return f"fsmount writeback retry --opId {op.op_id}{target.argument}"
    return f"in {escape(str(target))}: {escape(op.hint)}"


def _summarise(number: int, outcome: Outcome, unsent_bytes: int, seconds: float) -> None:
    if not number:
        click.echo("nothing was waiting")
    elif outcome.delivered_all:
        click.echo(f"delivered {counted(number, 'op')}, {size(unsent_bytes)} in {seconds:.1f} s")
    else:
        parts = [f"delivered {number - len(outcome.stuck)} of {counted(number, 'op')} in {seconds:.1f} s"]
        parts += [counted(len(outcome.dead), "new dead letter")] if outcome.dead else []
        parts += [f"{len(outcome.held)} held"] if outcome.held else []
        parts += [f"{len(outcome.blocked)} blocked"] if outcome.blocked else []
        click.echo("; ".join(parts))


def _mention_older(before: Glance, chosen: Sequence[str], target: Target) -> None:
    dead, held = (len(set(ids).difference(chosen)) for ids in (before.dead, before.held))
    parts = [counted(dead, "older dead letter")] if dead else []
    parts += [f"{counted(held, 'op')} held before"] if held else []
    if parts:
        click.echo(f"{', '.join(parts)}: fsmount writeback status{target.argument}")
