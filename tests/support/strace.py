"""What processes did to the files below one directory, read from strace(1)'s log.

Invariant: nothing that changes a file there goes unnoticed: a system call that this module cannot follow is an error.
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,rename,renameat,renameat2,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,fsync,fdatasync,sync_file_range,"
    "copy_file_range,sendfile,mmap"
)
LONGEST = 2 * 1024**2
"""Bytes of one write that are recorded whole."""
ROOT = 0
"""The inode of the directory that is followed."""

_LINE = re.compile(rb"(\d+) +(\w+)\((.*)\) += (-?\d+|\?|0x[0-9a-f]+)(.*)")
_BEGUN = re.compile(rb"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(rb"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_HEX = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_FD = re.compile(rb"^(-?\d+)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")


@dataclass
class Event:
    """One change, in the order in which the system calls ended; ``began`` says after how many others it began."""

    kind: str
    """``enter`` (a name comes), ``leave`` (it goes), ``move``, ``write``, ``cut``, ``sync`` or ``mark``."""
    inode: int = -1
    began: int = 0
    directory: int = -1
    name: str = ""
    to_directory: int = -1
    to_name: str = ""
    offset: int = 0
    content: bytes = b""
    is_directory: bool = False
    path: str = ""
    """For people."""


def read(log: Path, root: Path) -> list[Event]:
    """What ``strace -f -y -xx -s LONGEST -e trace=CALLS -o LOG`` recorded below ``root``, which was empty before.

    A line written to ``marks`` there is an event ``mark``.
    """
    reader = _Reader(os.fsencode(os.path.realpath(root)))
    for call in _calls(log):
        reader.take(call)
    return reader.events


@dataclass
class _Call:
    name: str
    arguments: bytes
    result: int
    began: int
    """The log's line with its begin, and the one with its end."""
    ended: int


def _calls(log: Path) -> Iterator[_Call]:
    """Each call once, when it ended; one that failed changed nothing."""
    begun: dict[bytes, tuple[bytes, int]] = {}
    with log.open("rb") as lines:
        for number, line in enumerate(lines):
            text, start = line, number
            if (cut := _BEGUN.match(line)) is not None:
                begun[cut[1]] = (line[: line.rindex(b" <unfinished")], number)
                continue
            if (resumed := _RESUMED.match(line)) is not None:
                first, start = begun.pop(resumed[1])
                text = first + resumed[3] + b"\n"
            whole = _LINE.match(text)
            if whole is not None and not whole[4].startswith((b"-", b"?")):
                yield _Call(whole[2].decode(), whole[3], int(whole[4], 0), start, number)


class _Reader:
    """Follows names to inodes, so that what was renamed while it was open stays one file."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._in_hex = "".join(f"\\x{byte:02x}" for byte in root).encode()
        self._inodes: dict[bytes, int] = {root: ROOT}
        self._sizes: dict[int, int] = {}
        self._ended: list[int] = []
        self._newest = ROOT
        self.events: list[Event] = []

    def take(self, call: _Call) -> None:
        if self._in_hex not in call.arguments:
            return
        follow = getattr(self, f"_{call.name}", None)
        if follow is None:
            raise NotImplementedError(f"{call.name} in {os.fsdecode(self._root)}")
        follow(call)

    # names

    def _openat(self, call: _Call) -> None:
        path, flags = _paths(call)[-1], call.arguments.rpartition(b'"')[2]
        if not self._within(path):
            return
        inode = self._inodes.get(path)
        if inode is None and b"O_CREAT" in flags:
            self._enter(call, path, is_directory=False)
        elif inode is not None and b"O_TRUNC" in flags and self._sizes.get(inode):
            self._add(call, Event("cut", inode=inode, path=_shown(path)))
            self._sizes[inode] = 0

    _open = _openat

    def _mkdir(self, call: _Call) -> None:
        path = _paths(call)[-1]
        if self._within(path):
            self._enter(call, path, is_directory=True)

    _mkdirat = _mkdir

    def _enter(self, call: _Call, path: bytes, *, is_directory: bool) -> None:
        self._newest += 1
        inode = self._inodes[path] = self._newest
        self._sizes[inode] = 0
        directory, name = self._place(path)
        self._add(
            call,
            Event("enter", inode=inode, directory=directory, name=name, is_directory=is_directory, path=_shown(path)),
        )

    def _unlink(self, call: _Call) -> None:
        path = _paths(call)[-1]
        if self._within(path):
            directory, name = self._place(path)
            self._add(
                call,
                Event("leave", inode=self._inodes.pop(path), directory=directory, name=name, path=_shown(path)),
            )

    _unlinkat = _rmdir = _unlink

    def _rename(self, call: _Call) -> None:
        old, new = _paths(call)[-2:]
        if not (self._within(old) and self._within(new)):
            raise NotImplementedError(f"rename({old!r}, {new!r}) across the border")
        (directory, name), (to_directory, to_name) = self._place(old), self._place(new)
        inode = self._inodes[new] = self._inodes.pop(old)
        for below in [path for path in self._inodes if path.startswith(old + b"/")]:
            self._inodes[new + below[len(old) :]] = self._inodes.pop(below)
        self._add(
            call,
            Event(
                "move", inode=inode, directory=directory, name=name, to_directory=to_directory, to_name=to_name,
                path=f"{_shown(old)} → {_shown(new)}",
            ),
        )  # fmt: skip

    _renameat = _renameat2 = _rename

    def _within(self, path: bytes) -> bool:
        return path.startswith(self._root + b"/")

    def _place(self, path: bytes) -> tuple[int, str]:
        above, _, name = path.rpartition(b"/")
        return self._inodes[above], os.fsdecode(name)

    # content

    def _pwrite64(self, call: _Call) -> None:
        self._written(call, int(call.arguments.rpartition(b",")[2]))

    def _write(self, call: _Call) -> None:
        self._written(call, None)

    def _written(self, call: _Call, offset: int | None) -> None:
        """``offset`` None: at the end; every file that is written so is new or opened for appending."""
        path = self._descriptor(call)
        if path is None:
            return
        if path.endswith(b"/marks"):
            for line in _content(call)[: call.result].splitlines():
                self._add(call, Event("mark", content=line))
            return
        inode = self._inodes[path]
        at = self._sizes[inode] if offset is None else offset
        self._sizes[inode] = max(self._sizes[inode], at + call.result)
        content = _content(call)[: call.result]
        self._add(call, Event("write", inode=inode, offset=at, content=content, path=_shown(path)))

    def _ftruncate(self, call: _Call) -> None:
        path = self._descriptor(call)
        if path is not None:
            inode, size = self._inodes[path], int(call.arguments.rpartition(b",")[2])
            self._sizes[inode] = size
            self._add(call, Event("cut", inode=inode, offset=size, path=_shown(path)))

    def _fallocate(self, call: _Call) -> None:
        """Room without content: the length grows, unless it is asked to stay."""
        path = self._descriptor(call)
        if path is not None and b"KEEP_SIZE" not in call.arguments:
            inode, end = self._inodes[path], sum(int(number) for number in call.arguments.split(b",")[-2:])
            if end > self._sizes[inode]:
                self._sizes[inode] = end
                self._add(call, Event("cut", inode=inode, offset=end, path=_shown(path)))

    def _fsync(self, call: _Call) -> None:
        path = self._descriptor(call)
        if path is not None and path in self._inodes:
            self._add(call, Event("sync", inode=self._inodes[path], path=_shown(path)))

    _fdatasync = _fsync

    def _mmap(self, call: _Call) -> None:
        """SQLite's shared memory is the one file that is written so; after a crash it is made anew from the log."""
        shared = b"MAP_SHARED" in call.arguments and b"PROT_WRITE" in call.arguments
        if shared and b"-shm".hex().encode() not in call.arguments.replace(b"\\x", b""):
            raise NotImplementedError("a file that is written through a mapping")

    def _descriptor(self, call: _Call) -> bytes | None:
        """The path of a descriptor's file below the root; None for another, and for one without a name."""
        found = _FD.match(call.arguments)
        if found is None or found[3] is not None:
            return None
        path = _plain(found[2])
        return path if self._within(path) or path == self._root else None

    def _add(self, call: _Call, event: Event) -> None:
        event.began = bisect.bisect_left(self._ended, call.began)
        self.events.append(event)
        self._ended.append(call.ended)


def _paths(call: _Call) -> list[bytes]:
    return [_plain(match[1]) for match in _HEX.finditer(call.arguments)]


def _content(call: _Call) -> bytes:
    match = _HEX.search(call.arguments)
    if match is None or match[2] is not None:
        raise ValueError(f"a {call.name} of more than {LONGEST} bytes")
    return _plain(match[1])


def _plain(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode())


def _shown(path: bytes) -> str:
    return "/".join(os.fsdecode(path).split("/")[-3:])
