"""``fsmount try``: the tour. Real commands, their real output, and a check of each.

Invariant: what is printed after ``$`` is what ran, and a step that did not give what it should ends the tour with 1.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import click
from msgspec import Struct

from fsmount.cli.stage import SAMPLES, Stage, stage
from fsmount.errors import FsmountError

_SOON, _AGAIN = 5.0, 0.3


class Step(Struct, frozen=True, kw_only=True):
    """One thing shown: a sentence, a command, and what shows that it worked."""

    says: str
    command: str
    shows: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)
    outside: bool = False
    """Whether it runs outside the mount."""
    soon: bool = False
    """Whether it may take a moment to show: a rendering of ``.relay`` is up to a second old."""


@click.command("try")
@click.argument("mountpoint", required=False, type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Leave server and mount running at the end, until Ctrl-C.")
def tour(mountpoint: Path | None, *, keep: bool) -> int:
    """See it work, in less than a minute.

    Starts a server with a few sample files, mounts it (at MOUNTPOINT, an existing empty directory, or at a temporary
    one), and goes through reading, editing, a refused write and its retry, with real commands and their real output.
    Everything is taken down again; nothing of yours is touched.
    """
    signal.signal(signal.SIGTERM, _as_interrupt)
    with stage(mountpoint) as ready:
        click.echo(f"# A server with {len(SAMPLES)} sample files is running: {ready.remote}")
        for step in _steps(ready):
            _show(ready, step)
        if keep:
            _stay(ready)
        _show(ready, _last(ready))
    click.echo("\nThat was it; everything is taken down again. Next: fsmount mount --help")
    return 0


def _as_interrupt(signum: int, frame: object) -> None:
    """SIGTERM takes everything down as Ctrl-C does."""
    del signum, frame
    raise KeyboardInterrupt


def _steps(ready: Stage) -> Iterator[Step]:
    yield from _reading(ready)
    yield from _refused()
    yield from _retried(ready)


def _reading(ready: Stage) -> Iterator[Step]:
    place = shlex.quote(str(ready.mountpoint))
    token = shlex.quote(str(ready.token_file))
    yield Step(
        says="Mount it.",
        command=f"fsmount mount {ready.remote} {place} --token-file {token}",
        shows=(f"mounted {ready.remote}",),
        outside=True,
    )
    click.echo(f"\n$ cd {place}")
    yield Step(says="It is a directory like any other.", command="ls -a . github/issues", shows=("7.json", ".relay"))
    yield Step(says="Read a file.", command="cat github/issues/7.json", shows=('"state": "open"',))
    yield Step(
        says="Edit it with whatever you like; here with sed.",
        command="""sed -i 's/"open"/"closed"/' github/issues/7.json && cat github/issues/7.json""",
        shows=('"state": "closed"',),
    )
    yield Step(
        says="A save returns at once; delivering goes on behind it. Scripts can wait for it.",
        command="fsmount wait",
        shows=(),
    )
    yield Step(
        says="The server has it.", command=_look(ready, "/github/issues/7.json"), shows=('\\"state\\": \\"closed\\"',)
    )


def _refused() -> Iterator[Step]:
    yield Step(
        says="Now a write that the server refuses: a rule there wants a title.",
        command="""echo '{"number": 8, "title": ""}' > github/issues/8.json""",
    )
    yield Step(
        says="It became a dead letter, and the one who waits for it is told.",
        command="fsmount wait",
        codes=(1, 0),
    )
    yield Step(
        says="Nothing is lost: the mount goes on showing what you wrote.",
        command="cat github/issues/8.json",
        shows=('"number": 8',),
    )
    yield Step(
        says="The state of the mount, for people.",
        command="cat .relay/status",
        shows=("1 dead letter now", "8.json"),
        soon=True,
    )
    yield Step(
        says="Everything about the op that failed.",
        command="cat .relay/dead-letter/*.json",
        shows=('"lastStatus": 422', '"path": "/github/issues/8.json"', "title is required"),
        soon=True,
    )


def _retried(ready: Stage) -> Iterator[Step]:
    yield Step(
        says="Fix it. Usually you would save the file again: a newer save takes the dead letter's place. "
        "Here the rule was wrong.",
        command=f": > {shlex.quote(str(ready.rules))}",
    )
    yield Step(says="Retrying is a rename.", command="mv .relay/dead-letter/*.json .relay/retry/")
    yield Step(says="Delivered this time; if that was quick, nothing waits any more.", command="fsmount wait")
    yield Step(
        says="The server has this one too.",
        command=_look(ready, "/github/issues/8.json"),
        shows=('\\"number\\": 8',),
    )
    yield Step(
        says="And nothing is left to do; the exit code says so too.",
        command="ls .relay/dead-letter && fsmount writeback status",
        shows=("0 dead letters now",),
        soon=True,
    )


def _last(ready: Stage) -> Step:
    place = shlex.quote(str(ready.mountpoint))
    return Step(says="Unmount.", command=f"fsmount umount {place}", shows=("everything was delivered",), outside=True)


def _look(ready: Stage, path: str) -> str:
    """A command that asks the server for a file, past the mount."""
    address, token = ready.address_of(path), f"$(cat {shlex.quote(str(ready.token_file))})"
    if shutil.which("curl") is not None:
        return f'curl -sS -H "Authorization: Bearer {token}" -H "X-Correlation-Id: tour-look" "{address}"'
    program = (
        "import sys, urllib.request as r; sys.stdout.write(r.urlopen(r.Request(sys.argv[1], headers="
        "{'Authorization': 'Bearer ' + sys.argv[2], 'X-Correlation-Id': 'tour-look'})).read().decode())"
    )
    return f'{shlex.quote(sys.executable)} -c {shlex.quote(program)} "{address}" "{token}"'


def _show(ready: Stage, step: Step) -> None:
    """Says, runs, prints and checks one step."""
    click.echo(f"\n# {step.says}\n$ {step.command}")
    folder = Path("/") if step.outside else ready.mountpoint
    deadline = time.monotonic() + (_SOON if step.soon else 0.0)
    done = ready.shell(step.command, folder)
    while (wrong := _wrong(step, done)) and time.monotonic() < deadline:
        time.sleep(_AGAIN)
        done = ready.shell(step.command, folder)
    if done.stdout:
        click.echo(done.stdout, nl=not done.stdout.endswith("\n"))
    if wrong:
        raise FsmountError(f"{wrong}: {step.command}")


def _wrong(step: Step, done: CompletedProcess[str]) -> str | None:
    """What the step did not do as it should."""
    if done.returncode not in step.codes:
        return f"that ended with {done.returncode} where {step.codes[0]} was expected"
    missing = [text for text in step.shows if text not in done.stdout]
    return f"that did not show {missing[0]!r}" if missing else None


def _stay(ready: Stage) -> None:
    """Tells where everything is and waits for Ctrl-C (or SIGTERM)."""
    click.echo(
        f"\n# Everything stays until Ctrl-C. The mount: {ready.mountpoint}\n"
        f"# The rules of the server: {ready.rules} (read again at every request; 'fsmount serve --help')\n"
        f"# Its token: {ready.token_file}\n"
        f"# The queue: fsmount writeback status {shlex.quote(str(ready.mountpoint))}"
    )
    sys.stdout.flush()
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        click.echo("")
