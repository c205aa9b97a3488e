"""Every abstraction between the parts.

Invariant: the filesystem, the uploader and the control tree know these protocols and no concrete class; ``app`` alone
joins them. A method that is ``async`` is a trio checkpoint; the others never block on the remote and are atomic between
two checkpoints.
"""

from fsmount.ports.around import Commands, Details, EventLog, Facts, KernelCache, LogFile, Overlay, ReadableLog, Stream
from fsmount.ports.clock import Clock
from fsmount.ports.journal import Attributes, Journal
from fsmount.ports.remote import Remote, Upload
from fsmount.ports.stores import Cache, Draft, KnownListings, Source, Spool

__all__ = [
    "Attributes",
    "Cache",
    "Clock",
    "Commands",
    "Details",
    "Draft",
    "EventLog",
    "Facts",
    "Journal",
    "KernelCache",
    "KnownListings",
    "LogFile",
    "Overlay",
    "ReadableLog",
    "Remote",
    "Source",
    "Spool",
    "Stream",
    "Upload",
]
