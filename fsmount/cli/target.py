"""Which mount a command is about: a mount point, a path inside one, a name, a state directory, or nothing said.

Invariant: finding it touches no mount in this process; a path that has to be resolved through links is resolved in a
child.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from msgspec import Struct
from msgspec.structs import replace

from fsmount import registry
from fsmount.cli.child import in_child
from fsmount.config import mount_name, parse_remote, state_home
from fsmount.errors import NotFound, UsageError
from fsmount.mounttable import MountLine, is_within, mounted_at, mounts
from fsmount.render.escape import escape
from fsmount.statedir import Holder, StateDirectory


def state_dir_instead_of(argument: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """``--state-dir``, for a command whose argument of that name says which mount."""
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help=f"Take the mount that uses this state directory, instead of {argument}.",
    )


state_dir_option = state_dir_instead_of("MOUNT")
"""For every command that takes a MOUNT."""


class Target(Struct, frozen=True, kw_only=True):
    """One mount as far as it is known. Without ``state_dir`` it was found in the mount table alone."""

    mountpoint: str | None = None
    name: str = ""
    state_dir: Path | None = None
    remote: str | None = None
    said: bool = False
    """Whether it was named, and not found because nothing was said."""

    def __str__(self) -> str:
        """For a person; escaped."""
        return escape(self.mountpoint or str(self.state_dir))

    @property
    def quoted(self) -> str:
        """What a suggested command needs to mean this mount."""
        if self.mountpoint is not None:
            return escape(shlex.quote(self.mountpoint))
        return f"--state-dir {escape(shlex.quote(str(self.state_dir)))}"

    @property
    def argument(self) -> str:
        """The same with a blank before it; empty where there is no other mount that could be meant."""
        return f" {self.quoted}" if self.said or len(registry.registrations()) > 1 else ""

    @property
    def mount_command(self) -> str:
        """What mounts it again with the same state, as far as that is known."""
        words = ["fsmount", "mount", self.remote or "REMOTE", self.mountpoint or "MOUNTPOINT"]
        if self.state_dir is not None and self.state_dir != _default_state_dir(self.remote):
            words += ["--state-dir", str(self.state_dir)]
        return escape(shlex.join(words))

    def holder(self) -> Holder | None:
        """Who uses the state directory now."""
        return StateDirectory(self.state_dir).holder() if self.state_dir is not None else None

    def mounted(self) -> MountLine | None:
        """Its line of the mount table, if this program's mount is visible at the mount point."""
        line = mounted_at(self.mountpoint) if self.mountpoint else None
        return line if line is not None and line.ours else None

    def whom_to_look_at(self) -> str:
        """The hint for a mount that is silent."""
        holder, line = self.holder(), self.mounted()
        who = f"look at {holder}" if holder else "its daemon is not known here"
        abort = f"; as root, echo 1 > /sys/fs/fuse/connections/{line.minor}/abort frees what hangs" if line else ""
        return who + abort


def known(mount: str | None, state_dir: Path | None) -> Target:
    """As ``find``; raises NotFound where no mount is known."""
    target = find(mount, state_dir)
    if target is None:
        raise NotFound("no mount is known", hint="name one, or use --state-dir")
    return target


def find(mount: str | None, state_dir: Path | None = None) -> Target | None:
    """The mount that is meant; None only where nothing was said and no mount is known.

    A MOUNT that was said wins over ``FSMOUNT_STATE_DIR``, which is meant for all commands of one environment.
    Raises NotFound for a MOUNT that is none, UsageError where several could be meant, TimedOut where a link cannot be
    resolved.
    """
    if mount is not None and state_dir is not None:
        raise UsageError("MOUNT and --state-dir both say which mount", hint="give one of them")
    from_environment = os.environ.get("FSMOUNT_STATE_DIR") if mount is None else None
    if state_dir is None and from_environment:
        state_dir = Path(from_environment)
    if state_dir is not None:
        return replace(_by_state_dir(Path(os.path.abspath(state_dir))), said=not from_environment)
    if mount is not None:
        return replace(_by_text(mount), said=True)
    return _around_here() or _the_only_one()


def _by_state_dir(path: Path) -> Target:
    if (used := registry.using(path)) is not None:
        return registered(used)
    if not path.is_dir():
        raise NotFound(f"there is no state directory {escape(str(path))}")
    return Target(state_dir=path, name=path.name)


def _by_text(text: str) -> Target:
    path = os.path.abspath(text)
    if (found := _around(path)) is not None:
        return found
    if len(same := registry.named(text)) == 1:
        return registered(same[0])
    if same:
        raise UsageError(
            f"several mounts are named {escape(text)}",
            hint="say which: " + ", ".join(escape(one.mountpoint) for one in same),
        )
    resolved = resolve(path)
    if resolved != path and (found := _around(resolved)) is not None:
        return found
    raise NotFound(f"{escape(text)} is no mount of fsmount, nor inside one", hint=_known())


def resolve(path: str) -> str:
    """``path`` without links, worked out in a child; raises TimedOut where something on the way is wedged."""
    answer = in_child(
        lambda: os.fsencode(os.path.realpath(path)), what=path, hint="a mount on that path hangs; look at its daemon"
    )
    return os.fsdecode(answer)


def _around_here() -> Target | None:
    try:
        return _around(os.getcwd())
    except FileNotFoundError:
        return None


def _around(path: str) -> Target | None:
    """The innermost mount that holds ``path``: the registry's, or one that only the mount table knows."""
    one = registry.around(path)
    lines = [line for line in mounts() if line.ours and is_within(path, line.mountpoint)]
    innermost = max(lines, key=lambda line: len(line.mountpoint), default=None)
    if innermost is not None and (one is None or len(one.mountpoint) < len(innermost.mountpoint)):
        return Target(mountpoint=innermost.mountpoint, name=innermost.source, remote=innermost.source)
    return registered(one) if one is not None else None


def _the_only_one() -> Target | None:
    """Of this user's registry: the mount table also has what others mounted."""
    there = registry.registrations()
    if len(there) > 1:
        raise UsageError("there are several mounts", hint=f"say which: {_places(there)}")
    return registered(there[0]) if there else None


def registered(one: registry.Registration) -> Target:
    """The mount that a registration tells of."""
    return Target(mountpoint=one.mountpoint, name=one.name, state_dir=Path(one.state_dir), remote=one.remote)


def _default_state_dir(remote: str | None) -> Path | None:
    try:
        return None if remote is None else state_home() / mount_name(parse_remote(remote))
    except UsageError:
        return None


def _known() -> str:
    there = registry.registrations()
    return f"known mounts: {_places(there)}" if there else "no mounts are known"


def _places(there: Sequence[registry.Registration]) -> str:
    return ", ".join(escape(one.mountpoint) for one in there)
