"""The files of ``.relay`` that always are there, and what renders each.

Invariant: those that show the mount's state are made from one Snapshot.
"""

from __future__ import annotations

from collections.abc import Callable

from fsmount.render import json, metrics, readme, text
from fsmount.status import Snapshot

Renderer = Callable[[Snapshot], bytes]


def renderers() -> dict[str, Renderer]:
    """By name, what makes the bytes of each file."""
    return {
        "README": lambda _: readme.README.encode(),
        "status": lambda snapshot: text.status(snapshot).encode("utf-8", "replace"),
        "status.json": json.status,
        "state.json": json.state,
        "metrics": lambda snapshot: metrics.metrics(snapshot).encode("utf-8", "replace"),
        "config.json": lambda snapshot: json.config(snapshot.beside.settings),
        "problems": lambda snapshot: json.problems(snapshot.beside.problems),
        ".gitignore": lambda _: readme.GITIGNORE.encode(),
        "CACHEDIR.TAG": lambda _: readme.CACHEDIR_TAG.encode(),
    }
