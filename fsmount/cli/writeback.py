"""``fsmount writeback``: what is queued, what failed and why, and what to do with it.

Invariant: ``status`` exits 1 if and only if there are dead letters now; what happened once does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from fsmount.cli.queue import (
    DEAD,
    DISCARDED,
    PENDING,
    RETRY,
    Queue,
    ShownOp,
    opened,
    read_status,
    shown,
    steer,
    unknown,
)
from fsmount.cli.target import Target, find, state_dir_option
from fsmount.errors import FsmountError, NotFound, UsageError, VerbRefused

_OP = re.compile(r"op_[0-9a-z]{26}")
_NO_MOUNTS = b"""{
  "schema": "fsmount.status/1",
  "name": null,
  "remote": null,
  "mountpoint": null,
  "pid": null,
  "health": "stopped",
  "queue": {
    "pending": 0, "sending": 0, "blocked": 0, "held": 0, "deadLetter": 0, "discarded": 0, "bytes": 0, "oldestAt": null
  },
  "transfers": [],
  "failedAttempts": 0,
  "failedWritebacks": 0,
  "deadLetters": [],
  "lastErrorByProvider": {}
}
"""
"""``status --json`` where no mount is known: the members that scripts ask for, all of them empty."""

_op_ids = click.option(
    "--opId",
    "--op-id",
    "op_ids",
    metavar="OP",
    multiple=True,
    help="This op; give it again, or more OPs after it, for several.",
)


class _InOrder(click.Group):
    """Lists its commands as they are defined: first looking, then doing."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(
    cls=_InOrder,
    epilog="MOUNT is a mount point, any path inside one, or a mount's name; left out, the mount around here or the "
    "only one.",
)
def writeback() -> None:
    """See and steer the queue of writes.

    With a running mount these commands read and use MOUNTPOINT/.relay; without one they work on the state directory,
    offline and without a token.
    """


@writeback.command()
@click.argument("mount", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print status.json instead.")
@state_dir_option
def status(mount: str | None, state_dir: Path | None, *, as_json: bool) -> int:
    """Show counts, failures and last errors.

    What is pending, sending, blocked or a dead letter, with the command that would retry each, and the last error of
    each provider. Exits 1 if there are dead letters now, else 0.
    """
    target = find(mount, state_dir)
    if target is None:
        click.echo(_NO_MOUNTS if as_json else "no mounts", nl=not as_json)
        return 0
    with opened(target) as queue:
        exact = queue.status_json()
        click.echo(exact if as_json else queue.status_text(), nl=False)
    return 1 if read_status(exact).queue.dead_letter else 0


@writeback.command()
@click.argument("op")
@click.argument("mount", required=False)
@state_dir_option
def show(op: str, mount: str | None, state_dir: Path | None) -> int:
    """Show one op, whole, as JSON."""
    with opened(_known(mount, state_dir)) as queue:
        found = queue.show(op)
    if found is None:
        raise unknown(op)
    click.echo(found[1], nl=False)
    return 0


@writeback.command()
@click.argument("mount", nargs=-1, metavar="[MOUNT]")
@_op_ids
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@click.option(
    "--provider", metavar="P", help="The dead letters of one provider, the first part of a path: github for /github/…"
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
    wait_for: bool,
) -> int:
    """Have dead letters, or discarded ops, tried again.

    Each keeps the version that it was made from, so it never overwrites what somebody else wrote since.
    """
    where, ops = _sorted_out(mount, op_ids, chosen=(every, provider is not None))
    target = _known(where, state_dir)
    with opened(target) as queue:
        chosen = ops or _newest(queue, _dead_letters(queue, provider))
        code = _each(queue, chosen, RETRY, (DEAD, DISCARDED), provider)
    if not wait_for or code:
        return code
    from fsmount.cli.wait import wait_for_ops

    return wait_for_ops(target, chosen, timeout=None)


@writeback.command()
@click.argument("mount", nargs=-1, metavar="[MOUNT]")
@_op_ids
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@state_dir_option
def discard(mount: tuple[str, ...], op_ids: tuple[str, ...], state_dir: Path | None, *, every: bool) -> int:
    """Give dead letters, or pending ops, up.

    Record and content are kept in .relay/discarded for 30 days (--keep-discarded), and 'retry' brings an op back
    until then.
    """
    where, ops = _sorted_out(mount, op_ids, chosen=(every,))
    with opened(_known(where, state_dir)) as queue:
        return _each(queue, ops or _dead_letters(queue, None), DISCARDED, (DEAD, PENDING))


def _known(mount: str | None, state_dir: Path | None) -> Target:
    target = find(mount, state_dir)
    if target is None:
        raise NotFound("no mount is known", hint="name one, or use --state-dir")
    return target


def _sorted_out(
    arguments: Sequence[str], op_ids: Sequence[str], *, chosen: tuple[bool, ...]
) -> tuple[str | None, list[str]]:
    """MOUNT and the ops, from what stands outside options: after ``--opId`` it may be further ops."""
    more = [text for text in arguments if op_ids and _OP.fullmatch(text)]
    mounts = [text for text in arguments if text not in more]
    if len(mounts) > 1:
        raise UsageError(f"one mount at a time, not {' and '.join(mounts)}")
    if sum(chosen) + bool(op_ids) != 1:
        options = ["--opId", "--all", "--provider"][: len(chosen) + 1]
        raise UsageError(
            f"say which ops: exactly one of {', '.join(options)}",
            hint="'fsmount writeback status' names the dead letters",
        )
    return (mounts[0] if mounts else None), list(dict.fromkeys([*op_ids, *more]))


def _dead_letters(queue: Queue, provider: str | None) -> list[str]:
    dead = queue.ids(DEAD)
    return [op_id for op_id in dead if provider is None or _is_of(shown(queue, op_id), provider)]


def _newest(queue: Queue, dead: Sequence[str]) -> list[str]:
    """The newest of each path, having said how many others there are: an older one cannot be sent any more."""
    newest = {op.to_path or op.path: op_id for op_id in dead if (op := shown(queue, op_id)) is not None}
    left = len(dead) - len(newest)
    if left:
        of = (
            "an older dead letter of the same path is" if left == 1 else f"{left} older dead letters of these paths are"
        )
        click.echo(f"{of} left; discarded when the newer one is delivered")
    return list(newest.values())


def _is_of(op: ShownOp | None, provider: str) -> bool:
    return op is not None and op.provider == provider


def _each(queue: Queue, ops: Iterable[str], verb: str, sources: tuple[str, ...], provider: str | None = None) -> int:
    """Steers all of them, whatever happens to one; raises the last error, having said the others."""
    failed: list[FsmountError] = []
    done = 0
    for op_id in ops:
        try:
            click.echo(steer(queue, op_id, verb, sources))
            done += 1
        except (NotFound, VerbRefused) as error:
            failed.append(error)
    if not failed and not done:
        click.echo("there are no dead letters" if provider is None else f"no dead letters of provider {provider}")
    for other in failed[:-1]:
        click.echo(f"fsmount: error: {other.message}", err=True)
    if failed:
        raise failed[-1]
    return 0
