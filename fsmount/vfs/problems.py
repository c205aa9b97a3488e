"""What is not shown as it is: at the remote, under names of this mount, and beneath the mount point.

Invariant: what is told of a directory is replaced by what its next listing tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fsmount.model import Problem, RemotePath


class Problems:
    """Gathers what ``.relay/problems`` lists. ``clashes`` tells of names that both sides have, as they are now."""

    def __init__(self, clashes: Callable[[], Sequence[Problem]]) -> None:
        self._clashes = clashes
        self._listed: dict[RemotePath, tuple[Problem, ...]] = {}
        self._beneath: tuple[Problem, ...] = ()

    def listed(self, directory: RemotePath, found: Sequence[Problem]) -> None:
        """A listing of ``directory`` came with these, in place of all that was told of it before."""
        if found:
            self._listed[directory] = tuple(found)
        else:
            self._listed.pop(directory, None)

    def beneath(self, found: Sequence[Problem]) -> None:
        """What lies in the directory that the mount covers."""
        self._beneath = tuple(found)

    def all(self) -> list[Problem]:
        """Everything, by directory."""
        remote = [problem for directory in sorted(self._listed) for problem in self._listed[directory]]
        return list(dict.fromkeys([*self._beneath, *remote, *self._clashes()]))
