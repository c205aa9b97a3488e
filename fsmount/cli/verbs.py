"""``fsmount writeback retry`` and ``discard``: a person's decisions, one op at a time, all of them in one go.

Invariant: each op is tried whatever happened to the one before, and each that could not be is named with the reason.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from msgspec import Struct

from fsmount.cli.queue import (
    DEAD,
    DISCARDED,
    FORCE,
    HELD,
    PENDING,
    RETRY,
    Move,
    Queue,
    ShownOp,
    opened,
    read_op,
    unknown,
)
from fsmount.cli.target import known, state_dir_option
from fsmount.errors import FsmountError, UsageError, VerbRefused
from fsmount.render.escape import escape

_ID_LENGTH = 29
_FORCED = ("conflict", "remote-deleted")
"""Reasons for which there is another version to win over."""
_SOURCES = {RETRY: (DEAD, HELD, DISCARDED), FORCE: (DEAD,), DISCARDED: (DEAD, PENDING, HELD)}
_SAID = {RETRY: "will be tried again", FORCE: "will be saved over theirs", DISCARDED: "is given up"}

_op_ids = click.option(
    "--opId",
    "--op-id",
    "op_ids",
    metavar="OP",
    multiple=True,
    help="This op; give it again, or more OPs after it, for several.",
)


class Found(Struct, frozen=True, kw_only=True):
    """One op, and the directory it is in."""

    op: ShownOp
    where: str


@click.command()
@click.argument("mount", nargs=-1, metavar="[MOUNT]")
@_op_ids
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@click.option(
    "--provider", metavar="P", help="The dead letters of one provider, the first part of a path: github for /github/…"
)
@click.option(
    "--force",
    is_flag=True,
    help="Where the remote has another version, or deleted the file, let mine win; theirs is kept in "
    ".relay/discarded. With --all or --provider, what is no conflict is tried again as it is.",
)
@click.option("--wait", "wait_for", is_flag=True, help="Wait for them; exit 0 only when they were delivered.")
@state_dir_option
def retry(
    mount: tuple[str, ...],
    op_ids: tuple[str, ...],
    provider: str | None,
    state_dir: Path | None,
    *,
    every: bool,
    force: bool,
    wait_for: bool,
) -> int:
    """Have dead letters, held deletes or discarded ops tried again.

    Each keeps the version that it was made from, so it never overwrites what somebody else wrote since, unless --force
    says so; and then only the version that the conflict was with.
    """
    where, ops = _sorted_out(mount, op_ids, chosen=(every, provider is not None))
    target = known(where, state_dir)
    with opened(target) as queue:
        chosen = _looked_up(queue, ops) if ops else _newest(_dead_letters(queue, provider))
        verb_of = _forced_where_possible if force and not ops else lambda _op: FORCE if force else RETRY
        code = _each(queue, chosen, verb_of, provider)
    if not wait_for or code:
        return code
    from fsmount.cli.wait import wait_for_ops

    sizes = {found.op.op_id: found.op.size or 0 for found in chosen if isinstance(found, Found)}
    return wait_for_ops(target, sizes, timeout=None)


@click.command()
@click.argument("mount", nargs=-1, metavar="[MOUNT]")
@_op_ids
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@state_dir_option
def discard(mount: tuple[str, ...], op_ids: tuple[str, ...], state_dir: Path | None, *, every: bool) -> int:
    """Give dead letters, held deletes or pending ops up.

    Record and content are kept in .relay/discarded for 30 days (--keep-discarded), and 'retry' brings an op back
    until then. The path then shows what it was before; a delete that is given up brings the file back.
    """
    where, ops = _sorted_out(mount, op_ids, chosen=(every,))
    with opened(known(where, state_dir)) as queue:
        return _each(queue, _looked_up(queue, ops) if ops else _dead_letters(queue, None), lambda _op: DISCARDED)


def _sorted_out(
    arguments: Sequence[str], op_ids: Sequence[str], *, chosen: tuple[bool, ...]
) -> tuple[str | None, list[str]]:
    """MOUNT and the ops: those of ``--opId``, and what stands outside options and looks like one."""
    more = [text for text in arguments if text.startswith("op_") and len(text) == _ID_LENGTH]
    mounts = [text for text in arguments if text not in more]
    if len(mounts) > 1:
        raise UsageError(f"one mount at a time, not {' and '.join(map(escape, mounts))}")
    if sum(chosen) + bool(op_ids or more) != 1:
        options = ["--opId", "--all", "--provider"][: len(chosen) + 1]
        raise UsageError(
            f"say which ops: exactly one of {', '.join(options)}",
            hint="'fsmount writeback status' names the dead letters",
        )
    return (mounts[0] if mounts else None), list(dict.fromkeys([*op_ids, *more]))


def _looked_up(queue: Queue, op_ids: Sequence[str]) -> list[Found | FsmountError]:
    """Each of them, or the error for one that is nowhere."""
    found = zip(op_ids, queue.show_each(op_ids), strict=True)
    return [unknown(op_id) if it is None else Found(op=read_op(it[1]), where=it[0]) for op_id, it in found]


def _dead_letters(queue: Queue, provider: str | None) -> list[Found | FsmountError]:
    ops = (read_op(text) for where, text in queue.ops((DEAD,)) if where == DEAD)
    return [Found(op=op, where=DEAD) for op in ops if provider is None or op.provider == provider]


def _newest(dead: Sequence[Found | FsmountError]) -> list[Found | FsmountError]:
    """The newest of each path, having said how many others there are: an older one cannot be sent any more."""
    newest = {found.op.target: found for found in dead if isinstance(found, Found)}
    left = len(dead) - len(newest)
    if left:
        of = (
            "an older dead letter of the same path is" if left == 1 else f"{left} older dead letters of these paths are"
        )
        click.echo(f"{of} left; discarded when the newer one is delivered")
    return list(newest.values())


def _forced_where_possible(op: ShownOp) -> str:
    return FORCE if op.reason in _FORCED else RETRY


def _each(
    queue: Queue,
    chosen: Sequence[Found | FsmountError],
    verb_of: Callable[[ShownOp], str],
    provider: str | None = None,
) -> int:
    """Steers all of them, whatever happens to one; raises the last error, having said the others."""
    failed = [found for found in chosen if isinstance(found, FsmountError)]
    moves: dict[str, tuple[Move, ShownOp]] = {}
    for found in chosen:
        if isinstance(found, FsmountError):
            continue
        verb = verb_of(found.op)
        if (refusal := _unfit(found, verb)) is not None:
            failed.append(refusal)
        elif found.where in _SOURCES[verb]:
            moves[found.op.op_id] = Move(op_id=found.op.op_id, source=found.where, verb=verb), found.op
        else:
            click.echo(f"{found.op.op_id} is {found.where} already: {_path(found.op)}")
    answers = queue.move([move for move, _op in moves.values()])
    for (move, op), error in zip(moves.values(), answers, strict=True):
        if error is None:
            click.echo(f"{op.op_id} {_SAID[move.verb]}: {_path(op)}")
        else:
            failed.append(error)
    if not chosen:
        click.echo(
            "there are no dead letters" if provider is None else f"no dead letters of provider {escape(provider)}"
        )
    _raise_last(failed)
    return 0


def _unfit(found: Found, verb: str) -> FsmountError | None:
    """Why an op cannot be forced: asked for by name, so doing something else instead would not be what was meant."""
    if verb != FORCE or (found.where == DEAD and found.op.reason in _FORCED):
        return None
    what = found.op.reason or found.where
    return VerbRefused(errno.EPERM, f"{found.op.op_id} cannot be forced: it is {what}, no conflict; leave --force out")


def _path(op: ShownOp) -> str:
    return escape(op.path if op.to_path is None else f"{op.path} → {op.to_path}")


def _raise_last(failed: Sequence[FsmountError]) -> None:
    for other in failed[:-1]:
        click.echo(f"fsmount: error: {other.message}", err=True)
    if failed:
        raise failed[-1]
