"""``kill -9`` before and after every change that outlives the process, for every kind of op; then the next life.

Each scene is played once to count its points, and then once for each of them, up to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fsmount.model import Reason, State
from tests.faults.crash import CrashAt, Killed
from tests.faults.life import Life, emptied
from tests.faults.loop import without_threads
from tests.faults.remote import FaultyRemote
from tests.faults.scenes import (
    Stage,
    Step,
    View,
    append,
    come_to_rest,
    decide,
    drained,
    foreign,
    giving_up,
    mkdir,
    refuse,
    remove,
    rename,
    rename_directory,
    rmdir,
    save,
    truncate,
    wait,
)
from tests.support.trio_clock import TrioClock

SCENES: dict[str, Sequence[Step]] = {
    "create": [save("/d/new", b"1"), drained()],
    "update": [save("/d/f", b"1"), drained()],
    "update of an open file": [append("/d/f", b"1"), append("/d/f", b"2"), drained()],
    "updates while it is sent": [
        save("/d/f", b"1"), wait(0.31), save("/d/f", b"2"), wait(0.31), save("/d/f", b"3"), drained(),
    ],
    "truncate": [truncate("/d/f", 1), drained()],
    "delete": [remove("/d/f"), drained()],
    "delete of what was just made": [save("/d/new", b"1"), wait(0.29), remove("/d/new"), drained()],
    "move": [rename("/d/f", "/d/m"), drained()],
    "move over a file": [rename("/d/f", "/d/g"), drained()],
    "move with unsent bytes": [append("/d/f", b"1"), rename("/d/f", "/e/m"), drained()],
    "move of what was just made": [save("/d/t", b"1"), rename("/d/t", "/d/f"), drained()],
    "move of what is sent": [save("/d/f", b"1"), wait(0.31), rename("/d/f", "/d/m"), drained()],
    "there and back": [rename("/d/f", "/d/m"), rename("/d/m", "/d/f"), drained()],
    "directory": [rename_directory("/d", "/e/n"), drained()],
    "directory with unsent bytes": [
        save("/d/new", b"1"), append("/d/f", b"2"), rename_directory("/d", "/e/n"), drained(),
    ],
    "mkdir and rmdir": [mkdir("/e/n"), save("/e/n/x", b"1"), drained(), remove("/e/n/x"), rmdir("/e/n"), drained()],
    "replace": [remove("/d/f"), save("/d/f", b"1"), drained()],
    "vim": [rename("/d/f", "/d/f~"), save("/d/f", b"1"), remove("/d/f~"), drained()],
    "litter gets a name": [save("/d/.f.swp", b"1"), rename("/d/.f.swp", "/d/f"), drained()],
    "retry": [refuse("/d/f"), save("/d/f", b"1"), drained(), decide("retry", State.DEAD), drained()],
    "save again": [refuse("/d/f"), save("/d/f", b"1"), drained(), save("/d/f", b"2"), drained()],
    "discard": [refuse("/d/f"), save("/d/f", b"1"), drained(), giving_up("/d/f", b"old f"), drained()],
    "force": [
        append("/d/f", b"1"), foreign("/d/f", b"theirs"), drained(),
        decide("force", State.DEAD, Reason.CONFLICT), drained(),
    ],
}  # fmt: skip

REASONS = {"retry": ["rejected"], "save again": ["rejected"], "discard": ["rejected"], "force": ["conflict"]}


async def lived(life: Life, program: Callable[[], Awaitable[None]]) -> bool:
    """Recovers and runs beside the program until the daemon dies or the program ends; whether it came to the end."""
    try:
        life.recover()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.run)
            await program()
            nursery.cancel_scope.cancel()
    except* Killed:
        pass
    killed = life.crash.dead
    life.end()
    return not killed


async def play(life: Life, stage: Stage, steps: Sequence[Step]) -> None:
    for step in steps:
        stage.plan(step.after(stage.said))
        await step.do(life, stage)
        stage.acknowledge()


async def idle() -> None:
    """A program that does nothing."""


def begun(folder: Path) -> tuple[FaultyRemote, Stage]:
    emptied(folder)
    remote = FaultyRemote(now=TrioClock().now)
    for path in ("/d/f", "/d/g", "/e/h"):
        remote.write(path, b"old " + path[-1:].encode())
    return remote, Stage(remote)


# what must be so


def interrupted(life: Life) -> dict[str, list[bytes | None]]:
    found: dict[str, list[bytes | None]] = {}
    for record in life.dead():
        if record.reason is Reason.INTERRUPTED:
            found.setdefault(record.op.target, []).append(life.content(record.op.body))
    return found


async def check_shown(life: Life, stage: Stage) -> View:
    """What programs see is what was promised, or what the interrupted step would have made; or it is in a letter."""
    names = {*stage.said, *stage.meant, *stage.remote.files, "/d/f~", "/d/.f.swp"}
    letters = interrupted(life)
    view = {path: content for path in sorted(names) if (content := await life.read(path)) is not None}
    assert all(len(kept) == 1 for kept in letters.values()), f"one letter a draft, not {letters}"

    def is_told(promised: View) -> bool:
        kept = {path: (content, *letters.get(path, ())) for path, content in view.items()}
        return {*view} - {*letters} <= {*promised} and all(
            content in kept.get(path, letters.get(path, ())) for path, content in promised.items()
        )

    assert is_told(stage.said) or is_told(stage.meant), f"{view}, {letters}: not {stage.said} nor {stage.meant}"
    return stage.meant if is_told(stage.meant) else stage.said


def check_arrived(stage: Stage) -> None:
    """Of every file, each content arrived at most once, and in the program's order."""
    arrived: dict[str, list[bytes]] = {}
    for effect in stage.remote.effects:
        if effect.content is not None and effect.ours:
            arrived.setdefault(effect.path, []).append(effect.content)
    for path, contents in arrived.items():
        written = iter(stage.writes.get(path, []))
        assert all(content in written for content in contents), f"{path}: {contents} of {stage.writes.get(path)}"


async def check_the_rest(life: Life, stage: Stage, expected: set[Reason]) -> None:
    """The last daemon: what shows, what arrives, and that the next save of every file is delivered."""
    stage.remote.faults.clear()
    await check_shown(life, stage)
    await come_to_rest(life)
    view = await check_shown(life, stage)
    check_arrived(stage)
    assert {record.reason for record in life.dead()} <= expected, life.dead()
    for path in view:
        await life.save(path, b"next")
    await come_to_rest(life)
    for path in view:
        assert await life.read(path) == b"next"
        local = path.endswith(("~", ".swp"))
        conflict = Reason.CONFLICT in {record.reason for record in life.dead()}
        assert local or conflict or stage.remote.content(path) == b"next", path


# every point


def points_of(folder: Path, steps: Sequence[Step]) -> list[str]:
    crash = CrashAt()

    async def main() -> None:
        remote, stage = begun(folder)
        life = Life(folder, remote, TrioClock(), crash)
        assert await lived(life, lambda: play(life, stage, steps))
        assert stage.said == stage.meant

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return crash.passed


async def killed_at(folder: Path, steps: Sequence[Step], point: int, expected: set[Reason]) -> None:
    """Dies at that point, then at every point of its recovery, and once more on the way to the end."""
    remote, stage = begun(folder)
    first = Life(folder, remote, TrioClock(), CrashAt(point))
    assert not await lived(first, lambda: play(first, stage, steps))
    again = 1
    while not await lived(Life(folder, remote, TrioClock(), CrashAt(again)), idle):
        again += 1
    second = Life(folder, remote, TrioClock(), CrashAt(again + point % 7))
    await lived(second, lambda: come_to_rest(second))
    last = Life(folder, remote, TrioClock(), CrashAt())
    assert await lived(last, lambda: check_the_rest(last, stage, expected))


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    with without_threads():
        yield


@pytest.mark.parametrize("scene", SCENES)
def test_every_point(memory: Path, scene: str) -> None:
    steps = SCENES[scene]
    expected = {Reason.INTERRUPTED} | {Reason(word) for word in REASONS.get(scene, ())}
    for point, name in enumerate(points_of(memory, steps), 1):
        try:
            trio.run(killed_at, memory, steps, point, expected, clock=MockClock(autojump_threshold=0))
        except BaseException as error:
            error.add_note(f"killed at point {point}: {name}")
            raise
