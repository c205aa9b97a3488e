"""The local bodies of the ops: drafts that are being written, and sealed bodies named by their digest.

    drafts/ID           one draft; ID sorts by creation and is never used again
    bodies/ab/DIGEST    one sealed body of sha256 DIGEST
    apart/NAME          a draft or a body of a change that the end of the journal forgot

Invariant: a file below ``bodies`` never changes, and whatever a ``Draft.sync`` promised, sealing keeps.
"""

from fsmount.spool.apart import found_apart
from fsmount.spool.draft import DraftFile
from fsmount.spool.files import BodyFile
from fsmount.spool.room import RESERVE
from fsmount.spool.spool import FileSpool

__all__ = ["RESERVE", "BodyFile", "DraftFile", "FileSpool", "found_apart"]
