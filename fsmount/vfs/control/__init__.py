"""The ``.relay`` tree: what waits and what failed as files, and a person's decisions as renames.

Invariant: nothing here but an fsync of ``.relay`` waits for anything, and nothing but a verb's rename or a line written
to ``ctl`` changes anything. When that call returns the decision is in the journal.
"""

from fsmount.vfs.control.names import CONTROL_ROOT
from fsmount.vfs.control.tree import ControlTree

__all__ = ["CONTROL_ROOT", "ControlTree"]
