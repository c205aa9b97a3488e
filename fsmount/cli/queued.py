"""``fsmount writeback list``: the ops of a mount, a line each.

Invariant: a line tells one op and nothing else, whatever its path holds; columns are parted by two blanks at least, and
what is of any length stands last.
"""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import click

from fsmount.cli.queue import DEAD, DISCARDED, HELD, PENDING, Queue, ShownOp, opened, read_op
from fsmount.cli.target import find, state_dir_option
from fsmount.render.escape import counted, escape, size, span

_STATES = {
    "pending": PENDING,
    "sending": PENDING,
    "held": HELD,
    "dead-letter": DEAD,
    "discarded": DISCARDED,
}
"""Each state and the directory that its ops are in."""
_UNRESOLVED = (PENDING, HELD, DEAD)


@click.command("list")
@click.argument("mount", required=False)
@click.option(
    "--state",
    type=click.Choice(list(_STATES)),
    help="Only ops in this state.  [default: all but discarded]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the ops, each as 'show' would.")
@state_dir_option
def queued(mount: str | None, state: str | None, state_dir: Path | None, *, as_json: bool) -> int:
    """List ops, a line each, oldest first.

    Id, state, kind, size, attempts, age, path (→ new name), and what it waits for or why it failed. An op that changes
    while this looks may be told as it was.
    """
    target = find(mount, state_dir)
    if target is None:
        click.echo("[]" if as_json else "no mounts")
        return 0
    with opened(target) as queue:
        found = _chosen(queue, state)
    if as_json:
        _print_array([text for _op, _where, text in found])
        return 0
    now = time.time()
    for op, where, _text in found:
        click.echo(line(op, where, now))
    return 0


def _chosen(queue: Queue, state: str | None) -> list[tuple[ShownOp, str, bytes]]:
    """Oldest first. A damaged record is where the dead letters are."""
    wanted = _UNRESOLVED if state is None else (_STATES[state],)
    met = ((read_op(text), where, text) for where, text in queue.ops(wanted))
    told = [one for one in met if state is None or _STATES[state] != PENDING or one[0].state == state]
    return sorted(told, key=lambda one: one[0].op_id)


def line(op: ShownOp, where: str, now: float) -> str:
    """One op for a person or for ``awk``, without a newline."""
    path = op.path if op.to_path is None else f"{op.path} → {op.to_path}"
    columns = [
        f"{op.op_id:29}",
        f"{op.state or where:11}",
        f"{op.kind:6}",
        f"{'-' if op.size is None else size(op.size):>10}",
        f"{counted(op.attempts, 'attempt'):>11}",
        f"{_age(op, now):>7}",
        escape(path),
        escape(f"waits for {op.blocked_by}" if op.blocked_by else _why(op)),
    ]
    return "  ".join(columns)


def _why(op: ShownOp) -> str:
    if op.reason is None or op.message.startswith(op.reason):
        return op.message
    return f"{op.reason}: {op.message}" if op.message else op.reason


def _age(op: ShownOp, now: float) -> str:
    try:
        return span(now - datetime.fromisoformat(op.created_at).timestamp())
    except ValueError:
        return "-"


def _print_array(texts: list[bytes]) -> None:
    """The ops as they are; each ends with a newline of its own."""
    if not texts:
        click.echo("[]")
        return
    click.echo(b"[\n" + b",\n".join(text.rstrip() for text in texts) + b"\n]")
