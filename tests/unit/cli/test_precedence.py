"""Flag, environment, file, default: each option takes what stands nearest to the call; ``-o`` says flags."""

import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from fsmount.cli import mount as mounting
from fsmount.cli.mount import configure
from fsmount.cli.mount import mount as command
from fsmount.config import DEFAULT_LITTER, Config, mount_name, parse_remote
from fsmount.errors import UsageError

REMOTE = "relayfile+http://127.0.0.1:8080/local/github"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FSMOUNT_"):
            monkeypatch.delenv(name)
    for kind in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))
    monkeypatch.setattr(mounting, "check_machine", lambda **_asked: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()


def written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config/fsmount/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def configured(*options: str, at: str = "m", remote: str = REMOTE) -> Config:
    with command.make_context("mount", [remote, at, *options]) as context:
        return configure(context.params)  # type: ignore[arg-type]


def test_each_option_takes_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four options, each said one place further away than the one before; and all of them wherever further away."""
    written(tmp_path, "attr_ttl = 30\nsettle = 0.5\ndrain = 3")
    monkeypatch.setenv("FSMOUNT_ATTR_TTL", "20")
    monkeypatch.setenv("FSMOUNT_SETTLE", "0.25")
    config = configured("--attr-ttl", "1")
    assert (config.attr_ttl, config.settle, config.drain, config.max_attempts) == (1.0, 0.25, 3.0, 8)


def test_what_the_file_can_say(tmp_path: Path) -> None:
    written(
        tmp_path,
        """
        timeout = 2
        attr_ttl = 0
        settle = 0.1
        max_settle = 1.5
        open_settle = 2
        max_attempts = 3
        max_deletes = 7
        keep_discarded = 0.5
        drain = 1
        cache_limit = "1M"
        spool_limit = 4096
        discard_limit = "2K"
        read_only = true
        write_through = true
        hide_relay = true
        nonempty = true
        allow_other = true
        noexec = true
        debug = true
        uid = 1
        gid = 2
        umask = "077"
        litter = ["*.tmp"]
        [mount."work"]
        token_file = "~/token"
        state_dir = "/s"
        cache_dir = "/c"
        log = "/l"
        """,
    )
    config = configured("--name", "work")
    assert config == Config(
        remote=parse_remote(REMOTE), mountpoint=tmp_path / "m", name="work", state_dir=Path("/s"), cache_dir=Path("/c"),
        log_file=Path("/l"), credentials=type(config.credentials)(token_file=Path.home() / "token"), debug=True,
        timeout=2.0, attr_ttl=0.0, settle=0.1, max_settle=1.5, open_settle=2.0, max_attempts=3, max_deletes=7,
        keep_discarded=43200.0, drain=1.0, cache_limit=1024**2, spool_limit=4096, discard_limit=2048, read_only=True,
        write_through=True, hide_relay=True, nonempty=True, allow_other=True, noexec=True, uid=1, gid=2, umask=0o077,
        litter=("*.tmp",),
    )  # fmt: skip


def test_a_flag_of_the_file_is_taken_back_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "read_only = true")
    assert configured().read_only
    monkeypatch.setenv("FSMOUNT_READ_ONLY", "0")
    assert not configured().read_only


@pytest.mark.parametrize(
    "heading",
    ["name", "remote", "mountpoint"],
)
def test_a_table_is_for_the_mount_it_is_headed_with(tmp_path: Path, heading: str) -> None:
    name = {"name": mount_name(parse_remote(REMOTE)), "remote": REMOTE, "mountpoint": f"{tmp_path}/m"}[heading]
    written(tmp_path, f"drain = 1\nsettle = 0.1\n[mount.'{name}']\ndrain = 2\n[mount.other]\ndrain = 3")
    config = configured()
    assert (config.drain, config.settle) == (2.0, 0.1)
    (tmp_path / "n").mkdir()
    assert configured(remote="relayfile+http://h/elsewhere", at="n").drain == 1.0


def test_of_two_tables_the_more_exact_one_holds(tmp_path: Path) -> None:
    written(tmp_path, f"[mount.'{tmp_path}/m']\ndrain = 3\n[mount.work]\ndrain = 2\n[mount.'{REMOTE}']\ndrain = 1")
    assert configured("--name", "work").drain == 3.0
    (tmp_path / "n").mkdir()
    assert configured("--name", "work", at="n").drain == 2.0
    assert configured(at="n").drain == 1.0


def test_the_nearest_credential_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, f"[mount.'{REMOTE}']\ntoken_file = '/far'")
    assert configured().credentials.token_file == Path("/far")
    near = configured("--token-command", "near").credentials
    assert (near.token_file, near.token_command) == (None, "near")
    monkeypatch.setenv("FSMOUNT_TOKEN", "a-token")
    assert configured().credentials.token_file is None
    assert configured("--token-file", "/near").credentials.token_file == Path("/near")


def test_litter_has_a_default(tmp_path: Path) -> None:
    assert configured().litter == DEFAULT_LITTER
    written(tmp_path, "litter = []")
    assert configured().litter == ()


def test_options_of_fstab() -> None:
    config = configured(
        "-o", "ro,attr_ttl=7,max-settle=9,allow_other,nodev,suid,rw,x-systemd.automount,comment=a=b,user=me,_netdev",
        "-onoexec,umask=077,nofail,,token_command=a\\,b",
    )  # fmt: skip
    assert (config.read_only, config.allow_other, config.noexec) == (True, True, True)
    assert (config.attr_ttl, config.max_settle, config.umask) == (7.0, 9.0, 0o077)
    assert config.credentials.token_command == "a,b"


def test_a_flag_wins_over_o_and_o_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMOUNT_DRAIN", "1")
    assert configured("-o", "drain=2").drain == 2.0
    assert configured("-o", "drain=2", "--drain", "3").drain == 3.0
    assert configured("--drain", "3", "-o", "drain=2").drain == 3.0


def test_the_form_before_subtypes() -> None:
    assert configured(remote=f"fsmount#{REMOTE}").remote == parse_remote(REMOTE)


def test_help_is_shown_whatever_the_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, "nonsense")
    with pytest.raises(click.exceptions.Exit):
        command.make_context("mount", ["--help"])
    assert "config.toml" in capsys.readouterr().out


def reading_again(*options: str) -> tuple[Config, Callable[[], Config]]:
    return reading_again_at("m", *options)


def reading_again_at(point: str, *options: str) -> tuple[Config, Callable[[], Config]]:
    with command.make_context("mount", [REMOTE, point, *options]) as context:
        config = configure(context.params)  # type: ignore[arg-type]
        return config, mounting._reading_again(config)


def test_reading_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, f"attr_ttl = 5\nread_only = true\n[mount.'{tmp_path}/m']\nname = 'before'\ndrain = 1")
    config, again = reading_again("--settle", "0.2", "--token-file", "t")
    monkeypatch.chdir("/")  # as the daemon does
    assert again() == config
    written(tmp_path, f"attr_ttl = 9\nsettle = 0.5\nlitter = ['x']\n[mount.'{tmp_path}/m']\nname = 'after'\ndrain = 4")
    found = again()
    assert (found.attr_ttl, found.drain, found.litter) == (9.0, 4.0, ("x",))
    assert found.settle == 0.2, "the flag of the start wins still"
    assert (found.name, found.state_dir, found.read_only) == (config.name, config.state_dir, True)
    assert found.credentials == config.credentials
    assert found.credentials.token_file == tmp_path / "t"


def test_a_file_that_cannot_be_is_told_when_it_is_read_again(tmp_path: Path) -> None:
    _, again = reading_again()
    for text in ("settle = 'x'", "=", "settle = 99"):
        written(tmp_path, text)
        with pytest.raises(UsageError):
            again()


def test_from_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    config, again = reading_again_at(str(tmp_path / "m"))
    assert again() == config
    with pytest.raises(UsageError, match="current directory is gone"):
        reading_again_at("m")
