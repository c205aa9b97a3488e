"""Programs that look at a mount while somebody else changes the remote, and the judgement of what they saw.

Times are those of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

LOOK = """
    import os, sys, time
    def look(path):
        "What stands there: the first word of a file, '/' for a directory, '-' for nothing; its size by stat."
        try:
            with open(path) as file:
                return file.read().split(None, 1)[0]
        except FileNotFoundError: return "-"
        except NotADirectoryError: return "-"
        except IsADirectoryError: return "/"
        except OSError as error:
            return "!" + str(error.errno)
"""
AWAIT = """
    def stat(path):
        try: return str(os.stat(path).st_size)
        except (FileNotFoundError, NotADirectoryError): return "-"
    def listed(path):
        name = os.path.basename(path)
        try: return "+" if name in os.listdir(os.path.dirname(path)) else "-"
        except (FileNotFoundError, NotADirectoryError): return "-"
    how = {"read": look, "stat": stat, "list": listed}
    for line in sys.stdin:
        seconds, way, path, wanted = line.split()
        deadline = time.monotonic() + float(seconds)
        while (seen := how[way](path)) != wanted and time.monotonic() < deadline:
            time.sleep(0.0005)
        print(time.monotonic() if seen == wanted else "never:" + seen, flush=True)
"""
LOOP = """
    import itertools
    for path in itertools.cycle(sys.argv[1:]):
        began = time.monotonic()
        seen = look(path)
        print(began, time.monotonic(), path, seen, flush=True)
        time.sleep(0.002)
"""


class Program:
    """A Python program beside the mount, for ``seconds`` at most; nothing else of a test touches the mount point."""

    def __init__(self, folder: Path, name: str, text: str, *arguments: str, seconds: float = 60) -> None:
        file = folder / f"{name}.py"
        file.write_text(textwrap.dedent(LOOK) + textwrap.dedent(text), encoding="utf-8")
        self.process = subprocess.Popen(
            ["timeout", "-s", "KILL", str(seconds), sys.executable, "-I", "-S", str(file), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.communicate()


class Waiter(Program):
    """Waits until something is seen."""

    def __init__(self, folder: Path, name: str = "waiter", *, seconds: float = 60) -> None:
        super().__init__(folder, name, AWAIT, seconds=seconds)

    def seen(self, way: str, path: str | Path, wanted: str, *, within: float = 10.0) -> float:
        """When ``wanted`` was seen there. ``way``: ``read`` gives the first word, ``stat`` the size, ``list`` a ``+``
        if the directory has the name; ``-`` is nothing, and ``/`` a directory that was read.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{within} {way} {path} {wanted}\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline().strip()
        assert said, "the waiting program ended"
        assert not said.startswith("never"), f"{way} {path} did not show {wanted} within {within} s, but {said[6:]}"
        return float(said)


class Sight(Struct, frozen=True):
    """What a program saw at ``path`` between two moments: the version that was written there, or ``-``."""

    began: float
    ended: float
    path: str
    seen: str


class Watcher(Program):
    """Reads the same files over and over until the end."""

    def __init__(self, folder: Path, name: str, paths: Iterable[Path], *, seconds: float = 60) -> None:
        super().__init__(folder, name, LOOP, *map(str, paths), seconds=seconds)
        self.sights: list[Sight] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            began, ended, path, seen = line.split()
            self.sights.append(Sight(float(began), float(ended), path, seen))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self._thread.join(10)
        with self.process:
            pass


class Written:
    """What stood at one path, one state after the other: when it was asked for, when that was answered, and what."""

    def __init__(self) -> None:
        self.states: list[str] = ["-"]
        self.asked: list[float] = [float("-inf")]
        self.answered: list[float] = [float("-inf")]

    def becomes(self, state: str, asked: float) -> None:
        """The remote has just answered."""
        self.states.append(state)
        self.asked.append(asked)
        self.answered.append(time.monotonic())


def judged(sights: Iterable[Sight], written: dict[str, Written], owed: Owed) -> list[str]:
    """What one program saw and must not have seen: something older than it saw before, or than it was owed. An error
    is no sight.
    """
    found: list[str] = []
    last: dict[str, int] = {}
    for sight in sights:
        if sight.seen.startswith("!"):
            continue
        states = written[sight.path]
        possible = [
            number
            for number, state in enumerate(states.states)
            if state == sight.seen and states.asked[number] <= sight.ended
        ]
        least = last.get(sight.path, 0)
        later = [number for number in possible if number >= least]
        if not later:
            found.append(f"{sight}: seen after {states.states[least]}")
            continue
        due = bisect_right(states.answered, sight.began) - 1
        while due > 0 and not owed.due(states.answered[due], sight.began):
            due -= 1
        if later[-1] < due:
            late = sight.began - states.answered[due]
            found.append(f"{sight}: {states.states[due]} was answered {late:.3f} s before")
        last[sight.path] = later[0]
    return found


class Owed:
    """When a change must be seen: ``bound`` seconds after its answer, or ``recovery`` seconds after the last
    ``disturbed`` time that overlaps with its way.
    """

    def __init__(self, bound: float, recovery: float) -> None:
        self.bound = bound
        self.recovery = recovery
        self.disturbances: list[tuple[float, float]] = []

    def disturbed(self, began: float) -> None:
        """From ``began`` until now the feed was cut or silent."""
        self.disturbances.append((began, time.monotonic()))

    def due(self, answered: float, now: float) -> bool:
        """Whether a change that was answered then has to be seen now."""
        if now < answered + self.bound:
            return False
        return all(
            ended < answered - self.recovery or began > now or now > ended + self.recovery
            for began, ended in self.disturbances
        )
