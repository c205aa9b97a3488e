"""The mounts of a user, as far as they can be told without any."""

import os
from pathlib import Path

import pytest

from fsmount import registry
from fsmount.cli.list import Row, _rows, targets, told
from fsmount.cli.queue import Numbers
from fsmount.mounttable import MountLine


@pytest.fixture(autouse=True)
def _own_state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))


def line(mountpoint: str, user: int | None, fstype: str = "fuse.fsmount") -> MountLine:
    return MountLine(mountpoint=mountpoint, fstype=fstype, source="relayfile+http://h/w", device="0:77", user=user)


def row(mountpoint: str, health: str, queue: Numbers | None = None, hint: str | None = None) -> Row:
    return Row(
        mountpoint=mountpoint, name="n", remote="relayfile+http://h/w", state_dir=None, pid=None, health=health,
        queue=queue, hint=hint,
    )  # fmt: skip


def register(mountpoint: str, state_dir: Path, name: str = "one") -> None:
    registry.write(
        registry.Registration(
            mountpoint=mountpoint,
            name=name,
            remote="relayfile+http://h/w",
            state_dir=str(state_dir),
            pid=1,
            started_at=1,
        )
    )


def test_no_mounts() -> None:
    assert told(_rows(targets([]))) == ["no mounts"]


def test_columns_stand_under_each_other_and_what_to_do_below() -> None:
    rows = [
        row("/a", "ok", Numbers(pending=1, sending=2)),
        row("/longer", "not responding", None, "look at pid 7"),
        row("/c\n", "failing", Numbers(held=2, dead_letter=1)),
    ]
    assert told(rows) == [
        "/a       relayfile+http://h/w  ok              3 pending, 0 dead letters",
        "/longer  relayfile+http://h/w  not responding",
        "    look at pid 7",
        "/c\\n     relayfile+http://h/w  failing         0 pending, 1 dead letter, 2 held",
    ]


def test_the_registry_first_then_what_the_mount_table_knows_of_this_user(tmp_path: Path) -> None:
    register("/reg", tmp_path)
    table = [
        line("/reg", os.getuid()), line("/mine", os.getuid()), line("/theirs", os.getuid() + 1), line("/untold", None),
        line("/other", os.getuid(), "ext4"),
    ]  # fmt: skip
    assert [target.mountpoint for target in targets(table)] == ["/reg", "/mine", "/untold"]


def test_a_state_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    register(str(tmp_path / "m"), tmp_path / "gone")
    (found,) = _rows(targets([]))
    assert (found.health, found.queue) == ("stopped", None)
    assert "its state directory is gone" in (found.hint or "")


def test_a_state_directory_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    (bad / "lock").mkdir(parents=True)
    (bad / "journal.db").touch()
    register(str(tmp_path / "a"), bad, "a")
    register(str(tmp_path / "b"), tmp_path / "gone", "b")
    first, second = _rows(targets([]))
    assert "cannot be used" in (first.hint or "")
    assert second.hint
