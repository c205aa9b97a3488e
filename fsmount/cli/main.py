"""The console script: finds the command, and turns every way to end into one line and an exit code.

Invariant: a person sees ``fsmount: error: …`` and what to do next, never a traceback unless ``--debug`` was given.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence

import click
from click.exceptions import NoArgsIsHelpError

from fsmount import __version__
from fsmount.errors import FsmountError
from fsmount.render.escape import escape

COMMANDS = {
    "mount": ("fsmount.cli.mount:mount", "Mount a remote file tree as a directory."),
    "umount": ("fsmount.cli.umount:umount", "Deliver what is queued, unmount, and say what remains."),
    "list": ("fsmount.cli.list:list_mounts", "List your mounts, how they are and what waits."),
    "wait": ("fsmount.cli.wait:wait", "Wait until the writes made so far are on the remote."),
    "writeback": ("fsmount.cli.writeback:writeback", "See and steer the queue of writes."),
    "doctor": ("fsmount.cli.doctor:doctor", "Check this machine, the mounts and a remote; say what to do."),
    "serve": ("fsmount.cli.serve:serve", "Run a relayfile-compatible server for tests and trials."),
    "try": ("fsmount.cli.tour:tour", "See it work: a server, a mount and a short tour."),
}
"""Where each command is, and what ``fsmount --help`` says of it: so that one command does not import the others."""
_REMOTE = re.compile(r"(fsmount#)?[A-Za-z][A-Za-z0-9+.-]*:/", re.ASCII)
_BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended."""


class Commands(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command itself, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 - tells the type checker what the table holds
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click. ``fsmount REMOTE MOUNTPOINT -o …``, as mount.fuse3 calls it, is ``fsmount mount``."""
        if args[0] not in COMMANDS and _REMOTE.match(args[0]):
            return "mount", self.get_command(ctx, "mount"), args
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """The list of ``--help``, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="'fsmount COMMAND --help' tells more. Exit codes: 0 done, 1 dead letters or failed, 2 usage, 3 no such "
    "mount or op, 4 the remote, 5 already in use, 6 timed out, 7 something missing on this machine, 130 interrupted.",
)
@click.version_option(__version__, message="fsmount %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks of unexpected errors.")
def fsmount(*, debug: bool) -> None:
    """Mount a remote file tree; writes go through a durable queue that you can see and steer.

    Reading and writing files on the mount is all most programs need. What happened to each write is shown below
    MOUNTPOINT/.relay (start with 'cat MOUNTPOINT/.relay/README'), and by 'fsmount writeback status'.
    """
    _ = debug  # read from argv by main, which must know it even when parsing failed


def main() -> None:
    """Runs the command in ``sys.argv`` and exits with its code."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; writes errors to stderr."""
    debug = "--debug" in argv
    try:
        code = _invoke(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_stdout()
        return _BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        return _complain("interrupted", None, 130)
    except FsmountError as error:
        trace = _trace_of(error) if debug else ""
        return _complain(error.message, error.hint, error.exit_code, trace=trace)
    except click.ClickException as error:
        return _misused(error)
    except Exception as error:  # noqa: BLE001 - the last place that can word it
        hint = None if debug else "'fsmount --debug …' shows where"
        return _complain(
            f"unexpected: {type(error).__name__}: {error}", hint, 1, trace=traceback.format_exc() if debug else ""
        )


def _invoke(argv: Sequence[str]) -> int:
    """What click's own ``main`` does, less what it thinks of a broken pipe and an interrupt."""
    try:
        with fsmount.make_context("fsmount", list(argv)) as context:
            code = fsmount.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return code if isinstance(code, int) else 0


def _trace_of(error: FsmountError) -> str:
    """Where it was raised; a daemon that failed to start brings its own."""
    brought = getattr(error, "trace", "")
    return brought if isinstance(brought, str) and brought else traceback.format_exc()


def _misused(error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, NoArgsIsHelpError):
        return _say([error.format_message()], 2)
    return _complain(error.format_message(), f"see {context.command_path} --help" if context else None, 2)


def _complain(message: str, hint: str | None, code: int, *, trace: str = "") -> int:
    lines = [f"fsmount: error: {_clean(message)}", *([f"fsmount: {_clean(hint)}"] if hint else [])]
    return _say([trace.rstrip(), *lines] if trace else lines, code)


def _clean(text: str) -> str:
    """Nothing in it that steers a terminal or begins a line, but for the indented lines of a list."""
    return "\n".join(escape(line) for line in re.split(r"\n(?=  )", text))


def _say(lines: Sequence[str], code: int) -> int:
    try:
        click.echo("\n".join(lines), err=True)
    except OSError:
        pass  # nobody reads it; the exit code still tells
    return code


def _drop_stdout() -> None:
    """Nobody reads stdout any more: keeps the interpreter from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
