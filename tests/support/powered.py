"""A program that works on mounts which it makes itself, and says what it was promised: run by itself, under strace.

    python powered.py ROOT MOUNTPOINT REMOTE TOKEN-FILE RULES

State and cache lie below ROOT. Each line of ROOT/marks is JSON: ``file``, a word for one file, and ``only`` [path,
digest, size]: an fsync has just promised that content; ``also``: from now on it may be this one instead; ``free``: it
may be any of those named, or gone.
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

ROOT, POINT, REMOTE, TOKEN, RULES = sys.argv[1:]
MOUNT = [
    sys.executable, "-m", "fsmount", "mount", REMOTE, POINT, "-f", "--state-dir", f"{ROOT}/home/state",
    "--cache-dir", f"{ROOT}/home/cache", "--token-file", TOKEN, "--settle", "0.1", "--max-settle", "0.2",
    "--open-settle", "0.2", "--drain", "0", "--max-attempts", "2",
]  # fmt: skip


class Mounted:
    """A daemon in the foreground; `kill` it, or end it cleanly."""

    def __init__(self) -> None:
        environment = {**os.environ, "XDG_STATE_HOME": f"{ROOT}/xdg"}
        self._daemon = subprocess.Popen(MOUNT, stdout=subprocess.PIPE, env=environment)
        assert self._daemon.stdout is not None
        if not self._daemon.stdout.readline().startswith(b"mounted"):
            sys.exit("it was not mounted")

    def end(self, how: signal.Signals) -> None:
        self._daemon.send_signal(how)
        self._daemon.wait()


MARKS = os.open(f"{ROOT}/marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def mark(file: str, **what: object) -> None:
    os.write(MARKS, json.dumps({"file": file, **what}).encode() + b"\n")


def content(word: str, size: int = 700) -> bytes:
    """Bytes that no other word gives."""
    line = f"{word} ".encode()
    return (line * (size // len(line) + 1))[:size]


def told(name: str, text: bytes) -> list[object]:
    """What a mark says of a content."""
    return [f"/{name}", hashlib.sha256(text).hexdigest(), len(text)]


class File:
    """One file and what is promised of it."""

    def __init__(self, name: str) -> None:
        self.word = self.name = name

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
    gone = File("gone")
    gone.save(content("gone"))
    gone.remove()


def main() -> None:
    mounted = Mounted()
    delivered()
    Path(RULES).write_text("PUT /** 503\nDELETE /** 503\n")
    refused()
    time.sleep(1.2)  # for the daemon to seal, to try and to sweep: there is no moment that this program could wait for
    mounted.end(signal.SIGTERM)
    mounted = Mounted()
    again = File("again")
    again.save(content("again 1"))
    again.save(content("again 2"))
    mounted.end(signal.SIGKILL)
    mounted = Mounted()
    File("after").save(content("after"))
    mounted.end(signal.SIGKILL)


main()
