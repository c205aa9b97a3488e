"""The kinds of value that options take, as functions that click calls with the text.

Invariant: a value that passes is finite, in range and ready for ``Config``; any other is a usage error.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import click

from fsmount.config import parse_size
from fsmount.errors import UsageError

_TAKEN = ("mounts", "serve")
"""Names in the state home that are no mount's."""


def seconds(text: object) -> float:
    """A finite number of seconds, zero included."""
    try:
        number = float(str(text))
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise click.BadParameter(f"{text!r} is no number of seconds")
    return number


def positive_seconds(text: object) -> float:
    """A finite number of seconds above zero."""
    number = seconds(text)
    if number == 0:
        raise click.BadParameter("it must be more than 0 seconds")
    return number


def days(text: object) -> float:
    """A finite number of days, zero included, in seconds."""
    try:
        return seconds(text) * 86400.0
    except click.BadParameter as error:
        raise click.BadParameter(f"{text!r} is no number of days") from error


def size(text: object) -> str:
    """``10G`` or ``80%``, as it was written: the share of which disk is known later."""
    try:
        parse_size(str(text), Path("/"))
    except UsageError as error:
        raise click.BadParameter(f"{error.message}: {error.hint}") from error
    return str(text)


def octal(text: object) -> int:
    """Permission bits such as 022."""
    bits = int(str(text), 8) if re.fullmatch("[0-7]{1,4}", str(text)) else -1
    if not 0 <= bits <= 0o777:
        raise click.BadParameter(f"{text!r} is no umask: three octal digits such as 022")
    return bits


def mount_name(text: object) -> str:
    """A name that is safe as one directory's and does not look like a path or an option."""
    name = str(text)
    allowed = all(char.isascii() and (char.isalnum() or char in "._-") for char in name)
    if not allowed or not name or name.startswith((".", "-")) or name in _TAKEN or len(name) > 200:
        raise click.BadParameter(
            f"{name!r} cannot be a mount's name: use letters, digits, '.', '_' and '-', and not {' or '.join(_TAKEN)}"
        )
    return name
