"""Every failure of every request, for every kind of op: what was promised arrives, once, and nothing dies of it.

A request may hang, end without an answer or with half of one after it was done, be refused for the moment, or be
answered with a revision that is not the file's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from fsmount.model import Revision
from tests.faults.crash import CrashAt
from tests.faults.life import Life
from tests.faults.loop import without_threads
from tests.faults.remote import cut, lost, refused, unanswered
from tests.faults.scenes import Step
from tests.faults.test_crashes import SCENES, begun, check_the_rest, lived, play
from tests.support.fake_remote import Fault
from tests.support.trio_clock import TrioClock

WRITING = ("put", "put_many", "copy_metadata", "delete")
SCENES_WITHOUT_A_PERSON = [
    scene for scene in SCENES if scene not in ("retry", "save again", "discard", "force", "there and back")
]
LISTED_ANEW = 6.0
"""Seconds after which what was listed is asked for again."""
AWAY = 30.0
"""Seconds after which a request that hangs is answered all the same."""


def hung(method: str, nth: int) -> Fault:
    """Not answered until the gate is opened."""
    return Fault(method=method, nth=nth, gate=trio.Event())


def misreported(method: str, nth: int) -> Fault:
    """Done, and the receipt names a revision that the file never had."""
    return Fault(method=method, nth=nth, receipt=lambda true: replace(true, revision=Revision("rev_never")))


FAULTS: dict[str, Callable[[str, int], Fault]] = {
    "lost": lost, "cut": cut, "unanswered": unanswered, "hung": hung,
    "500": partial(refused, 500), "503": partial(refused, 503), "429": partial(refused, 429),
}  # fmt: skip


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    with without_threads():
        yield


async def one(folder: Path, steps: Sequence[Step], fault: Callable[[str, int], Fault], method: str, nth: int) -> bool:
    """Plays the steps under that fault, to the end; whether it struck."""
    remote, stage = begun(folder)
    scripted = remote.script(fault(method, nth))
    life = Life(folder, remote, TrioClock(), CrashAt())
    struck = False

    async def program() -> None:
        nonlocal struck
        async with trio.open_nursery() as nursery:
            if scripted.gate is not None:
                nursery.start_soon(_open_later, scripted.gate)
            await play(life, stage, steps)
            nursery.cancel_scope.cancel()
        struck = scripted.seen >= nth
        if scripted.gate is not None:
            scripted.gate.set()
        await trio.sleep(LISTED_ANEW)
        await check_the_rest(life, stage, set())

    assert await lived(life, program)
    return struck


async def _open_later(gate: trio.Event) -> None:
    await trio.sleep(AWAY)
    gate.set()


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("method", ["put", "put_many", "copy_metadata", "delete"])
def test_every_fault_of_every_request_that_changes_something(memory: Path, method: str, kind: str) -> None:
    assert played(memory, FAULTS[kind], method) > 0


@pytest.mark.parametrize("method", ["put", "copy_metadata"])
def test_a_revision_that_the_file_never_had(memory: Path, method: str) -> None:
    """The next save is made from it, refused, and recognised as one of ours."""
    assert played(memory, misreported, method) > 0


def played(folder: Path, fault: Callable[[str, int], Fault], method: str) -> int:
    """All scenes under that fault of each such request that they make; how often it struck."""
    struck = 0
    for scene in SCENES_WITHOUT_A_PERSON:
        nth, again = 1, True
        while again:
            clock = MockClock(autojump_threshold=0)
            try:
                again = trio.run(one, folder, SCENES[scene], fault, method, nth, clock=clock)
            except BaseException as error:
                error.add_note(f"{scene}, {method} number {nth}")
                raise
            struck, nth = struck + again, nth + 1
    return struck
