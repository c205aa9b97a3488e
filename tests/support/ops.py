"""Ops as a user finds them in `.relay/`: whole directories read with one command."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.mount import Mount, until

Letter = dict[str, Any]
"""One op as JSON."""


def ops(mount: Mount, directory: str) -> list[Letter]:
    """The records in `.relay/DIRECTORY`, oldest first; an op that goes while it is read is left out."""
    text = mount.out(f'cd $MOUNT/.relay/{directory} && for f in *.json; do cat "$f" 2>/dev/null; done; true')
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        record, at = decoder.raw_decode(text, at)
        found.append(record)
        at += 1  # the newline
    return found


def letters(mount: Mount, count: int, seconds: float = 10.0) -> list[Letter]:
    """Exactly `count` dead letters, oldest first, waited for."""
    # A listing is of now, while status.json may be a second old.
    until(lambda: len(mount.out("ls $MOUNT/.relay/dead-letter").split()) >= count, f"{count} appear", seconds)
    found = ops(mount, "dead-letter")
    assert len(found) == count, [letter["path"] for letter in found]
    return found


def revision(mount: Mount, path: str) -> str | None:
    """The server's revision of a file."""
    body = mount.server.file(path)
    return None if body is None else body.revision


def queued(mount: Mount, count: int, seconds: float = 10.0) -> list[Letter]:
    """Exactly `count` ops in pending/, waited for, oldest first."""
    until(lambda: len(ops(mount, "pending")) == count, f"{count} ops are pending", seconds)
    return ops(mount, "pending")


def history(mount: Mount, path: str) -> list[str]:
    """What happened to a file on the server, oldest first: `created`, `updated`, `deleted`."""
    return [event.type.removeprefix("file.") for event in mount.server.events() if event.path == path]


def settled(mount: Mount) -> None:
    """Ends a test on a shared mount: no rule is in force, and what is dead is given up."""
    mount.server.rules("")
    mount.sh("cd $MOUNT/.relay && for op in dead-letter/*.json; do mv $op discarded/; done 2>/dev/null; true")


def refuse(mount: Mount, *names: str, below: str = "refused") -> list[Letter]:
    """Dead letters of files of these names, which the remote refuses until another rule is made."""
    mount.server.rules(f'PUT /{below}/** 422 {{"code":"schema_validation_failed","message":"no"}}\n')
    mount.sh(f"mkdir -p $MOUNT/{below}; for n in {' '.join(names)}; do echo mine > $MOUNT/{below}/$n; done")
    return [letter_of(mount, f"/{below}/{name}") for name in names]


def letter_of(mount: Mount, path: str) -> Letter:
    """The dead letter of a path, waited for."""
    found: list[Letter] = []

    def there() -> bool:
        found[:] = [letter for letter in ops(mount, "dead-letter") if letter["path"] == path]
        return bool(found)

    until(there, f"{path} is a dead letter")
    return found[0]


def ls(mount: Mount, directory: str = "") -> list[str]:
    """The names in a directory of `.relay`."""
    return mount.out(f"ls -A $MOUNT/.relay/{directory}").split()


def paths(mount: Mount, directory: str) -> set[str]:
    """The paths of the ops in a directory of `.relay`."""
    return {op["path"] for op in ops(mount, directory)}


def logged(mount: Mount, pattern: str) -> bool:
    """Whether a line of the log has this regular expression."""
    return re.search(pattern, mount.log()) is not None
