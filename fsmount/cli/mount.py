"""``fsmount mount``: options to one Config, checks, then the daemon.

Invariant: everything that can be known to be wrong is said before anything is forked, mounted or written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, Unpack

import click

from fsmount.cli import values
from fsmount.cli.checks import check_apart, check_machine, check_mountpoint
from fsmount.cli.daemon import launch
from fsmount.config import Config, Credentials, RemoteUrl, cache_home, mount_name, parse_remote, parse_size, state_home
from fsmount.errors import StateError, UsageError
from fsmount.statedir import StateDirectory

_GRACE = 10.0
"""Seconds beyond ``--timeout`` that a mount may take to come up: recovery, and taking over a dead mount."""


class Options(TypedDict):
    """What click hands over; the names are the options'."""

    remote: str
    mountpoint: str
    foreground: bool
    debug: bool
    log: Path | None
    name: str | None
    state_dir: Path | None
    cache_dir: Path | None
    token_file: Path | None
    token_command: str | None
    timeout: float
    attr_ttl: float
    settle: float
    max_settle: float
    open_settle: float
    max_attempts: int
    keep_discarded: float
    drain: float
    cache_limit: str
    spool_limit: str
    read_only: bool
    nonempty: bool
    allow_other: bool
    uid: int | None
    gid: int | None
    umask: int


Option = Callable[[Callable[..., int]], Callable[..., int]]
_SECONDS = "SECONDS"
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _option(name: str, explained: str, kind: object, default: object = None, metavar: str | None = None) -> Option:
    """One option with its default in the help; a default in brackets in ``explained`` is only text."""
    return click.option(
        name, type=kind, default=default, show_default=default is not None, metavar=metavar, help=explained
    )


_PLACES: list[Option] = [
    _option(
        "--name",
        "What the mount, its state and its cache are called.  [default: from REMOTE]",
        values.mount_name,
        metavar="NAME",
    ),
    _option("--state-dir", "Where the queue lives.  [default: $XDG_STATE_HOME/fsmount/NAME]", _FOLDER),
    _option("--cache-dir", "Where content is cached.  [default: $XDG_CACHE_HOME/fsmount/NAME]", _FOLDER),
    _option("--log", "Where the daemon logs.  [default: log in the state directory]", _FILE),
]
_CREDENTIALS: list[Option] = [
    _option("--token-file", "The token is its first line; read again when refused.", _FILE),
    _option("--token-command", "Run this to get the token.", str, metavar="COMMAND"),
]
_BEHAVIOUR: list[Option] = [
    _option(
        "--timeout", "The longest that one system call waits for the remote.", values.positive_seconds, 30, _SECONDS
    ),
    _option("--attr-ttl", "How long a listing counts as fresh.", values.seconds, 5, _SECONDS),
    _option("--settle", "How long a closed file rests before it is sent.", values.seconds, 0.3, _SECONDS),
    _option("--max-settle", "The longest that repeated saves put sending off.", values.seconds, 3, _SECONDS),
    _option("--open-settle", "How long a flushed file that stays open rests.", values.seconds, 5, _SECONDS),
    _option("--max-attempts", "Charged attempts before a write is a dead letter.", click.IntRange(1), 8, "N"),
    _option("--keep-discarded", "How long discarded writes are kept.", values.days, 30, "DAYS"),
    _option("--drain", "How long unmounting goes on delivering.", values.seconds, 10, _SECONDS),
    _option("--cache-limit", "Content kept to be read again: a size, or % of the disk.", str, "10G", "SIZE"),
    _option("--spool-limit", "Unsent content: a size, or % of the disk.", str, "80%", "SIZE"),
]
_ACCESS: list[Option] = [
    click.option("--read-only", is_flag=True, help="Refuse every write."),
    click.option("--nonempty", is_flag=True, help="Mount over a directory that holds something."),
    click.option("--allow-other", is_flag=True, help="Let other users in."),
    _option("--uid", "Who owns the files.  [default: you]", click.IntRange(0), metavar="UID"),
    _option("--gid", "Which group they belong to.  [default: yours]", click.IntRange(0), metavar="GID"),
    _option("--umask", "Permission bits taken away.", values.octal, "022", "OCTAL"),
]


def _options(function: Callable[..., int]) -> Callable[..., int]:
    """All options of the command, in the order of its help page."""
    for option in reversed([*_PLACES, *_CREDENTIALS, *_BEHAVIOUR, *_ACCESS]):
        function = option(function)
    return function


@click.command(
    context_settings={"auto_envvar_prefix": "FSMOUNT"},
    epilog="The token comes from --token-file, --token-command or the variable FSMOUNT_TOKEN, never from the command "
    "line. Every option can be given as a variable too: --attr-ttl is FSMOUNT_ATTR_TTL.",
)
@click.argument("remote", metavar="REMOTE")
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, until Ctrl-C.")
@click.option("--debug", is_flag=True, help="Log every operation, and show tracebacks.")
@_options
def mount(**options: Unpack[Options]) -> int:
    """Mount REMOTE at MOUNTPOINT, an existing empty directory.

    REMOTE is relayfile+http://HOST[:PORT]/WORKSPACE[/SUBTREE], or relayfile+https://… The command returns when the
    mount answers, and the mount goes on in the background. 'fsmount umount MOUNTPOINT' ends it.
    """
    config = configure(options)
    holder = StateDirectory(config.state_dir).holder()
    if holder is not None and holder.serving:
        raise StateError(
            f"{config.name} is mounted already by {holder}",
            hint="fsmount umount ends it; another --name mounts it a second time",
        )
    return _in_foreground(config) if config.foreground else _in_background(config)


def configure(options: Options) -> Config:
    """The one Config of this mount; raises UsageError, MachineLacks, StateError or TimedOut for what cannot be."""
    remote = parse_remote(options["remote"])
    check_machine(allow_other=options["allow_other"])
    mountpoint = check_mountpoint(options["mountpoint"], nonempty=options["nonempty"])
    name = options["name"] or mount_name(remote)
    state_dir = _absolute(options["state_dir"] or state_home() / name)
    cache_dir = _absolute(options["cache_dir"] or cache_home() / name)
    log_file = _absolute(options["log"] or state_dir / "log")
    check_apart(mountpoint, {"--state-dir": state_dir, "--cache-dir": cache_dir, "--log": log_file})
    if options["settle"] > options["max_settle"]:
        raise UsageError("--settle is longer than --max-settle", hint="a file would be due before it has rested")
    return _config(options, remote, mountpoint, name, state_dir, cache_dir, log_file)


def _config(
    options: Options, remote: RemoteUrl, mountpoint: Path, name: str, state_dir: Path, cache_dir: Path, log_file: Path
) -> Config:
    return Config(
        remote=remote,
        mountpoint=mountpoint,
        name=name,
        state_dir=state_dir,
        cache_dir=cache_dir,
        log_file=log_file,
        credentials=_credentials(options),
        foreground=options["foreground"],
        debug=options["debug"],
        timeout=options["timeout"],
        attr_ttl=options["attr_ttl"],
        settle=options["settle"],
        max_settle=options["max_settle"],
        open_settle=options["open_settle"],
        max_attempts=options["max_attempts"],
        keep_discarded=options["keep_discarded"],
        drain=options["drain"],
        cache_limit=parse_size(options["cache_limit"], cache_dir),
        spool_limit=parse_size(options["spool_limit"], state_dir),
        read_only=options["read_only"],
        nonempty=options["nonempty"],
        allow_other=options["allow_other"],
        uid=os.getuid() if options["uid"] is None else options["uid"],
        gid=os.getgid() if options["gid"] is None else options["gid"],
        umask=options["umask"],
    )


def _credentials(options: Options) -> Credentials:
    if options["token_file"] and options["token_command"]:
        raise UsageError("--token-file and --token-command were both given", hint="give the one that holds the token")
    token_file = options["token_file"]
    return Credentials(token_file=_absolute(token_file) if token_file else None, token_command=options["token_command"])


def _absolute(path: Path) -> Path:
    """Without links as far as they can be known by text: the daemon works in ``/``."""
    return Path(os.path.abspath(path))


def _in_foreground(config: Config) -> int:
    from fsmount.app.daemon import run

    return run(config, lambda: _tell(config, os.getpid()))


def _in_background(config: Config) -> int:
    def serve(ready: Callable[[], None]) -> int:
        from fsmount.app.daemon import run

        return run(config, ready)

    pid = launch(serve, patience=config.timeout + _GRACE, log=str(config.log_file))
    _tell(config, pid)
    return 0


def _tell(config: Config, pid: int) -> None:
    lines = [
        f"mounted {config.remote} at {config.mountpoint}",
        f"state {config.state_dir}",
        f"log {config.log_file}",
        f"pid {pid}",
    ]
    click.echo("\n".join(lines))
