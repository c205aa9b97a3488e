"""A person's decisions: what goes where, and what is said of it."""

from pathlib import Path

import pytest

from fsmount.cli.live import LiveQueue
from fsmount.cli.queue import DEAD, DISCARDED, FORCE, HELD, PENDING, RETRY
from fsmount.cli.target import Target
from fsmount.cli.verbs import _dead_letters, _each, _forced_where_possible, _looked_up, _newest, _sorted_out
from fsmount.errors import NotFound, UsageError, VerbRefused
from tests.unit.cli.test_live import FIRST, SECOND, THIRD, put, relay

__all__ = ["relay"]


def queue(relay: Path) -> LiveQueue:
    return LiveQueue(Target(mountpoint=str(relay.parent)))


def there(relay: Path, directory: str) -> list[str]:
    return sorted(path.stem for path in (relay / directory).iterdir())


@pytest.mark.parametrize("source", [DEAD, HELD, DISCARDED])
def test_what_can_be_retried(relay: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(relay, source, FIRST)
    assert _each(queue(relay), _looked_up(queue(relay), [FIRST]), lambda _op: RETRY) == 0
    assert there(relay, RETRY) == [FIRST]
    assert capsys.readouterr().out == f"{FIRST} will be tried again: /github/{FIRST}.json\n"


@pytest.mark.parametrize("source", [DEAD, HELD, PENDING])
def test_what_can_be_discarded(relay: Path, source: str) -> None:
    put(relay, source, FIRST)
    assert _each(queue(relay), _looked_up(queue(relay), [FIRST]), lambda _op: DISCARDED) == 0
    assert there(relay, DISCARDED) == [FIRST]


def test_what_is_pending_needs_no_retry(relay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(relay, PENDING, FIRST)
    assert _each(queue(relay), _looked_up(queue(relay), [FIRST]), lambda _op: RETRY) == 0
    assert capsys.readouterr().out == f"{FIRST} is pending already: /github/{FIRST}.json\n"
    assert there(relay, PENDING) == [FIRST]


def test_each_is_tried_whatever_happened_to_the_one_before(relay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(relay, DEAD, SECOND)
    with pytest.raises(NotFound, match=THIRD):
        _each(queue(relay), _looked_up(queue(relay), [FIRST, SECOND, THIRD]), lambda _op: RETRY)
    assert there(relay, RETRY) == [SECOND]
    assert f"fsmount: error: no such op: {FIRST}\n" in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["conflict", "remote-deleted"])
def test_a_conflict_can_be_forced(relay: Path, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(relay, DEAD, FIRST, reason=reason)
    assert _each(queue(relay), _looked_up(queue(relay), [FIRST]), lambda _op: FORCE) == 0
    assert there(relay, FORCE) == [FIRST]
    assert capsys.readouterr().out == f"{FIRST} will be saved over theirs: /github/{FIRST}.json\n"


@pytest.mark.parametrize(
    ("where", "reason", "says"),
    [(DEAD, "rejected", "rejected"), (HELD, None, "held"), (PENDING, None, "pending"), (DISCARDED, None, "discarded")],
)
def test_nothing_else_can(relay: Path, where: str, reason: str | None, says: str) -> None:
    put(relay, where, FIRST, reason=reason)
    with pytest.raises(VerbRefused, match=f"cannot be forced: it is {says}, no conflict"):
        _each(queue(relay), _looked_up(queue(relay), [FIRST]), lambda _op: FORCE)
    assert there(relay, where) == [FIRST]


def test_of_all_the_conflicts_are_forced_and_the_others_tried_again(relay: Path) -> None:
    put(relay, DEAD, FIRST, reason="conflict")
    put(relay, DEAD, SECOND, reason="rejected")
    _each(queue(relay), _dead_letters(queue(relay), None), _forced_where_possible)
    assert (there(relay, FORCE), there(relay, RETRY)) == ([FIRST], [SECOND])


def test_of_several_of_one_path_the_newest(relay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for op_id in (FIRST, SECOND, THIRD):
        put(relay, DEAD, op_id, path="/a")
    _each(queue(relay), _newest(_dead_letters(queue(relay), None)), lambda _op: RETRY)
    assert there(relay, RETRY) == [THIRD]
    assert "2 older dead letters of these paths are left" in capsys.readouterr().out


def test_held_ops_are_not_among_all(relay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(relay, HELD, FIRST)
    assert _each(queue(relay), _dead_letters(queue(relay), None), lambda _op: DISCARDED) == 0
    assert capsys.readouterr().out == "there are no dead letters\n"


def test_by_provider(relay: Path) -> None:
    put(relay, DEAD, FIRST, provider="github")
    put(relay, DEAD, SECOND, provider="notion")
    _each(queue(relay), _dead_letters(queue(relay), "notion"), lambda _op: RETRY, "notion")
    assert there(relay, RETRY) == [SECOND]


def test_mount_and_ops_are_told_apart() -> None:
    assert _sorted_out(("/mnt", SECOND), (FIRST,), chosen=(False,)) == ("/mnt", [FIRST, SECOND])
    assert _sorted_out((FIRST, "/mnt"), (), chosen=(False,)) == ("/mnt", [FIRST])
    assert _sorted_out((SECOND, FIRST), (FIRST,), chosen=(False,)) == (None, [FIRST, SECOND])
    with pytest.raises(UsageError, match=r"one mount at a time, not /a and /b\\x1b"):
        _sorted_out(("/a", "/b\x1b"), (FIRST,), chosen=(False,))


def test_names_of_ops_are_escaped(relay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(relay, DEAD, FIRST, path="/a\n\x1b", toPath="/b\x07")
    _each(queue(relay), _looked_up(queue(relay), [FIRST]), lambda _op: RETRY)
    assert capsys.readouterr().out == f"{FIRST} will be tried again: /a\\n\\x1b → /b\\x07\n"


@pytest.mark.parametrize("name", ["nonsense", "op_1\x1b[31m", "op_" + "!" * 26, ""])
def test_what_is_no_id_is_an_unknown_op(relay: Path, name: str) -> None:
    with pytest.raises(NotFound, match="no such op: ") as caught:
        _each(queue(relay), _looked_up(queue(relay), [name]), lambda _op: RETRY)
    assert "\x1b" not in caught.value.message
