"""Which mount a command is about: a mount point, a path inside one, a name, a state directory, or nothing said.

Invariant: finding it touches no mount in this process; a path that has to be resolved through links is resolved in a
child.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import click
from msgspec import Struct
from msgspec.structs import replace

from fsmount import registry
from fsmount.cli.child import in_child
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
    said: bool = False
    """Whether it was named, and not found because nothing was said."""

    def __str__(self) -> str:
        return self.mountpoint or str(self.state_dir)

    @property
    def argument(self) -> str:
        """What a suggested command needs to mean this mount too, with a blank before it; empty if nothing."""
        if not self.said and len(registry.registrations()) < 2:
            return ""
        if self.mountpoint is not None:
            return f" {escape(shlex.quote(self.mountpoint))}"
        return f" --state-dir {escape(shlex.quote(str(self.state_dir)))}"

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
    known = registry.using(path)
    if known is not None:
        return _registered(known)
    if not path.is_dir():
        raise NotFound(f"there is no state directory {path}")
    return Target(state_dir=path, name=path.name)


def _by_text(text: str) -> Target:
    path = os.path.abspath(text)
    if (found := _around(path)) is not None:
        return found
    if len(same := registry.named(text)) == 1:
        return _registered(same[0])
    if same:
        raise UsageError(
            f"several mounts are named {text}", hint="say which: " + ", ".join(one.mountpoint for one in same)
        )
    resolved = resolve(path)
    if resolved != path and (found := _around(resolved)) is not None:
        return found
    raise NotFound(f"{text} is no mount of fsmount, nor inside one", hint=_known())


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
    known = registry.around(path)
    lines = [line for line in mounts() if line.ours and is_within(path, line.mountpoint)]
    innermost = max(lines, key=lambda line: len(line.mountpoint), default=None)
    if innermost is not None and (known is None or len(known.mountpoint) < len(innermost.mountpoint)):
        return Target(mountpoint=innermost.mountpoint, name=innermost.source)
    return _registered(known) if known is not None else None


def _the_only_one() -> Target | None:
    """Of this user's registry: the mount table also has what others mounted."""
    known = [_registered(one) for one in registry.registrations()]
    if len(known) > 1:
        raise UsageError("there are several mounts", hint="say which: " + ", ".join(str(one) for one in known))
    return known[0] if known else None


def _registered(known: registry.Registration) -> Target:
    return Target(mountpoint=known.mountpoint, name=known.name, state_dir=Path(known.state_dir))


def _known() -> str:
    places = [one.mountpoint for one in registry.registrations()]
    return "known mounts: " + ", ".join(places) if places else "no mounts are known"
