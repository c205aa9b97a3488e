"""What a program writes to `ctl`, byte for byte."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fsmount.model import State
from fsmount.vfs.control import CONTROL_ROOT
from tests.support.relay import Relay, refused


def ctl(relay: Relay) -> int:
    return relay.tree.open(relay.ino("ctl"), writable=True)


def test_a_command_is_carried_out_at_its_newline(relay: Relay) -> None:
    handle = ctl(relay)
    assert relay.tree.write(handle, b"pau") == 3
    assert relay.mounted.told == []
    assert relay.tree.write(handle, b"se\nres") == 6
    assert relay.mounted.told == ["pause"]
    relay.tree.write(handle, b"ume\n\n  \nflush\n")
    assert relay.mounted.told == ["pause", "resume", "flush"]
    assert b"info ctl - - pause: " in relay.read("log")


def test_a_close_ends_the_last_line_once(relay: Relay) -> None:
    handle = ctl(relay)
    relay.tree.write(handle, b"pause")
    assert relay.mounted.told == []
    relay.tree.release(handle)
    assert relay.mounted.told == ["pause"]


def test_a_last_line_that_is_bad_is_in_the_log(relay: Relay) -> None:
    handle = ctl(relay)
    relay.tree.write(handle, b"nonsense")
    relay.tree.release(handle)
    assert b"warning ctl.refused - - nonsense: " in relay.read("log")


def test_handles_do_not_share_a_line(relay: Relay) -> None:
    one, other = ctl(relay), ctl(relay)
    relay.tree.write(one, b"pau")
    relay.tree.write(other, b"flush\n")
    relay.tree.write(one, b"se\n")
    assert relay.mounted.told == ["flush", "pause"]


def test_of_a_write_with_a_bad_line_nothing_is_done(relay: Relay) -> None:
    handle = ctl(relay)
    with refused(errno.EINVAL):
        relay.tree.write(handle, b"pause\nfoo\nresume\nunfin")
    relay.tree.write(handle, b"flush\n")
    assert relay.mounted.told == ["flush"]
    assert b"warning ctl.refused - - foo: " in relay.read("log")


@pytest.mark.parametrize(
    "line",
    [
        b"retry", b"retry /", b"retry a/b", b"release", b"release all", b"discard", b"discard all", b"purge",
        b"refresh", b"refresh ..", b"refresh a/../b", b"pause 1", b"Pause", b"\xff\xfe", b"\x1b[2J",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_invalid_and_logged_without_control_characters(relay: Relay, line: bytes) -> None:
    handle = ctl(relay)
    with refused(errno.EINVAL):
        relay.tree.write(handle, line + b"\n")
    (logged,) = [line for line in relay.read("log").splitlines() if b"ctl.refused" in line]
    assert b"\x1b" not in logged
    assert relay.mounted.told == []


def test_a_line_without_end_is_refused(relay: Relay) -> None:
    handle = ctl(relay)
    with refused(errno.EINVAL):
        for _ in range(100):
            relay.tree.write(handle, b"x" * 4096)


def test_retry_of_all_and_of_a_provider(relay: Relay) -> None:
    for path in ("/github/a", "/github/b", "/slack/a"):
        relay.mounted.dead(path)
    handle = ctl(relay)
    relay.tree.write(handle, b"retry slack\n")
    assert len(relay.ls("dead-letter")) == 2
    relay.tree.write(handle, b"retry  all\n")
    assert len(relay.ls("pending")) == 3
    assert b"retry slack: 1 dead letter to be tried again" in relay.read("log")


def test_what_is_held_is_released_or_given_up(relay: Relay) -> None:
    handle = ctl(relay)
    relay.mounted.hold("/a/x")
    relay.tree.write(handle, b"release held\n")
    assert relay.mounted.journal.op_ids(State.HELD) == []
    relay.mounted.hold("/a/y")
    relay.tree.write(handle, b"discard held\n")
    assert relay.ls("held") == []


@pytest.mark.parametrize("form", ["{}", "{}.json", "discarded/{}.json"])
def test_purge_forgets_a_discarded_op(relay: Relay, form: str) -> None:
    op_id = relay.mounted.dead("/a/x")
    handle = ctl(relay)
    with refused(errno.EINVAL):
        relay.tree.write(handle, f"purge {op_id}\n".encode())
    relay.mounted.discard(op_id)
    relay.tree.write(handle, f"purge {form.format(op_id)}\n".encode())
    assert relay.mounted.journal.record(op_id) is None


@pytest.mark.parametrize(
    ("given", "meant"), [("/a b/c", "/a b/c"), ("a b", "/a b"), (".", "/"), ("/", "/"), ("a//b/", "/a/b")]
)
def test_refresh_takes_a_path_of_the_mount_or_of_the_remote(relay: Relay, given: str, meant: str) -> None:
    relay.tree.write(ctl(relay), f"refresh {given}\n".encode())
    assert relay.mounted.told == [f"refresh {meant}"]


@pytest.mark.parametrize(
    ("given", "meant"), [("issues", "/github/issues"), ("/github/issues", "/github/issues"), (".", "/github")]
)
def test_refresh_where_the_mount_shows_a_subtree(tmp_path: Path, given: str, meant: str) -> None:
    relay = Relay(tmp_path, root="/github")
    handle = ctl(relay)
    relay.tree.write(handle, f"refresh {given}\n".encode())
    assert relay.mounted.told == [f"refresh {meant}"]
    for elsewhere in (b"/slack", b"/githubs", b"/"):
        with refused(errno.EINVAL):
            relay.tree.write(handle, b"refresh " + elsewhere + b"\n")


def test_a_truncation_changes_nothing_and_only_of_ctl_is_allowed(relay: Relay) -> None:
    attr = relay.tree.lookup(CONTROL_ROOT, "ctl")
    assert relay.tree.setattr(attr.ino, truncated=True) == attr
    for name, truncated in (("ctl", False), ("status", True)):
        with refused(errno.EPERM):
            relay.tree.setattr(relay.ino(name), truncated=truncated)


def test_a_command_is_a_change_that_the_next_look_sees(relay: Relay) -> None:
    relay.mounted.dead("/a/x")
    assert b"1 dead letter now" in relay.read("status")
    relay.tree.write(ctl(relay), b"retry all\n")
    assert b"0 dead letters now" in relay.read("status")


def test_reading_and_writing_through_one_handle(relay: Relay) -> None:
    handle = ctl(relay)
    usage = relay.tree.read(handle, 0, 10_000)
    assert len(usage) == relay.tree.lookup(CONTROL_ROOT, "ctl").size
    relay.tree.write(handle, b"pause\n")
    assert relay.tree.read(handle, 2, 10) == usage[2:12]


def test_nothing_else_is_written_to(relay: Relay) -> None:
    handle = relay.tree.open(relay.ino("status"))
    with refused(errno.EBADF):
        relay.tree.write(handle, b"x")
