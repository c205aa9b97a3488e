"""Waiting, against a queue whose every look is written down."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fsmount.cli import wait
from fsmount.cli.bar import Bar
from fsmount.cli.queue import Glance, Move, Numbers, Sent, ShownOp, Status, Version
from fsmount.cli.target import Target
from fsmount.cli.wait import Outcome, _follow, _next_step
from fsmount.errors import FsmountError

FIRST, SECOND, THIRD = (f"op_{number:026d}" for number in (1, 2, 3))
TARGET = Target(mountpoint="/mnt", said=True)


class Looks:
    """A queue that is at each look as `glances` say; the last stays."""

    served = True

    def __init__(self, *glances: Glance, blocked: dict[str, str] | None = None) -> None:
        self._glances = list(glances)
        self._blocked = blocked or {}
        self.looks = 0

    def glance(self) -> Glance:
        self.looks += 1
        return self._glances.pop(0) if len(self._glances) > 1 else self._glances[0]

    def show(self, op_id: str) -> tuple[str, bytes] | None:
        blocked = f'"{self._blocked[op_id]}"' if op_id in self._blocked else "null"
        return "pending", f'{{"opId": "{op_id}", "path": "/a", "blockedBy": {blocked}}}'.encode()

    def show_each(self, op_ids: Sequence[str]) -> Iterator[tuple[str, bytes] | None]:
        return map(self.show, op_ids)

    def status_json(self) -> bytes:
        raise NotImplementedError

    def status_text(self) -> str:
        raise NotImplementedError

    def ops(self, directories: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        raise NotImplementedError

    def move(self, moves: Sequence[Move]) -> Iterator[FsmountError | None]:
        raise NotImplementedError

    def version(self, op_id: str, side: str) -> Version | None:
        raise NotImplementedError


def at(*pending: str, held: Sequence[str] = (), dead: Sequence[str] = (), blocked: int = 0) -> Glance:
    numbers = Numbers(pending=len(pending), blocked=blocked, held=len(held), dead_letter=len(dead))
    return Glance(pending=list(pending), held=list(held), dead=list(dead), status=Status(queue=numbers))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_POLL", 0.0)


def followed(looks: Looks, *ops: str, deadline: float | None = None) -> Outcome:
    return _follow(looks, ops, deadline, lambda _done, _status: None)


def outcome(
    *, dead: Sequence[str] = (), held: Sequence[str] = (), blocked: Sequence[str] = (), waiting: Sequence[str] = ()
) -> Outcome:
    return Outcome(dead=list(dead), held=list(held), blocked=list(blocked), waiting=list(waiting))


def test_it_ends_when_all_are_gone() -> None:
    assert followed(Looks(at(FIRST, SECOND), at(SECOND), at()), FIRST, SECOND).delivered_all


def test_it_goes_on_for_the_others_after_one_died() -> None:
    looks = Looks(at(FIRST, SECOND), at(SECOND, dead=[FIRST]), at(dead=[FIRST]))
    assert followed(looks, FIRST, SECOND) == outcome(dead=[FIRST])


def test_what_the_brake_holds_will_not_get_there() -> None:
    looks = Looks(at(FIRST, SECOND), at(held=[FIRST, SECOND, THIRD]))
    assert followed(looks, FIRST, SECOND) == outcome(held=[FIRST, SECOND])


def test_older_dead_letters_and_newer_ops_do_not_count() -> None:
    assert followed(Looks(at(THIRD, dead=[FIRST], held=[FIRST])), SECOND).delivered_all


def test_only_blocked_ops_left_is_the_end() -> None:
    looks = Looks(at(SECOND, blocked=1), blocked={SECOND: FIRST})
    assert followed(looks, SECOND) == outcome(blocked=[SECOND])


def test_an_op_that_a_person_moves_while_one_look_takes_is_not_taken_for_delivered() -> None:
    looks = Looks(at(FIRST), at(), at(FIRST), at(dead=[FIRST]))
    assert followed(looks, FIRST) == outcome(dead=[FIRST])


def test_when_the_time_is_up_what_waits_is_told() -> None:
    assert followed(Looks(at(FIRST)), FIRST, deadline=0.0) == outcome(waiting=[FIRST])


def test_a_held_op_comes_with_both_its_commands() -> None:
    step = _next_step(ShownOp(op_id=FIRST, state="held"), TARGET)
    assert f"fsmount writeback retry --opId {FIRST} /mnt" in step
    assert f"fsmount writeback discard --opId {FIRST} /mnt" in step


def test_bytes_never_go_back_and_are_whole_at_the_end() -> None:
    bar = Bar(2, 1000)
    told = []
    for done, left, under_way in ((0, 1000, 100), (1, 700, 0), (1, 5700, 0), (2, 5000, 0)):
        status = Status(queue=Numbers(bytes=left), transfers=(Sent(op_id=FIRST, bytes_sent=under_way),))
        bar.show(done, status)
        told.append(bar._told())
    assert told == ["100 B of 1000 B", "300 B of 1000 B", "300 B of 1000 B", "1000 B of 1000 B"]


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with Bar(2, 10) as bar:
        bar.show(1, Status())
    assert capsys.readouterr() == ("", "")
