"""``fsmount writeback status --watch``: the status, for as long as somebody looks.

Invariant: it outlives the daemon and a mount that is silent for a while, and holds no lock between two looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import msgspec
from msgspec import Struct

from fsmount.cli.bar import on_a_terminal
from fsmount.cli.queue import opened
from fsmount.cli.target import Target
from fsmount.errors import FsmountError

_EVERY = 1.0
_VOLATILE = ("uptimeSeconds", "connection", "cache", "spool", "counters")
"""Members of ``status.json`` that change though nothing happens to the queue; the connection's state is health's."""
_INTERRUPTED = 130
Printer = Callable[[str], None]


class Look(Struct, frozen=True, kw_only=True):
    """What is to be shown, and what tells whether anything happened since the last look."""

    text: str
    what: object


def watch(target: Target, *, as_json: bool) -> int:
    """Shows the status until Ctrl-C; the exit code."""
    live = on_a_terminal() and not as_json
    try:
        with (_screen if live else _paper)() as show:
            for look in _looks(target, as_json=as_json, always=live):
                show(look.text)
    except KeyboardInterrupt:
        pass
    return _INTERRUPTED


def _looks(target: Target, *, as_json: bool, always: bool) -> Iterator[Look]:
    """One a second; without ``always`` only those at which something had happened."""
    last, stamp = None, None
    while True:
        at_rest = _stamp(target)
        if last is None or at_rest is None or at_rest != stamp:
            look = _look(target, as_json=as_json)
            stamp = _stamp(target)
            if always or last is None or look.what != last.what:
                yield look
            last = look
        elif always:
            yield last
        time.sleep(_EVERY)


def _look(target: Target, *, as_json: bool) -> Look:
    try:
        with opened(target) as queue:
            exact = queue.status_json()
            text = exact.decode() if as_json else queue.status_text()
    except FsmountError as error:
        hint = f"fsmount: {error.hint}\n" if error.hint else ""
        return Look(text="" if as_json else f"fsmount: {error.message}\n{hint}", what=error.message)
    members = msgspec.json.decode(exact, type=dict[str, object])
    return Look(text=text, what={name: member for name, member in members.items() if name not in _VOLATILE})


def _stamp(target: Target) -> tuple[int, ...] | None:
    """When the state directory last changed; None while it is mounted, or may be about to be."""
    if target.mounted() is not None or target.state_dir is None or target.holder() is not None:
        return None
    try:
        return tuple(path.stat().st_mtime_ns for path in sorted(target.state_dir.glob("journal.db*")))
    except OSError:
        return None


@contextmanager
def _screen() -> Iterator[Printer]:
    """A block that is drawn over. No thread refreshes it, because the mount is looked at by forked children."""
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        yield lambda text: live.update(Text(text.rstrip("\n")), refresh=True)


@contextmanager
def _paper() -> Iterator[Printer]:
    """One block after the other, an empty line between them."""
    first = True

    def show(text: str) -> None:
        nonlocal first
        if text:
            click.echo(text if first else f"\n{text}", nl=False)
            first = False

    yield show
