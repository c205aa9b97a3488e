"""What every JSON body of the relayfile HTTP API (v0.10) has in common.

Decoding is lenient: unknown members are ignored, a list or an object may be null or missing.
Encoding follows the reference server: a member at its default is left out, except those declared
with `shown`, which always appear (`"nextCursor": null`).
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")


def shown(default: Callable[[], T]) -> T:
    """A member that may be missing when read and is always written (msgspec omits no value of a factory)."""
    return msgspec.field(default_factory=default)


def null() -> None:
    """The default of a member that is shown as null."""
    return


def empty() -> tuple[()]:
    """The default of a list that is shown."""
    # Not `tuple` itself: msgspec takes that factory for a default, and would leave [] out.
    return ()


class Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The conventions that every body follows."""
