"""Ops as a user finds them in `.relay/`: whole directories read with one command."""

from __future__ import annotations

import json
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
