"""Which mount is meant."""

from pathlib import Path

import pytest

from fsmount import registry
from fsmount.cli.target import find
from fsmount.errors import NotFound, UsageError


@pytest.fixture(autouse=True)
def _own_state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)


def known(tmp_path: Path, place: str, name: str) -> str:
    mountpoint = str(tmp_path / place)
    registry.write(
        registry.Registration(
            mountpoint=mountpoint, name=name, remote="r", state_dir=str(tmp_path / "s" / place), pid=1, started_at=1.0
        )
    )
    return mountpoint


def test_nothing_said_and_nothing_known() -> None:
    assert find(None) is None


def test_by_mount_point_by_a_path_inside_and_by_name(tmp_path: Path) -> None:
    first, second = known(tmp_path, "a", "one"), known(tmp_path, "b", "two")
    for text, meant in (
        (first, first),
        ("a", first),
        ("./b/x/../y", second),
        (f"{second}/deep/file", second),
        ("two", second),
    ):
        target = find(text)
        assert target is not None
        assert target.mountpoint == meant


def test_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    first = known(tmp_path, "a", "one")
    target = find("link/inside")
    assert target is not None
    assert target.mountpoint == first


def test_the_only_one(tmp_path: Path) -> None:
    first = known(tmp_path, "a", "one")
    target = find(None)
    assert target is not None
    assert target.mountpoint == first
    assert target.state_dir == tmp_path / "s" / "a"


def test_of_several_the_one_around_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(tmp_path, "a", "one")
    second = known(tmp_path, "b", "two")
    with pytest.raises(UsageError, match="several") as caught:
        find(None)
    assert second in (caught.value.hint or "")
    (tmp_path / "b" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "b" / "deep")
    target = find(None)
    assert target is not None
    assert target.mountpoint == second


def test_two_of_one_name(tmp_path: Path) -> None:
    known(tmp_path, "a", "same")
    known(tmp_path, "b", "same")
    with pytest.raises(UsageError, match="several mounts are named same"):
        find("same")


def test_none_such(tmp_path: Path) -> None:
    first = known(tmp_path, "a", "one")
    with pytest.raises(NotFound) as caught:
        find("/elsewhere")
    assert first in (caught.value.hint or "")


def test_by_state_directory(tmp_path: Path) -> None:
    first = known(tmp_path, "a", "one")
    target = find(None, Path("s/a"))
    assert target is not None
    assert target.mountpoint == first
    (tmp_path / "loose").mkdir()
    alone = find(None, tmp_path / "loose")
    assert alone is not None
    assert (alone.mountpoint, alone.state_dir) == (None, tmp_path / "loose")
    with pytest.raises(NotFound):
        find(None, tmp_path / "none")


def test_by_the_environment_where_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = known(tmp_path, "a", "one"), known(tmp_path, "b", "two")
    monkeypatch.setenv("FSMOUNT_STATE_DIR", str(tmp_path / "s" / "a"))
    for said, meant in ((None, first), (second, second)):
        target = find(said)
        assert target is not None
        assert target.mountpoint == meant


def test_saying_it_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both say which mount"):
        find(known(tmp_path, "a", "one"), tmp_path / "s" / "a")
