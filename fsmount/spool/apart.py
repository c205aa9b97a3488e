"""The files of changes that the end of a journal forgot: no row names them, and nothing removes them but a person.

Invariant: what lies in ``apart`` was moved there whole, and is told of for as long as it is there.
"""

from __future__ import annotations

import os
from pathlib import Path

from fsmount.model import SetApart

APART = "apart"


def found_apart(spool: Path) -> tuple[SetApart, ...]:
    """What was set apart in that spool, by the time of its last write; nothing where that cannot be read."""
    try:
        with os.scandir(spool / APART) as entries:
            met = [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return ()
    found = [SetApart(path=path, size=kept.st_size, at=kept.st_mtime) for path, kept in met]
    return tuple(sorted(found, key=lambda one: (one.at, one.path)))
