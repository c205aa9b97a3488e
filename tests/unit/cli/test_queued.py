"""One line an op, whatever it holds."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec
import pytest

from fsmount.cli.queue import DEAD, HELD, PENDING, ShownOp
from fsmount.cli.queued import _chosen, line
from tests.unit.cli.test_wait import Looks, at

NOW = datetime(2026, 5, 5, 12, tzinfo=UTC).timestamp()
OPS = [f"op_{number:026d}" for number in range(6)]


def op(**members: object) -> ShownOp:
    told = {
        "opId": OPS[1], "path": "/github/a.json", "state": "dead-letter", "kind": "put", "size": 312, "attempts": 3,
        "reason": "rejected", "message": "the remote refused it: 422 no", "createdAt": "2026-05-05T11:59:53.000Z",
    }  # fmt: skip
    return msgspec.convert({**told, **members}, ShownOp)


def test_a_dead_letter() -> None:
    assert line(op(), DEAD, NOW) == (
        f"{OPS[1]}  dead-letter  put          312 B   3 attempts      7 s  /github/a.json"
        "  rejected: the remote refused it: 422 no"
    )


def test_a_move_that_waits_for_another() -> None:
    text = line(op(kind="move", state="pending", size=None, toPath="/b", reason=None, blockedBy=OPS[0]), PENDING, NOW)
    assert text.startswith(f"{OPS[1]}  pending      move             -")
    assert text.endswith(f"/github/a.json → /b  waits for {OPS[0]}")


@pytest.mark.parametrize("name", ["/a\nb", "/a\x1b[31mb", "/a\rb", "/\u202egpj.exe", "/\x9b2J"])
def test_a_name_stays_on_its_line_and_acts_on_no_terminal(name: str) -> None:
    text = line(op(path=name, toPath=name, message=name), DEAD, NOW)
    assert text.isprintable() or all(char.isprintable() for char in text.replace(" ", ""))
    assert "\n" not in text


def test_a_damaged_record_is_still_a_line() -> None:
    assert "malformed" in line(op(state="malformed", createdAt="?"), DEAD, NOW)


class Holding(Looks):
    """A queue with these ops, met in this order."""

    def __init__(self, *ops: tuple[str, str, str]) -> None:
        super().__init__(at())
        self._ops = ops

    def ops(self, directories: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for where, op_id, state in self._ops:
            if where in directories:
                yield where, msgspec.json.encode({"opId": op_id, "state": state})


QUEUE = Holding(
    (PENDING, OPS[4], "pending"),
    (PENDING, OPS[5], "sending"),
    (HELD, OPS[2], "held"),
    (DEAD, OPS[1], "dead-letter"),
    (DEAD, OPS[3], "malformed"),
    ("discarded", OPS[0], "discarded"),
)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (None, OPS[1:]), ("pending", [OPS[4]]), ("sending", [OPS[5]]), ("held", [OPS[2]]),
        ("dead-letter", [OPS[1], OPS[3]]), ("discarded", [OPS[0]]),
    ],
)  # fmt: skip
def test_by_state_oldest_first(state: str | None, found: list[str]) -> None:
    assert [one.op_id for one, _, _ in _chosen(QUEUE, state)] == found
