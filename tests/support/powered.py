"""A program that works on mounts and says what it was promised, and the keeper of those mounts, which strace follows.

    python powered.py ROOT MOUNTPOINT REMOTE TOKEN-FILE RULES STRACE…

State and cache lie below ROOT. Each line of ROOT/marks is JSON: ``file``, a word for one file, and ``only`` [path,
digest, size]: an fsync has just promised that content; ``also``: from now on it may be this one instead; ``free``: it
may be any of those named, or gone.

strace looks at the files of whom it follows. So it follows the daemons and their keeper, who writes the marks, and not
the program that uses the mount: strace would wait for a daemon that waits for strace.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

KEEP = "keep"
ROOT, POINT, REMOTE, TOKEN, RULES, *MORE = sys.argv[1:]
MOUNT = [
    sys.executable, "-m", "fsmount", "mount", REMOTE, POINT, "-f", "--state-dir", f"{ROOT}/home/state",
    "--cache-dir", f"{ROOT}/home/cache", "--token-file", TOKEN, "--settle", "0.1", "--max-settle", "0.2",
    "--open-settle", "0.2", "--drain", "0", "--max-attempts", "2",
]  # fmt: skip


def keep() -> None:
    """Does what standard input says, a line each, and says so."""
    marks = os.open(f"{ROOT}/marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    environment = {**os.environ, "XDG_STATE_HOME": f"{ROOT}/xdg"}
    daemon: subprocess.Popen[bytes] | None = None
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "mark":
            os.write(marks, rest.encode() + b"\n")
        elif word == "mount":
            daemon = subprocess.Popen(MOUNT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment)
            assert daemon.stdout is not None
            assert daemon.stdout.readline().startswith(b"mounted")
        elif daemon is not None:
            daemon.send_signal(int(word))
            daemon.wait()
        print("done", flush=True)


class Keeper:
    """The keeper, followed by strace."""

    def __init__(self) -> None:
        command = [*MORE, sys.executable, __file__, ROOT, POINT, REMOTE, TOKEN, RULES, KEEP]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        if self._process.stdout.readline() != "done\n":
            sys.exit(f"the keeper did not {command}")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def mark(file: str, **what: object) -> None:
    KEEPER.do("mark " + json.dumps({"file": file, **what}))


def content(word: str, size: int = 700) -> bytes:
    """Bytes that no other word gives."""
    line = f"{word} ".encode()
    return (line * (size // len(line) + 1))[:size]


def told(name: str, text: bytes) -> list[object]:
    """What a mark says of a content."""
    return [f"/{name}", hashlib.sha256(text).hexdigest(), len(text)]


class File:
    """One file and what is promised of it."""

    def __init__(self, name: str, *, word: str = "") -> None:
        self.name, self.word = name, word or name

    def save(self, text: bytes, *, at: int | None = None, whole: bytes | None = None, sync: bool = True) -> None:
        """Writes the file anew, or ``text`` at an offset of what is there so that it becomes ``whole``; closes it."""
        promised = told(self.name, whole or text)
        mark(self.word, also=promised)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if at is None else 0)
        file = os.open(f"{POINT}/{self.name}", flags, 0o644)
        os.pwrite(file, text, at or 0)
        if sync:
            os.fsync(file)
            mark(self.word, only=promised)
        os.close(file)

    def cut(self, size: int, whole: bytes) -> None:
        promised = told(self.name, whole)
        mark(self.word, also=promised)
        file = os.open(f"{POINT}/{self.name}", os.O_RDWR)
        os.ftruncate(file, size)
        os.fsync(file)
        mark(self.word, only=promised)
        os.close(file)

    def rename(self, name: str, text: bytes) -> None:
        promised = told(name, text)
        mark(self.word, also=promised)
        os.rename(f"{POINT}/{self.name}", f"{POINT}/{name}")
        self.name = name
        sync(os.path.dirname(name))
        mark(self.word, only=promised)

    def remove(self) -> None:
        mark(self.word, free=True)
        os.unlink(f"{POINT}/{self.name}")


def sync(directory: str) -> None:
    """Of ``.relay``: waits until all is delivered."""
    opened = os.open(f"{POINT}/{directory}", os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)


def delivered() -> None:
    """What the remote has is promised by nobody any more."""
    for word in ("sent", "sent-again"):
        for version in (1, 2):
            text = content(f"{word} {version}", 9000)
            mark(word, also=told(word, text), free=True)
            with open(f"{POINT}/{word}", "wb") as opened:
                opened.write(text)
                opened.flush()
                os.fsync(opened.fileno())
            sync(".relay")
    File("sent-again").remove()


def refused() -> None:
    """What the remote does not take stays here, sealed and tried again, or given up on."""
    first = File("first")
    first.save(content("first 1"))
    first.save(content("first 2"), sync=False)
    first.save(content("first 3", 5000))
    new = File("new.part")
    new.save(content("new", 12_000))
    new.rename("new", content("new", 12_000))
    short = File("short")
    short.save(content("short", 9000))
    short.cut(4500, content("short", 9000)[:4500])
    os.mkdir(f"{POINT}/sub")
    for number in range(12):
        File(f"sub/small-{number}").save(content(f"small {number}", 100))
    patched = File("patched")
    whole = content("patched", 13_000)
    patched.save(whole)
    for word, synced in (("once", True), ("twice", False)):
        patch = content(word, 300)
        whole = whole[:5000] + patch + whole[5300:]
        patched.save(patch, at=5000, whole=whole, sync=synced)
    File("large").save(content("large", 300_000))
    replaced = File("replaced")
    replaced.save(content("replaced 1", 9000))
    replaced.save(content("replaced 2", 9000), sync=False)
    part = File("replaced.part")
    part.save(content("replaced 3", 9000), sync=False)
    mark("replaced", also=told("replaced", content("replaced 3", 9000)))
    os.rename(f"{POINT}/replaced.part", f"{POINT}/replaced")
    mark("on", also=told("on", content("on 1", 5000)))
    with open(f"{POINT}/on", "wb", buffering=0) as file:
        file.write(content("on 1", 5000))
        os.fsync(file.fileno())
        mark("on", only=told("on", content("on 1", 5000)))
        mark("on", also=told("on", content("on 1", 5000) + b"more"))
        file.write(b"more")
    litter = File("kept.swp")
    litter.save(content("litter 1", 6000))
    litter.save(content("litter 2", 6000), sync=False)
    backup = File("edited")
    backup.save(content("edited 1", 6000))
    backup.rename("edited~", content("edited 1", 6000))
    File("edited", word="edited-again").save(content("edited 2", 6000))
    gone = File("gone")
    gone.save(content("gone"))
    gone.remove()


def main() -> None:
    KEEPER.do("mount")
    delivered()
    Path(RULES).write_text("PUT /** 503\nDELETE /** 503\n")
    refused()
    time.sleep(1.2)  # for the daemon to seal, to try and to sweep: there is no moment that this program could wait for
    KEEPER.do(str(int(signal.SIGTERM)))
    KEEPER.do("mount")
    again = File("again")
    again.save(content("again 1"))
    again.save(content("again 2"))
    KEEPER.do(str(int(signal.SIGKILL)))
    KEEPER.do("mount")
    File("after").save(content("after"))
    KEEPER.do(str(int(signal.SIGKILL)))
    KEEPER.end()


if MORE == [KEEP]:
    keep()
else:
    KEEPER = Keeper()
    main()
