"""``fsmount list``: the mounts of this user and how they are.

Invariant: all mounts are asked at the same time, so that those that are silent cost one deadline together.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from fsmount import registry
from fsmount.cli.child import DEADLINE, Child, ChildFailed
from fsmount.cli.live import LiveQueue
from fsmount.cli.queue import Numbers, Status, opened, status_of
from fsmount.cli.target import Target, find, registered, state_dir_instead_of
from fsmount.errors import FsmountError, JournalDamaged, NotFound, StateError, TimedOut
from fsmount.mounttable import MountLine, mounts
from fsmount.render.escape import counted, escape
from fsmount.render.json import encode

_SILENT, _DEAD, _STOPPED, _BUSY = "not responding", "dead", "stopped", "starting or ending"
_FOREIGN = (errno.EACCES, errno.EPERM)


class Row(Struct, frozen=True, kw_only=True, rename="camel"):
    """One mount. ``queue`` is None where it is not known; ``hint`` is what to do, None where that is nothing."""

    mountpoint: str | None
    name: str
    remote: str | None
    state_dir: str | None
    pid: int | None
    health: str
    queue: Numbers | None
    hint: str | None


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead, an object a mount.")
@state_dir_instead_of("all of them")
def list_mounts(state_dir: Path | None, *, as_json: bool) -> int:
    """List your mounts: where, of what, how they are, what waits and what failed.

    A mount whose daemon is silent is 'not responding', one whose daemon died is 'dead', one that was unmounted with
    something undelivered is 'stopped'; each with what to do.
    """
    rows = _rows(targets(mounts()) if state_dir is None else [_only(state_dir)])
    if as_json:
        click.echo(encode(msgspec.to_builtins(rows)), nl=False)
        return 0
    for text in told(rows):
        click.echo(text)
    return 0


def _only(state_dir: Path) -> Target:
    target = find(None, state_dir)
    assert target is not None  # noqa: S101 - a state directory was named
    return target


def targets(table: Sequence[MountLine]) -> list[Target]:
    """Every registered mount, oldest first, then those of this user that only the mount table knows."""
    known = [registered(one) for one in registry.registrations()]
    places = {one.mountpoint for one in known}
    others = {
        line.mountpoint: Target(mountpoint=line.mountpoint, name=line.source, remote=line.source)
        for line in table
        if line.ours and line.user in (None, os.getuid()) and line.mountpoint not in places
    }
    return [*known, *others.values()]


def told(rows: Sequence[Row]) -> list[str]:
    """The lines for a person: one a mount, its columns under each other, and one more where something is to be done."""
    if not rows:
        return ["no mounts"]
    cells = [
        [escape(row.mountpoint or row.state_dir or ""), escape(row.remote or ""), row.health, _counts(row.queue)]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    lines = []
    for row, line in zip(rows, cells, strict=True):
        lines.append(
            "  ".join([*(f"{text:{width}}" for text, width in zip(line, widths, strict=False)), line[3]]).rstrip()
        )
        lines += [f"    {row.hint}"] if row.hint else []
    return lines


def _counts(queue: Numbers | None) -> str:
    if queue is None:
        return ""
    parts = [f"{queue.unsent} pending", counted(queue.dead_letter, "dead letter")]
    return ", ".join(parts + ([f"{queue.held} held"] if queue.held else []))


def _rows(asked: Sequence[Target]) -> list[Row]:
    """Asks those that are mounted, side by side, and looks into the state directories of the others."""
    with ExitStack() as stack:
        mounted = [target.mounted() is not None for target in asked]
        children = [
            stack.enter_context(LiveQueue(target).ask()) if there else None
            for target, there in zip(asked, mounted, strict=True)
        ]
        until = time.monotonic() + DEADLINE
        rows = [
            _at_rest(target, _STOPPED) if child is None else _answer(target, child, until)
            for target, child in zip(asked, children, strict=True)
        ]
    return [row for row in rows if row is not None]


def _answer(target: Target, child: Child, until: float) -> Row | None:
    try:
        status = msgspec.json.decode(child.next(until) or b"{}", type=Status)
    except TimedOut as error:
        return _row(target, _SILENT, None, error.hint)
    except OSError as error:
        # where only the mount table knows it, it may be somebody else's
        return None if error.errno in _FOREIGN and target.state_dir is None else _at_rest(target, _DEAD)
    except ChildFailed as error:
        return _row(target, _SILENT, None, str(error))
    if status.damage:
        return _row(target, status.health, None, _both(JournalDamaged(status.damage)), status.pid)
    look = f"fsmount writeback status {target.quoted}" if status.queue.dead_letter else None
    return _row(target, status.health, status.queue, look, status.pid)


def _at_rest(target: Target, health: str) -> Row:
    """Of a mount without a daemon; what it says of itself is in its state directory."""
    again = f"fsmount umount {target.quoted}" if target.state_dir is None else target.mount_command
    try:
        if target.state_dir is None:
            return _row(target, health, None, again)
        with opened(target) as queue:
            return _row(target, health, status_of(queue).queue, again)
    except JournalDamaged as error:
        return _row(target, health, None, _both(error))
    except StateError:
        return _row(target, _BUSY, None, f"look at {target.holder()}")
    except NotFound as error:
        return _row(target, health, None, error.message)
    except FsmountError as error:
        return _row(target, health, None, _both(error))


def _both(error: FsmountError) -> str:
    return escape(f"{error.message}; {error.hint}" if error.hint else error.message)


def _row(target: Target, health: str, queue: Numbers | None, hint: str | None, pid: int | None = None) -> Row:
    return Row(
        mountpoint=target.mountpoint,
        name=target.name,
        remote=target.remote,
        state_dir=None if target.state_dir is None else str(target.state_dir),
        pid=pid,
        health=health,
        queue=queue,
        hint=hint,
    )
