"""Attr to the kernel's attributes."""

from __future__ import annotations

import stat

import pyfuse3

from fsmount.model import Attr, Kind

FORMAT = {Kind.FILE: stat.S_IFREG, Kind.DIRECTORY: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}
BLOCK = 512
"""``st_blocks`` counts these (stat(2))."""


def entry_attributes(attr: Attr, timeout: float) -> pyfuse3.EntryAttributes:
    """``timeout`` seconds is how long the kernel may answer for name and attributes by itself."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(attr.ino)
    entry.entry_timeout = timeout
    entry.attr_timeout = timeout
    entry.st_mode = pyfuse3.ModeT(FORMAT[attr.kind] | attr.mode)
    entry.st_nlink = attr.nlink
    entry.st_uid = attr.uid
    entry.st_gid = attr.gid
    entry.st_size = attr.size
    entry.st_blksize = 128 * 1024
    entry.st_blocks = -(-attr.size // BLOCK)
    mtime, ctime = int(attr.mtime * 1e9), int(attr.ctime * 1e9)
    entry.st_atime_ns = mtime
    entry.st_mtime_ns = mtime
    entry.st_ctime_ns = ctime
    return entry


def absent(timeout: float) -> pyfuse3.EntryAttributes:
    """The answer to a lookup that found nothing, which the kernel may remember for ``timeout`` seconds."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(0)
    entry.entry_timeout = timeout
    return entry
