"""``config.toml``: options that need not be said each time.

Invariant: what is read here is known, of the right type and no secret; anything else is refused with its line, and the
value of what might be a secret is not repeated.

    attr_ttl = 10                  # every mount
    litter = ["*.tmp", "*~"]

    [mount."work"]                 # the mount of that name, at that mount point or of that remote
    token_file = "~/.work-token"
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from msgspec import Struct

from fsmount.cli import values
from fsmount.cli.options import SECRETS
from fsmount.config import config_home
from fsmount.errors import MachineLacks, UsageError

LONGEST = 1 << 20
_OF_ONE_MOUNT = frozenset({"name", "state_dir", "cache_dir", "log"})
"""Two mounts that shared one of these would be in each other's way."""
_SAID_EACH_TIME = frozenset({"foreground", "break_lock", "mount_options", "help"})
_NUMBERS = (values.seconds, values.positive_seconds, values.days)

Values = dict[str, object]


class ConfigFile(Struct, frozen=True, kw_only=True):
    """The file as far as it is there. ``tables`` are those of single mounts by what they are headed with."""

    path: Path
    everywhere: Values
    tables: dict[str, Values]

    def chosen(self, headings: Sequence[str]) -> Values:
        """What holds for the mount that is known by ``headings``; of two tables that say something the later named."""
        found = dict(self.everywhere)
        for heading in headings:
            found |= self.tables.get(heading, {})
        return found


def place() -> Path | None:
    """Where the file is looked for; None where this user has no such place."""
    try:
        return config_home() / "config.toml"
    except MachineLacks:
        return None


def read(options: Mapping[str, click.Parameter]) -> ConfigFile:
    """The checked file, empty where there is none. ``options`` are those of ``fsmount mount``, by name.

    Raises UsageError for what is wrong in it, MachineLacks where it cannot be read.
    """
    path = place()
    text = "" if path is None else _text(path)
    if path is None or not text.strip():
        return ConfigFile(path=path or Path(), everywhere={}, tables={})
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}", hint="each line is KEY = VALUE or [mount.NAME]") from error
    return _Reading(path, text, options).checked(found)


def _text(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{path} is no regular file", hint="move it away, or write the options into a file")
            content = file.read(LONGEST + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise MachineLacks(
            f"{path} cannot be read: {error.strerror}", hint=f"chmod u+r {path}, or move it away"
        ) from error
    if len(content) > LONGEST:
        raise UsageError(f"{path} is longer than {LONGEST} bytes", hint="it holds options, a line each")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start})", hint="save it as UTF-8") from error


class _Reading:
    """One file while it is being checked."""

    def __init__(self, path: Path, text: str, options: Mapping[str, click.Parameter]) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._options = {
            name: option
            for name, option in options.items()
            if isinstance(option, click.Option) and name not in _SAID_EACH_TIME
        }

    def checked(self, found: Values) -> ConfigFile:
        """Everything of it; raises UsageError."""
        tables = found.pop("mount", {})
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            raise self._wrong(None, "mount", "must be tables", 'such as [mount."NAME"]')
        everywhere = {key: self._value(None, key, value) for key, value in found.items()}
        return ConfigFile(
            path=self._path,
            everywhere=everywhere,
            tables={
                os.path.expanduser(heading): {key: self._value(heading, key, value) for key, value in table.items()}
                for heading, table in tables.items()
            },
        )

    def _value(self, heading: str | None, key: str, value: object) -> object:
        if key.lower().replace("-", "_") in SECRETS:
            raise self._wrong(
                heading,
                key,
                "does not belong into this file",
                "name a token_file or token_command, or set FSMOUNT_TOKEN",
            )
        if key == "litter":
            return self._patterns(heading, value)
        option = self._options.get(key)
        if option is None:
            hint = self._meant(key) or "there are: " + ", ".join(sorted([*self._options, "litter"]))
            raise self._wrong(heading, key, "is no option", hint)
        if heading is None and key in _OF_ONE_MOUNT:
            raise self._wrong(heading, key, "is one mount's own", f'put it below a line [mount."NAME"]: {key} = …')
        return self._converted(heading, key, option, value)

    def _patterns(self, heading: str | None, value: object) -> tuple[str, ...]:
        patterns = value if isinstance(value, list) else [None]
        texts = tuple(one for one in patterns if isinstance(one, str) and one and "/" not in one)
        if len(texts) != len(patterns):
            raise self._wrong(heading, "litter", "must be a list of name patterns", 'such as litter = ["*.tmp", "*~"]')
        return texts

    def _converted(self, heading: str | None, key: str, option: click.Option, value: object) -> object:
        """``value`` as click takes it for that option."""
        kind = getattr(option.type, "func", None)
        if option.is_flag:
            fits, wanted = isinstance(value, bool), "true or false"
        elif kind in _NUMBERS:
            fits, wanted = isinstance(value, (int, float)), "a number"
        elif isinstance(option.type, click.IntRange):
            fits, wanted = isinstance(value, int), "a whole number"
        elif kind is values.size:
            fits, wanted = isinstance(value, (int, str)), 'a size such as "10G" or "80%"'
        elif isinstance(option.type, click.Path):
            fits, wanted = _is_place(value), 'a path that begins with / or ~/, such as "~/token"'
        else:
            fits, wanted = isinstance(value, str) and "\0" not in value, "a text in quotes"
        if not fits or (isinstance(value, bool) and not option.is_flag):
            raise self._wrong(heading, key, f"must be {wanted}", "see fsmount mount --help")
        given = os.path.expanduser(str(value)) if isinstance(option.type, click.Path) else value
        given = given if option.is_flag else str(given)
        try:
            option.type.convert(given, option, None)
        except click.BadParameter as error:
            raise self._wrong(heading, key, f"cannot be that: {error.message}", "see fsmount mount --help") from error
        return given

    def _meant(self, key: str) -> str | None:
        """The hint for a key that only needs another spelling."""
        spelt = key.lower().replace("-", "_")
        if spelt in self._options:
            return f"write {spelt}"
        return "give it on the command line" if spelt in _SAID_EACH_TIME else None

    def _wrong(self, heading: str | None, key: str, what: str, hint: str) -> UsageError:
        number = self._line(heading, key)
        where = f"{self._path}, line {number}" if number else str(self._path)
        return UsageError(f"{where}: {key} {what}", hint=hint)

    def _line(self, heading: str | None, key: str) -> int:
        """The number of the line where the key stands, 0 if it is not found: tomllib does not tell."""
        inside: str | None = None
        for number, line in enumerate(self._lines, 1):
            header = re.match(r"""\s*\[\s*mount\s*\.\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*\]""", line)
            if header is not None:
                inside = next(part for part in header.groups() if part is not None)
            elif re.match(r"\s*\[", line) and "=" not in line:
                inside = ""
            if inside == heading and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line):
                return number
        return 0


def _is_place(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and os.path.isabs(os.path.expanduser(value))
