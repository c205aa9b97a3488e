"""``fsmount umount``: drain, unmount, and the truth about what remains.

Invariant: only a process that holds the mount's own lock is ever signalled, and a mount that is in use is left alone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path

import click
import msgspec

from fsmount import registry
from fsmount.cli import values
from fsmount.cli.child import in_child
from fsmount.cli.daemon import warn
from fsmount.cli.holders import HeldBy, holders, mounted_below
from fsmount.cli.queue import Numbers, opened, status_of
from fsmount.cli.target import Target, find, state_dir_instead_of
from fsmount.errors import FsmountError, JournalDamaged, MachineLacks, NotFound, StateError, TimedOut, UsageError
from fsmount.render.advice import apart
from fsmount.render.escape import counted, escape
from fsmount.spool import found_apart
from fsmount.statedir import Holder, StateDirectory

_GRACE = 15.0
"""Seconds beyond the drain that a daemon may take to end."""
_SCAN = 10.0
_NAMED = 10


@click.command()
@click.argument("mountpoint", required=False)
@click.option(
    "--drain",
    type=values.seconds,
    metavar="SECONDS",
    help="Go on delivering for at most so long.  [default: what the mount was given, 10]",
)
@click.option("--lazy", is_flag=True, help="Take the mount away at once, even from programs that use it.")
@state_dir_instead_of("MOUNTPOINT")
def umount(mountpoint: str | None, drain: float | None, state_dir: Path | None, *, lazy: bool) -> int:
    """Deliver what is queued, unmount MOUNTPOINT, and say what remains.

    What remains is kept and delivered by the next mount. A mount that programs use is not taken from them: they are
    named, and the exit code is 1. A dead mount point is cleared.
    """
    if mountpoint is None and state_dir is None:
        raise UsageError("say which mount: MOUNTPOINT", hint="see fsmount umount --help")
    target = find(mountpoint, state_dir)
    if target is None or target.mountpoint is None:
        raise NotFound(f"no mount point is known for {state_dir}")
    holder = target.holder()
    serving = holder is not None and holder.serving
    if target.mounted() is None and not serving:
        raise NotFound(f"{target} is not mounted", hint=_left_of(target))
    if target.state_dir is None and not lazy and _answers(target):
        raise StateError(f"{target} was mounted with another XDG_STATE_HOME", hint="set it as then, or use --lazy")
    if lazy:
        _detach(target.mountpoint, lazy=True)
    elif serving:
        _refuse_if_used(target, holder)
    if holder is not None and serving:
        _end(target, holder, drain)
    if target.mounted() is not None:
        _clear(target)
    return _take_leave(target)


def _refuse_if_used(target: Target, holder: Holder | None) -> None:
    besides = frozenset({os.getpid(), holder.pid if holder else 0})  # and the child that looks, which stands here too
    mountpoint = target.mountpoint or ""
    below = mounted_below(mountpoint)
    answer = in_child(
        lambda: msgspec.json.encode(
            [
                (one.pid, escape(one.program), escape(one.what))
                for one in holders(mountpoint, besides=besides | {os.getpid()})
            ]
        ),
        what="looking for programs that use the mount",
        hint="--lazy unmounts without looking",
        deadline=_SCAN,
    )
    using = [
        HeldBy(pid=pid, program=program, what=what)
        for pid, program, what in msgspec.json.decode(answer, type=list[tuple[int, str, str]])
    ]
    if not using and not below:
        return
    lines = [str(one) for one in using[:_NAMED]] + [f"mounted below: {escape(path)}" for path in below]
    more = [f"and {len(using) - _NAMED} more"] if len(using) > _NAMED else []
    raise FsmountError(f"{target} is in use:\n  " + "\n  ".join(lines + more), hint="end them, or use --lazy")


def _answers(target: Target) -> bool:
    from fsmount.cli.live import LiveQueue

    return LiveQueue.of(target) is not None


def _end(target: Target, holder: Holder, drain: float | None) -> None:
    """Asks the daemon to end and waits until it has."""
    assert target.state_dir is not None  # noqa: S101 - a holder was found there
    if not holder.here or not holder.pid:
        raise StateError(f"{target} is served by {holder}", hint="unmount it there")
    if drain is not None:
        StateDirectory(target.state_dir).ask_drain(drain)
    try:
        watched = os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return
    try:
        if target.holder() != holder:
            return  # it ended meanwhile; what has its pid now is somebody else
        signal.pidfd_send_signal(watched, signal.SIGTERM)
        patience = (holder.drain if drain is None else drain) + _GRACE
        _await_end(watched, patience, target, holder)
    except PermissionError as error:
        raise FsmountError(
            f"{target} is served by {holder}, which belongs to another user", hint="unmount it as that user or as root"
        ) from error
    finally:
        os.close(watched)


def _await_end(watched: int, patience: float, target: Target, holder: Holder) -> None:
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        if select.select([watched], [], [], left)[0]:
            return
    raise TimedOut(
        f"the mount at {target} did not end within {patience:g} s",
        hint=f"look at {holder}; --lazy takes the mount away",
    )


def _clear(target: Target) -> None:
    """Takes a mount point away that nobody serves any more."""
    mountpoint = target.mountpoint or ""
    if not _detach(mountpoint, lazy=False):
        _detach(mountpoint, lazy=True)
    if target.mounted() is not None:
        raise FsmountError(f"{target} could not be unmounted", hint=f"fusermount3 -uz {target.quoted}")


def _detach(mountpoint: str, *, lazy: bool) -> bool:
    try:
        done = subprocess.run(
            ["fusermount3", "-uz" if lazy else "-u", mountpoint], capture_output=True, timeout=_SCAN, check=False
        )
    except FileNotFoundError as error:
        raise MachineLacks("fusermount3 is not installed", hint="apt install fuse3") from error
    except subprocess.TimeoutExpired as error:
        raise TimedOut(
            f"fusermount3 hangs on {escape(mountpoint)}", hint=f"as root: umount -l {escape(mountpoint)}"
        ) from error
    return done.returncode == 0


def _take_leave(target: Target) -> int:
    """Says what was done and what remains; the exit code."""
    try:
        numbers = _remaining(target)
    except JournalDamaged as error:
        click.echo(f"unmounted {target}")
        raise FsmountError(f"what waits cannot be told: {error.message}", hint=error.hint) from error
    kept = () if target.state_dir is None else found_apart(StateDirectory(target.state_dir).spool)
    click.echo(_farewell(target, numbers, len(kept)))
    warn(apart(kept))
    return 0


def _farewell(target: Target, numbers: Numbers | None, forgotten: int) -> str:
    """What was done and what remains; forgets the mount if that is nothing."""
    if numbers is None:
        return f"unmounted {target}"
    if not numbers.unsent and not numbers.held and not numbers.dead_letter and not forgotten:
        registry.remove(target.mountpoint or "")
        return f"unmounted {target}; everything was delivered"
    parts = (
        [f"{counted(numbers.unsent, 'op')} {'waits' if numbers.unsent == 1 else 'wait'} for the next mount"]
        if numbers.unsent
        else []
    )
    parts += [f"{counted(numbers.held, 'op')} held"] if numbers.held else []
    parts += [counted(numbers.dead_letter, "dead letter")] if numbers.dead_letter else []
    parts += [f"{counted(forgotten, 'file')} of changes that the journal forgot"] if forgotten else []
    return f"unmounted {target}; {', '.join(parts)}"


def _remaining(target: Target) -> Numbers | None:
    if target.state_dir is None or not Path(target.state_dir).is_dir():
        return None
    with opened(target) as queue:
        return status_of(queue).queue


def _left_of(target: Target) -> str | None:
    try:
        numbers = _remaining(target)
    except JournalDamaged as error:
        return error.message
    if numbers is None:
        return None
    held = f"{counted(numbers.unsent + numbers.held, 'op')} and {counted(numbers.dead_letter, 'dead letter')}"
    return f"its queue has {held}: fsmount writeback status{target.argument}"
