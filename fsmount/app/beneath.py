"""What lies in the directory that a mount covers.

Invariant: it is listed in the moment before mounting and never below; nothing in it is opened or changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fsmount.model import Problem

MOST = 1000


def names_beneath(directory: Path) -> list[str]:
    """At most 1000 names in the bare directory, in no order; none where it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for _, entry in zip(range(MOST), entries, strict=False)]
    except OSError:
        return []


def problems_beneath(directory: Path, names: Sequence[str]) -> list[Problem]:
    """A problem a name, in the order of the names."""
    why = "it lies in the directory beneath the mount: unmount to reach it"
    return [Problem(path=f"{directory}/{name}", why=why) for name in sorted(names)]
