"""``-o`` as mount(8) and ``/etc/fstab`` pass it on through mount.fuse3.

Invariant: each option is one of ours, one that only mount(8) itself heeds or that holds for every such mount, or it is
refused: none is silently without effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import click

from fsmount.cli.options import SECRETS
from fsmount.errors import UsageError

PREFIX = "fsmount#"
"""What mount.fuse3 strips of ``fsmount#REMOTE``, the form of fstab before subtypes."""
_SHORT = {"ro": "read_only"}
# fmt: off
_HEEDED_BY_OTHERS = frozenset({
    "defaults", "rw", "dev", "nodev", "suid", "nosuid", "exec", "atime", "noatime", "diratime", "nodiratime",
    "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "async", "auto", "noauto",
    "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "silent", "loud", "nomand", "noiversion",
    "default_permissions",
})
# fmt: on
_WITH_VALUE = ("comment", "user", "uhelper", "helper")


def expanded(texts: Sequence[str], options: Mapping[str, click.Parameter]) -> list[str]:
    """The command line's words for the values of ``-o``; raises UsageError. No value is repeated in an error."""
    return [word for text in texts for name, value in _split(text) for word in _words(name, value, options)]


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    r"""``NAME`` or ``NAME=VALUE``, between commas; ``\,`` is a comma of the value."""
    for one in re.split(r"(?<!\\),", text):
        if one.strip():
            name, equals, value = one.strip().partition("=")
            yield name, value.replace("\\,", ",") if equals else None


def _words(name: str, value: str | None, options: Mapping[str, click.Parameter]) -> list[str]:
    spelt = name.replace("-", "_")
    if spelt.lower() in SECRETS:
        raise UsageError(
            f"-o {name}: a secret given so is seen by every user of this machine",
            hint="-o token_file=FILE or -o token_command=COMMAND; replace what was shown",
        )
    if name in _HEEDED_BY_OTHERS or name.lower().startswith("x-") or (value is not None and name in _WITH_VALUE):
        return []
    option = options.get(_SHORT.get(spelt, spelt))
    if not isinstance(option, click.Option) or option.name in {"mount_options", "help", "foreground"}:
        raise UsageError(f"-o {name}: there is no such mount option", hint="see fsmount mount --help")
    flag = option.opts[-1]
    if option.is_flag:
        if value is not None:
            raise UsageError(f"-o {name} takes no value", hint=f"-o {name} alone")
        return [flag]
    if value is None:
        raise UsageError(f"-o {name} needs a value", hint=f"-o {name}={option.metavar or 'VALUE'}")
    return [f"{flag}={value}"]
