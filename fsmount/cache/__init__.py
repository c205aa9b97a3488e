"""Remote content at known revisions, bounded, in blocks of 128 KiB.

    cache.db            the index: exact sizes, which blocks are held, their checksums, when each file was used last
    listings.db         listings of former runs, for a start while the remote is away
    blocks/ab/KEY       the blocks of one revision of one file at their own offsets, KEY = sha256(path, NUL, revision)

Invariant: what is read from here is what was stored, or nothing. Losing any of it loses nothing.
"""

from fsmount.cache.cache import FileCache
from fsmount.cache.index import BLOCK
from fsmount.cache.known import KnownListings

__all__ = ["BLOCK", "FileCache", "KnownListings"]
