"""SQLite's write-ahead log, looked at from outside: is there more in it than SQLite reads?

SQLite reads the log up to the first frame whose checksum is wrong, and silently forgets what comes behind it: after a
power failure that is nothing that anybody was promised, but a damaged disk looks the same. The formats are those of
https://sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_HEADER = 32
_FRAME = 24
_LAST_FRAME_AT = 16
"""In the header of the -shm file: how many frames are valid, in the machine's own byte order."""


def goes_on(database: Path) -> bool:
    """Whether a commit of this log's generation stands behind the last frame that SQLite reads.

    Only while a connection has the database open, which tells the number of that frame in the -shm file. Anything that
    cannot be read says no.
    """
    try:
        with open(f"{database}-shm", "rb") as index:
            index.seek(_LAST_FRAME_AT)
            read = int(struct.unpack("=I", index.read(4))[0])
        with open(f"{database}-wal", "rb") as log:
            return read < _last_commit(log.fileno())
    except (OSError, struct.error):
        return False


def _last_commit(log: int) -> int:
    """The number of the last frame that ends a transaction and has the salt of the log's header or of its first frame:
    either may be the damaged one.
    """
    header = os.pread(log, _HEADER + _FRAME, 0)
    salts = {header[16:24], header[_HEADER + 8 : _HEADER + 16]}
    length = _FRAME + int(struct.unpack(">I", header[8:12])[0])
    frames, last = (os.fstat(log).st_size - _HEADER) // length, 0
    for number in range(1, frames + 1):
        frame = os.pread(log, 16, _HEADER + (number - 1) * length)
        if frame[4:8] != bytes(4) and frame[8:16] in salts:
            last = number
    return last
