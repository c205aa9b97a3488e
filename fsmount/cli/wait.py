"""``fsmount wait``: until what was written so far is on the remote, or is known not to get there.

Invariant: it judges the ops that were unsent when it was called, and only those; older dead letters are mentioned.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from msgspec import Struct

from fsmount.cli import values
from fsmount.cli.queue import DEAD, PENDING, Queue, ShownOp, Status, opened, shown, status_of
from fsmount.cli.target import Target, find, state_dir_option
from fsmount.errors import FsmountError, NotFound, TimedOut
from fsmount.render.escape import counted, escape, size

_POLL = 0.2
_NAMED = 20
"""Ops that are named one by one; more are counted."""
_RETRIED = ("rejected", "exhausted")
"""Reasons for which trying again is the next step."""
Progress = Callable[[int], None]


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of the ops that were waited for; ids."""

    dead: list[str]
    blocked: list[str]
    waiting: list[str]

    @property
    def delivered_all(self) -> bool:
        """Whether nothing is left of any of them."""
        return not (self.dead or self.blocked or self.waiting)


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

    Exits 0 when they did, 1 if one of them became a dead letter or is blocked by one (each is named, with what to
    do), 6 when the time was up. Dead letters from before do not count.
    """
    target = find(mount, state_dir)
    if target is None:
        raise NotFound("no mount is known", hint="name one, or use --state-dir")
    return wait_for_ops(target, None, timeout=timeout)


def wait_for_ops(target: Target, ops: Sequence[str] | None, *, timeout: float | None) -> int:
    """Waits for ``ops`` (None: all that are unsent now), says what became of them, and returns the exit code.

    Raises TimedOut after ``timeout`` seconds, FsmountError where no daemon would deliver them.
    """
    started = time.monotonic()
    with opened(target) as queue:
        older = set(queue.ids(DEAD)).difference(ops or ())
        chosen = queue.ids(PENDING) if ops is None else list(ops)
        unsent_bytes = status_of(queue).queue.bytes
        if not queue.served and chosen:
            raise _nobody(target, status_of(queue).remote, len(chosen))
        with _bar(len(chosen)) as progress:
            outcome = _follow(queue, target, chosen, started + timeout if timeout is not None else None, progress)
        _complain_of(queue, target, outcome)
        if outcome.waiting:
            raise _too_late(
                target, status_of(queue), f"{counted(len(outcome.waiting), 'op')} of {len(chosen)}", timeout
            )
    _summarise(len(chosen), outcome, older, unsent_bytes, time.monotonic() - started, target)
    return 0 if outcome.delivered_all else 1


def _nobody(target: Target, remote: str | None, number: int) -> FsmountError:
    where = shlex.quote(target.mountpoint) if target.mountpoint else "MOUNTPOINT"
    return FsmountError(
        f"no daemon delivers for {target}: {counted(number, 'op')} wait for the next mount",
        hint=f"fsmount mount {shlex.quote(remote) if remote else 'REMOTE'} {where}",
    )


_STANDSTILL = {
    "auth": ("the remote refuses the credential", "replace the token file; a new one is tried at once"),
    "offline": ("the remote cannot be reached", "the writes are kept and sent when it answers"),
    "limited": ("the remote asks to wait", "the writes are kept and sent then"),
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


def _follow(queue: Queue, target: Target, chosen: Sequence[str], deadline: float | None, progress: Progress) -> Outcome:
    """Looks until none of ``chosen`` can move any more, or the deadline has come."""
    mine = set(chosen)
    while True:
        try:
            waiting = [op_id for op_id in queue.ids(PENDING) if op_id in mine]
            dead = [op_id for op_id in queue.ids(DEAD) if op_id in mine]
            blocked = _all_blocked(queue, waiting)
        except OSError as error:
            raise FsmountError(
                f"the mount at {target} ended while it was waited for",
                hint=f"fsmount writeback status{target.argument} says what remains",
            ) from error
        progress(len(mine) - len(waiting))
        if len(blocked) == len(waiting):
            return Outcome(dead=dead, blocked=blocked, waiting=[])
        if deadline is not None and time.monotonic() >= deadline:
            return Outcome(dead=dead, blocked=[], waiting=waiting)
        time.sleep(_POLL)


def _all_blocked(queue: Queue, waiting: Sequence[str]) -> list[str]:
    """``waiting`` if every op of the mount that is unsent is blocked by a dead letter, else nothing."""
    if not waiting:
        return []
    numbers = status_of(queue).queue
    if numbers.blocked < numbers.unsent or any(
        (op := shown(queue, op_id)) is None or op.blocked_by is None for op_id in waiting
    ):
        return []
    return list(waiting)


def _complain_of(queue: Queue, target: Target, outcome: Outcome) -> None:
    """Names each op that will not get there by itself, with what to do about what is in its way."""
    stuck = [*outcome.dead, *outcome.blocked]
    for op_id in stuck[:_NAMED]:
        if (op := shown(queue, op_id)) is not None:
            why = f"waits for {op.blocked_by}" if op.blocked_by else escape(op.message)
            step = _next_step(shown(queue, op.blocked_by) if op.blocked_by else op, target)
            click.echo(f"fsmount: {op_id} {escape(op.path)}: {why}\nfsmount:   {step}", err=True)
    if len(stuck) > _NAMED:
        click.echo(f"fsmount: and {len(stuck) - _NAMED} more: fsmount writeback status{target.argument}", err=True)


def _next_step(op: ShownOp | None, target: Target) -> str:
    """The command to try ``op`` again where that is all there is to do, else its hint, which means the mount's root."""
    if op is None:
        return f"fsmount writeback status{target.argument}"
    if op.reason in _RETRIED or not op.hint:
        return f"fsmount writeback retry --opId {op.op_id}{target.argument}"
    return f"in {escape(str(target))}: {escape(op.hint)}"


def _summarise(
    number: int, outcome: Outcome, older: set[str], unsent_bytes: int, seconds: float, target: Target
) -> None:
    delivered = number - len(outcome.dead) - len(outcome.blocked)
    if not number:
        click.echo("nothing was waiting")
    elif outcome.delivered_all:
        click.echo(f"delivered {counted(number, 'op')}, {size(unsent_bytes)} in {seconds:.1f} s")
    else:
        parts = [f"delivered {delivered} of {counted(number, 'op')} in {seconds:.1f} s"]
        parts += [counted(len(outcome.dead), "new dead letter")] if outcome.dead else []
        parts += [f"{len(outcome.blocked)} blocked"] if outcome.blocked else []
        click.echo("; ".join(parts))
    if older:
        click.echo(f"{counted(len(older), 'older dead letter')}: fsmount writeback status{target.argument}")


@contextmanager
def _bar(total: int) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere."""
    if total == 0 or sys.stdout is None or not sys.stdout.isatty():
        yield lambda _done: None
        return
    from rich.progress import Progress as Bar

    # without its refreshing thread: the mount is looked at by forked children
    with Bar(transient=True, auto_refresh=False) as bar:
        row = bar.add_task("delivering", total=total)
        yield lambda done: bar.update(row, completed=done, refresh=True)
