"""``fsmount writeback``: what is queued, what failed and why, and what to do with it.

Invariant: ``status`` exits 1 if and only if there are dead letters now; what happened once does not count.
"""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.diff import diff
from fsmount.cli.queue import opened, read_status, unknown
from fsmount.cli.queued import queued
from fsmount.cli.target import find, known, state_dir_option
from fsmount.cli.verbs import discard, retry

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
@click.option(
    "--watch",
    is_flag=True,
    help="Go on until Ctrl-C: refreshed every second on a terminal, elsewhere printed anew at each change.",
)
@state_dir_option
def status(mount: str | None, state_dir: Path | None, *, as_json: bool, watch: bool) -> int:
    """Show counts, failures and last errors.

    What is pending, sending, blocked, held or a dead letter, with the command that would retry each, and the last
    error of each provider. Exits 1 if there are dead letters now, else 0.
    """
    target = find(mount, state_dir)
    if target is None:
        click.echo(_NO_MOUNTS if as_json else "no mounts", nl=not as_json)
        return 0
    if watch:
        from fsmount.cli.watch import watch as show_on_and_on

        return show_on_and_on(target, as_json=as_json)
    with opened(target) as queue:
        exact = queue.status_json()
        click.echo(exact if as_json else queue.status_text(), nl=False)
    return 1 if read_status(exact).queue.dead_letter else 0


writeback.add_command(queued)


@writeback.command()
@click.argument("op")
@click.argument("mount", required=False)
@state_dir_option
def show(op: str, mount: str | None, state_dir: Path | None) -> int:
    """Show one op, whole, as JSON."""
    with opened(known(mount, state_dir)) as queue:
        found = queue.show(op)
    if found is None:
        raise unknown(op)
    click.echo(found[1], nl=False)
    return 0


writeback.add_command(diff)
writeback.add_command(retry)
writeback.add_command(discard)
