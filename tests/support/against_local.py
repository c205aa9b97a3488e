"""A program that does the same random things in two directories and stops where one answers differently.

    python against_local.py MOUNTED LOCAL SEED STEPS

Few names, several handles and short pauses, so that operations meet what is queued, being sent and just delivered.
"""

import errno
import os
import random
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

FOLDERS = ("x", "y", "x/a", "y/b", "z")
PATHS = [f"{folder}/{name}" for folder in FOLDERS[:2] for name in ("a", "b", "c", "b~", ".a.swp")] + ["x/a/d", "y/b/d"]
FLAGS = (
    os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
)  # fmt: skip


class Side:
    """One of the directories, with its open files by slot."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.slots: dict[int, int] = {}

    def open(self, slot: int, path: str, flags: int) -> object:
        descriptor = os.open(f"{self.root}/{path}", flags, 0o644)
        if slot in self.slots:
            os.close(self.slots[slot])
        self.slots[slot] = descriptor
        return self.fstat(slot)

    def write(self, slot: int, content: bytes, offset: int | None) -> object:
        if offset is None:
            return os.write(self.slots[slot], content)
        return os.pwrite(self.slots[slot], content, offset)

    def read(self, slot: int) -> object:
        return os.pread(self.slots[slot], 100_000, 0)

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.slots[slot], size)

    def fsync(self, slot: int) -> None:
        os.fsync(self.slots[slot])

    def fstat(self, slot: int) -> object:
        seen = os.fstat(self.slots[slot])
        return "directory" if stat.S_ISDIR(seen.st_mode) else (seen.st_size, seen.st_nlink)

    def close(self, slot: int) -> None:
        os.close(self.slots.pop(slot))

    def rename(self, old: str, new: str) -> None:
        os.rename(f"{self.root}/{old}", f"{self.root}/{new}")

    def unlink(self, path: str) -> None:
        os.unlink(f"{self.root}/{path}")

    def mkdir(self, path: str) -> None:
        os.mkdir(f"{self.root}/{path}")

    def rmdir(self, path: str) -> None:
        os.rmdir(f"{self.root}/{path}")

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, f"{self.root}/{path}")

    def readlink(self, path: str) -> object:
        return os.readlink(f"{self.root}/{path}")

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(f"{self.root}/{path}", mode)

    def lstat(self, path: str) -> object:
        seen = os.lstat(f"{self.root}/{path}")
        return (oct(seen.st_mode), None if stat.S_ISDIR(seen.st_mode) else (seen.st_size, seen.st_nlink))

    def setxattr(self, path: str, value: bytes) -> None:
        os.setxattr(f"{self.root}/{path}", "user.k", value)

    def getxattr(self, path: str) -> object:
        return os.getxattr(f"{self.root}/{path}", "user.k")

    def removexattr(self, path: str) -> None:
        os.removexattr(f"{self.root}/{path}", "user.k")

    def is_link_over_file(self, old: str, new: str) -> bool:
        return os.path.islink(f"{self.root}/{old}") and os.path.isfile(f"{self.root}/{new}")

    def truncate(self, path: str, size: int) -> None:
        os.truncate(f"{self.root}/{path}", size)

    def cat(self, path: str) -> object:
        with open(f"{self.root}/{path}", "rb") as file:
            return file.read()

    def listing(self, path: str) -> object:
        return sorted(os.listdir(f"{self.root}/{path}"))


def outcome(what: Callable[..., object], *arguments: object) -> object:
    try:
        return what(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def step(chance: random.Random, local: Side) -> tuple[str, tuple[Any, ...]]:
    """What to do next; a pause is done at once."""
    slot, path, other = chance.randrange(3), chance.choice(PATHS), chance.choice(PATHS)
    folder, other_folder = chance.choice((*FOLDERS, path)), chance.choice((*FOLDERS, other))
    choices: list[tuple[str, tuple[Any, ...]]] = [
        *[("open", (slot, path, chance.choice(FLAGS)))] * 4, *[("rename", (path, other))] * 3, *[("unlink",
        (path,))] * 2,
        *[("cat", (path,))] * 3, ("mkdir", (folder,)), ("rmdir", (folder,)), ("truncate", (path, chance.choice((0, 3,
        300)))),
        ("listing", (chance.choice(FOLDERS),)), ("pause", ()), *[("rename", (folder, other_folder))] * 2,
        ("symlink", (chance.choice(("a", "../y/b", "nowhere")), path)), ("readlink", (path,)), ("lstat", (path,)),
        ("chmod", (chance.choice((path, folder)), chance.choice((0o644, 0o755, 0o700)))), ("lstat", (folder,)),
        ("setxattr", (path, chance.choice((b"1", b"")))), ("getxattr", (path,)), ("removexattr", (path,)),
    ]  # fmt: skip
    if slot in local.slots:
        content = bytes([chance.randrange(97, 123)]) * chance.choice((1, 5, 100, 5000))
        choices += [
            *[("write", (slot, content, chance.choice((None, 0, 3, 4000))))] * 6,
            *[("read", (slot,))] * 2, *[("close", (slot,))] * 2,
            ("ftruncate", (slot, chance.choice((0, 2, 6000)))), ("fsync", (slot,)), ("fstat", (slot,)),
        ]  # fmt: skip
    return chance.choice(choices)


def main(mounted: Side, local: Side, seed: int, steps: int) -> int:
    chance, told = random.Random(seed), list[str]()
    for number in range(steps):
        name, arguments = step(chance, local)
        if name == "pause":
            time.sleep(chance.choice((0.01, 0.1, 0.2)))
            continue
        if name == "rename" and local.is_link_over_file(*arguments):
            continue  # a link never replaces a remote file
        ours, theirs = (outcome(getattr(side, name), *arguments) for side in (mounted, local))
        told.append(f"{number}: {name} {arguments!r:.60} {theirs!r:.60}")
        if ours != theirs:
            print("\n".join(told[-25:]), f"seed {seed}: mounted {ours!r:.200}, local {theirs!r:.200}", sep="\n")
            return 1
    for side in (mounted, local):
        for slot in tuple(side.slots):
            side.close(slot)
    return 0


if __name__ == "__main__":
    sys.exit(main(Side(sys.argv[1]), Side(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
