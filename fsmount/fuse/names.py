"""Names between the kernel's bytes and text.

Invariant: the same bytes come back whatever locale the daemon runs in; what is not UTF-8 is escaped as PEP 383 has it.
"""

from __future__ import annotations

import pyfuse3


def decoded(name: bytes) -> str:
    """The name as text."""
    return name.decode("utf-8", "surrogateescape")


def encoded(name: str) -> pyfuse3.FileNameT:
    """The name as the kernel has it."""
    return pyfuse3.FileNameT(name.encode("utf-8", "surrogateescape"))
