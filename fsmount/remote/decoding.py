"""JSON of a server that is not ours, as structs of the protocol.

Invariant: a member that is null is as if it were missing, whatever its type, and a name that is no Unicode text keeps
no other name from being read. Nothing here is a checkpoint.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding JSON raises where it is none, has other members, is no UTF-8, or is nested too deeply."""
_NO_TEXT = re.compile(
    r"([\udc80-\udcff]+)|\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Bytes that were no UTF-8, or a backslash with what belongs to it: the second group is half of a surrogate pair."""


def decoded(body: bytes | str, kind: type[T]) -> T:
    """The JSON as ``kind``. Raises one of ``UNREADABLE`` where it is anything else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nulls(msgspec.json.decode(body)), type=kind)


def decoded_names(body: bytes, kind: type[T]) -> T:
    """The same for a list of names: one that is no Unicode text must not take the others with it.

    It gets a zero byte in place of what is none, which no local name can hold.
    """
    try:
        return decoded(body, kind)
    except UNREADABLE:
        return decoded(_mended(body), kind)


def _mended(body: bytes) -> bytes:
    """JSON in which what is no Unicode text, bytes as well as escapes, is an escaped zero byte."""
    text = body.decode("utf-8", "surrogateescape")
    return _NO_TEXT.sub(lambda found: r"\u0000" if found[1] or found[2] else found[0], text).encode()


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    return [_without_nulls(member) for member in value] if isinstance(value, list) else value
