"""A bar that tells how far waiting has come, on a terminal only.

Invariant: no thread draws it, because the mount is looked at by forked children.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Self

from fsmount.cli.queue import Status

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """``total`` ops and ``unsent`` bytes to go; draws nothing elsewhere than on a terminal or where there is none."""

    def __init__(self, total: int, unsent: int) -> None:
        self._total, self._unsent = total, unsent
        self._sent = 0
        self._drawn: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        if self._total and on_a_terminal():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("delivering"),
                BarColumn(),
                TextColumn("{task.completed} of {task.total} ops"),
                TextColumn("{task.fields[sent]}"),
                TimeElapsedColumn(),
            )
            progress = Progress(*columns, transient=True, auto_refresh=False)
            progress.start()
            self._drawn = progress, progress.add_task("", total=self._total, sent=self._told())
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn is not None:
            self._drawn[0].stop()

    def show(self, done: int, status: Status) -> None:
        """So many ops are done. Bytes never go back, though newer writes add to what is unsent."""
        under_way = sum(transfer.bytes_sent for transfer in status.transfers)
        sent = self._unsent if done == self._total else self._unsent - status.queue.bytes + under_way
        self._sent = max(self._sent, min(sent, self._unsent))
        if self._drawn is not None:
            progress, row = self._drawn
            progress.update(row, completed=done, sent=self._told(), refresh=True)

    def _told(self) -> str:
        from fsmount.render.escape import size

        return f"{size(self._sent)} of {size(self._unsent)}"


def on_a_terminal() -> bool:
    """Whether a person sees what is printed, and it can and may be printed over."""
    if sys.stdout is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return False
    from rich.console import Console

    return not Console().is_dumb_terminal
