"""The options of ``fsmount mount``: their kinds, defaults and help.

Invariant: one name serves everywhere: ``--attr-ttl``, ``FSMOUNT_ATTR_TTL``, ``attr_ttl`` in the configuration file and
``-o attr_ttl=``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import click

from fsmount.cli import values


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
    max_deletes: int
    keep_discarded: float
    drain: float
    cache_limit: str
    spool_limit: str
    discard_limit: str
    read_only: bool
    write_through: bool
    hide_relay: bool
    nonempty: bool
    allow_other: bool
    noexec: bool
    break_lock: bool
    uid: int | None
    gid: int | None
    umask: int
    litter: tuple[str, ...]


Option = Callable[[Callable[..., int]], Callable[..., int]]
_SECONDS = "SECONDS"
SECRETS = frozenset(
    {"token", "password", "passwd", "pass", "secret", "credential", "credentials", "bearer", "api_key", "fsmount_token"}
)
"""Names, spelt with ``_``, under which people give what has no place on a command line or in a configuration."""
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


def _option(name: str, explained: str, kind: object, default: object = None, metavar: str | None = None) -> Option:
    """One option with its default in the help; a default in brackets in ``explained`` is only text."""
    return click.option(
        name, type=kind, default=default, show_default=default is not None, metavar=metavar, help=explained
    )


def _flag(name: str, explained: str) -> Option:
    return click.option(name, is_flag=True, help=explained)


_PLACES: list[Option] = [
    _option(
        "--name",
        "What the mount, its state and its cache are called.  [default: from REMOTE]",
        values.mount_name,
        metavar="NAME",
    ),
    _option("--state-dir", "Where the queue lives.  [default: $XDG_STATE_HOME/fsmount/NAME]", FOLDER),
    _option("--cache-dir", "Where content is cached.  [default: $XDG_CACHE_HOME/fsmount/NAME]", FOLDER),
    _option("--log", "Where the daemon logs.  [default: log in the state directory]", FILE),
]
CREDENTIALS: list[Option] = [
    _option("--token-file", "The token is its first line; read again when refused.", FILE),
    _option("--token-command", "Run this to get the token.", str, metavar="COMMAND"),
]
_BEHAVIOUR: list[Option] = [
    _option(
        "--timeout", "The longest that one system call waits for the remote.", values.positive_seconds, 30, _SECONDS
    ),
    _option("--attr-ttl", "How long a listing counts as fresh without a change feed.", values.seconds, 5, _SECONDS),
    _option("--settle", "How long a closed file rests before it is sent.", values.seconds, 0.3, _SECONDS),
    _option("--max-settle", "The longest that repeated saves put sending off.", values.seconds, 3, _SECONDS),
    _option("--open-settle", "How long a flushed file that stays open rests.", values.seconds, 5, _SECONDS),
    _option("--max-attempts", "Charged attempts before a write is a dead letter.", click.IntRange(1), 8, "N"),
    _option("--max-deletes", "Deletes within a minute; more of them are held.", click.IntRange(0), 100, "N"),
    _option("--keep-discarded", "How long discarded writes are kept.", values.days, 30, "DAYS"),
    _option("--drain", "How long unmounting goes on delivering.", values.seconds, 10, _SECONDS),
    _option("--cache-limit", "Content kept to be read again: a size, or % of the disk.", values.size, "10G", "SIZE"),
    _option("--spool-limit", "Unsent content: a size, or % of the disk.", values.size, "80%", "SIZE"),
    _option("--discard-limit", "Discarded content: a size, or % of the disk.", values.size, "10G", "SIZE"),
]
_ACCESS: list[Option] = [
    _flag("--read-only", "Refuse every write."),
    _flag("--write-through", "Let close() wait until the remote has acknowledged it."),
    _flag("--hide-relay", "Leave .relay out of listings; it can still be entered."),
    _flag("--nonempty", "Mount over a directory that holds something."),
    _flag("--allow-other", "Let other users in."),
    _flag("--noexec", "Let no program be run from the mount."),
    _option("--uid", "Who owns the files.  [default: you]", click.IntRange(0, 2**32 - 2), metavar="UID"),
    _option("--gid", "Which group they belong to.  [default: yours]", click.IntRange(0, 2**32 - 2), metavar="GID"),
    _option("--umask", "Permission bits taken away.", values.octal, "022", "OCTAL"),
    click.option(
        "--break-lock",
        is_flag=True,
        allow_from_autoenv=False,
        help="Take the state directory over from another host or container that is gone.",
    ),
]


def mount_options(function: Callable[..., int]) -> Callable[..., int]:
    """All options of the command, in the order of its help page."""
    for option in reversed([*_PLACES, *CREDENTIALS, *_BEHAVIOUR, *_ACCESS]):
        function = option(function)
    return function
