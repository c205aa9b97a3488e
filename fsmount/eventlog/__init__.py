"""The log of a mount: what happened, a line each, once for people and once for programs.

Invariant: a caller is never kept waiting and never sees an error: a full disk costs the line.
"""

from fsmount.eventlog.events import EVENTS
from fsmount.eventlog.log import LIMIT, FileEventLog, LogHandler

__all__ = ["EVENTS", "LIMIT", "FileEventLog", "LogHandler"]
