"""Daemons that are broken on purpose: what must then be found out.

The daemon's interpreter is given a module that it runs before everything else; nothing of the program is changed.
"""

from __future__ import annotations

import textwrap

from tests.support.mount import Mount
from tests.support.stem import ROOT

PLANTS = {
    # The commit before close is left out: one in four hundred transactions is committed, and takes the others along.
    "skip-journal": """
        import contextlib
        from fsmount.journal import database

        @contextlib.contextmanager
        def transaction(self):
            if self._depth:
                yield
                return
            self._depth = 1
            try:
                if not self.connection.in_transaction:
                    self.connection.execute("BEGIN IMMEDIATE")
                yield
                self.planted = getattr(self, "planted", 0) + 1
                if self.planted % 400 == 0:
                    self.connection.execute("COMMIT")
            finally:
                self._depth = 0
            self.version += 1
            for changed in self._watchers:
                changed()

        database.Database.transaction = transaction
    """,
    # The kernel is told at once, whatever waits for an answer in the directory: a thread waits for that one's lock.
    "tell-at-once": """
        import contextlib
        from fsmount.fuse import notifier

        notifier.KernelNotifier.locked = lambda self, directory: contextlib.nullcontext()
    """,
}


def planted(mount: Mount, plant: str) -> None:
    """From its next start on the mount's daemon is broken so."""
    place = mount.folder / "plant"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(textwrap.dedent(PLANTS[plant]))
    mount.environment["PYTHONPATH"] = f"{place}:{ROOT}"


def mended(mount: Mount) -> None:
    """From its next start on it is what it should be."""
    mount.environment["PYTHONPATH"] = str(ROOT)
