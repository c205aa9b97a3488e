"""Options and mount points that cannot be are told before anything happens."""

import os
from pathlib import Path

import pytest
from click import BadParameter

from fsmount.cli import mount as mounting
from fsmount.cli.checks import check_apart, check_machine, check_mountpoint
from fsmount.cli.mount import configure
from fsmount.cli.mount import mount as command
from fsmount.config import Config
from fsmount.errors import MachineLacks, UsageError

REMOTE = "relayfile+http://127.0.0.1:8080/local/github"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FSMOUNT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(mounting, "check_machine", lambda **_asked: None)
    (tmp_path / "m").mkdir()


def configured(tmp_path: Path, *options: str, at: str | None = None, remote: str = REMOTE) -> Config:
    """What these words on the command line come to."""
    context = command.make_context("mount", [remote, at or str(tmp_path / "m"), *options])
    return configure(context.params)  # type: ignore[arg-type]


def test_without_options(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert str(config.remote) == REMOTE
    assert config.mountpoint == tmp_path / "m"
    assert config.name.startswith("127.0.0.1_8080_local_github-")
    assert config.state_dir == tmp_path / "state" / "fsmount" / config.name
    assert config.cache_dir == tmp_path / "cache" / "fsmount" / config.name
    assert config.log_file == config.state_dir / "log"
    assert (config.uid, config.gid, config.umask) == (os.getuid(), os.getgid(), 0o022)
    assert (config.timeout, config.settle, config.max_settle, config.open_settle) == (30.0, 0.3, 3.0, 5.0)
    assert (config.attr_ttl, config.max_attempts, config.drain) == (5.0, 8, 10.0)
    assert config.keep_discarded == 30 * 86400.0
    assert config.cache_limit == config.discard_limit == 10 * 1024**3
    assert (config.max_deletes, config.write_through, config.hide_relay, config.break_lock) == (
        100,
        False,
        False,
        False,
    )
    assert not (tmp_path / "state").exists(), "nothing is made before the mount"


def test_with_all_options(tmp_path: Path) -> None:
    config = configured(
        tmp_path, "-f", "--debug", "--log", "l", "--name", "work", "--state-dir", "s", "--cache-dir", "c",
        "--token-file", "t", "--timeout", "2", "--attr-ttl", "0", "--settle", "0", "--max-settle", "1",
        "--open-settle", "1.5", "--max-attempts", "3", "--keep-discarded", "0.5", "--drain", "0", "--cache-limit", "1M",
        "--spool-limit", "2K", "--discard-limit", "3K", "--max-deletes", "5",
        "--read-only", "--write-through", "--hide-relay", "--nonempty", "--allow-other", "--noexec", "--break-lock",
        "--uid", "1", "--gid", "2", "--umask", "077",
    )  # fmt: skip
    here = Path.cwd()
    assert (config.log_file, config.state_dir, config.cache_dir) == (here / "l", here / "s", here / "c")
    assert config.credentials.token_file == here / "t"
    assert (config.timeout, config.attr_ttl, config.keep_discarded, config.drain) == (2.0, 0.0, 43200.0, 0.0)
    assert (config.max_attempts, config.max_deletes) == (3, 5)
    assert (config.cache_limit, config.spool_limit, config.discard_limit) == (1024**2, 2048, 3072)
    assert (config.uid, config.gid, config.umask) == (1, 2, 0o077)
    assert all((config.foreground, config.debug, config.read_only, config.nonempty, config.allow_other))
    assert all((config.write_through, config.hide_relay, config.noexec, config.break_lock))


def test_the_environment_gives_defaults_and_flags_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMOUNT_ATTR_TTL", "17")
    monkeypatch.setenv("FSMOUNT_DRAIN", "1")
    config = configured(tmp_path, "--drain", "2")
    assert (config.attr_ttl, config.drain) == (17.0, 2.0)


@pytest.mark.parametrize(
    "options",
    [
        ("--timeout", "0"), ("--timeout", "nan"), ("--settle", "-1"), ("--settle", "inf"), ("--settle", "9"),
        ("--max-attempts", "0"), ("--umask", "888"), ("--umask", "01777"), ("--uid", "-1"), ("--cache-limit", "much"),
        ("--spool-limit", "180%"), ("--name", "../up"), ("--name", "mounts"), ("--name", ""), ("--name", ".hidden"),
        ("--token-file", "t", "--token-command", "c"), ("--keep-discarded", "long"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_values_that_cannot_be(tmp_path: Path, options: tuple[str, ...]) -> None:
    with pytest.raises((UsageError, BadParameter)):
        configured(tmp_path, *options)


@pytest.mark.parametrize("remote", ["http://h/w", "relayfile+http://h", "relayfile+http://u:secret@h/w", "nonsense"])
def test_remotes_that_cannot_be(tmp_path: Path, remote: str) -> None:
    with pytest.raises(UsageError) as caught:
        configured(tmp_path, remote=remote)
    assert "secret" not in caught.value.message


def test_a_missing_mount_point(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        check_mountpoint(str(tmp_path / "none"), nonempty=False)
    assert caught.value.hint == f"mkdir -p {tmp_path / 'none'}"


def test_a_file_as_mount_point(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match="not a directory"):
        check_mountpoint(str(tmp_path / "f"), nonempty=True)


def test_a_mount_point_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "m" / "a file").write_text("")
    with pytest.raises(UsageError, match="not empty: it holds 'a file'"):
        check_mountpoint(str(tmp_path / "m"), nonempty=False)
    assert check_mountpoint(str(tmp_path / "m"), nonempty=True) == tmp_path / "m"


def test_links_to_the_mount_point_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("m")
    assert check_mountpoint(str(tmp_path / "link"), nonempty=False) == tmp_path / "m"


def test_a_mount_point_that_is_no_text(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        check_mountpoint(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"), nonempty=False)


@pytest.mark.parametrize("option", ["--state-dir", "--cache-dir", "--log", "--token-file"])
def test_the_daemon_writes_nothing_into_its_own_mount(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        configured(tmp_path, option, str(tmp_path / "m" / "inside"))
    check_apart(tmp_path / "m", {option: tmp_path / "mm"})


def test_a_machine_without_fuse(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match="missing") as caught:
        check_machine(allow_other=False, device=tmp_path / "fuse")
    assert caught.value.hint is not None
    assert "modprobe" in caught.value.hint


def test_a_machine_without_fusermount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fuse").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineLacks, match="fusermount3") as caught:
        check_machine(allow_other=False, device=tmp_path / "fuse")
    assert caught.value.hint == "apt install fuse3"


@pytest.mark.parametrize(("conf", "fine"), [("user_allow_other\n", True), ("#user_allow_other\n", False), ("", False)])
def test_letting_others_in_needs_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conf: str, fine: bool
) -> None:
    (tmp_path / "fuse").write_text("")
    (tmp_path / "fuse.conf").write_text(conf)
    (tmp_path / "fusermount3").write_text("")
    (tmp_path / "fusermount3").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    if fine:
        check_machine(allow_other=True, device=tmp_path / "fuse", conf=tmp_path / "fuse.conf")
        return
    with pytest.raises(MachineLacks, match="not permitted") as caught:
        check_machine(allow_other=True, device=tmp_path / "fuse", conf=tmp_path / "fuse.conf")
    assert "user_allow_other" in (caught.value.hint or "")
