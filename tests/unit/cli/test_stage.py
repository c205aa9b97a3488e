"""What the tour sets up works and goes away again; no mount is needed for that."""

import json
import os
from pathlib import Path

import pytest

from fsmount.cli.stage import SAMPLES, stage
from fsmount.cli.tour import Step, _look, _show
from fsmount.errors import FsmountError


@pytest.fixture(autouse=True)
def _own_temporary_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_the_server_has_the_samples_and_everything_goes_away(tmp_path: Path) -> None:
    with stage(None) as ready:
        assert ready.mountpoint.is_dir()
        for path, content in SAMPLES.items():
            done = ready.shell(_look(ready, path), Path("/"))
            assert done.returncode == 0, done.stdout
            assert json.loads(done.stdout)["content"] == content
        server = [Path(f"/proc/{pid}") for pid in _with_environment(ready.environment["XDG_STATE_HOME"])]
        assert server
    assert not list(tmp_path.iterdir())
    assert not any(process.exists() for process in server)


def test_without_curl_python_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(None) as ready:
        monkeypatch.setattr("shutil.which", lambda _name: None)
        done = ready.shell(_look(ready, "/github/README.md"), Path("/"))
        assert json.loads(done.stdout)["path"] == "/github/README.md"


def test_a_given_mount_point_is_left_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    with stage(place) as ready:
        assert ready.mountpoint == place
    assert list(tmp_path.iterdir()) == [place]


def test_it_is_taken_down_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), stage(None):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_the_users_own_settings_do_not_reach_the_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMOUNT_STATE_DIR", "/somewhere")
    with stage(None) as ready:
        assert ready.shell("env; command -v fsmount", Path("/")).stdout.count("FSMOUNT_") == 0
        assert ready.shell("fsmount writeback status", Path("/")).stdout == "no mounts\n"


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (Step(says="s", command="echo one", shows=("two",), outside=True), "did not show 'two'"),
        (Step(says="s", command="exit 3", outside=True), "ended with 3 where 0 was expected"),
    ],
)
def test_a_step_that_goes_wrong_ends_the_tour(step: Step, wrong: str) -> None:
    with stage(None) as ready, pytest.raises(FsmountError, match=wrong):
        _show(ready, step)


def test_a_step_prints_what_it_ran_and_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    with stage(None) as ready:
        _show(ready, Step(says="Look.", command="printf x; echo y >&2", shows=("xy",), outside=True))
    assert capsys.readouterr().out == "\n# Look.\n$ printf x; echo y >&2\nxy\n"


def _with_environment(value: str) -> list[str]:
    """The processes that were started with ``value`` in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if value.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found
