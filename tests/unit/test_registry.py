"""Mounts are found by text alone."""

import json
from pathlib import Path

import pytest

from fsmount import registry
from fsmount.errors import MachineLacks
from fsmount.registry import Registration


@pytest.fixture(autouse=True)
def _own_state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))


def mounted(mountpoint: str, *, name: str = "one", state_dir: str = "/state/one", at: float = 1.0) -> Registration:
    one = Registration(mountpoint=mountpoint, name=name, remote="r", state_dir=state_dir, pid=7, started_at=at)
    registry.write(one)
    return one


def test_none_at_first() -> None:
    assert registry.registrations() == []
    assert registry.around("/x") is None


def test_the_file_has_the_members_that_others_read(tmp_path: Path) -> None:
    mounted("/m")
    (file,) = (tmp_path / "xdg" / "fsmount" / "mounts").glob("*.json")
    members = json.loads(file.read_text())
    assert members == {
        "mountpoint": "/m", "name": "one", "remote": "r", "stateDir": "/state/one", "pid": 7, "startedAt": 1.0,
    }  # fmt: skip


def test_written_again_it_is_one_mount() -> None:
    mounted("/m")
    again = mounted("/m", at=2.0)
    assert registry.registrations() == [again]
    assert registry.at("/m") == again


def test_removed_it_is_gone() -> None:
    mounted("/m")
    other = mounted("/n")
    registry.remove("/m")
    registry.remove("/never")
    assert registry.registrations() == [other]


def test_the_innermost_mount_around_a_path() -> None:
    outer = mounted("/m", at=1.0)
    inner = mounted("/m/deep", at=2.0)
    assert registry.around("/m") == outer
    assert registry.around("/m/deeper") == outer
    assert registry.around("/m/deep/a/b") == inner
    assert registry.around("/elsewhere") is None


def test_by_name_and_by_state_directory() -> None:
    first = mounted("/a", name="same", state_dir="/s", at=1.0)
    second = mounted("/b", name="same", state_dir="/s", at=2.0)
    assert registry.named("same") == [first, second]
    assert registry.named("other") == []
    assert registry.using(Path("/s")) == second
    assert registry.using(Path("/t")) is None


@pytest.mark.parametrize("text", ["", "{", '{"mountpoint": 3}'])
def test_a_damaged_file_hides_no_other(tmp_path: Path, text: str) -> None:
    one = mounted("/m")
    (tmp_path / "xdg" / "fsmount" / "mounts" / "broken.json").write_text(text)
    assert registry.registrations() == [one]


def test_a_place_that_cannot_be_written_is_this_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "xdg").write_text("a file")
    with pytest.raises(MachineLacks, match="cannot be written"):
        mounted("/m")
