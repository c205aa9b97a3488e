"""The one screen: short, escaped, and every failure with its command."""

import shlex
from pathlib import Path

import pytest
from msgspec.structs import replace

from fsmount.model import Connection, ConnectionState, Reason, RemotePath, Transfer
from fsmount.render import readme, text
from fsmount.status import AtRest, snapshot
from tests.support.facts import Mounted


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path)


def test_a_quiet_mount_takes_few_lines(mounted: Mounted) -> None:
    lines = text.status(snapshot(mounted)).splitlines()
    assert len(lines) == 8
    assert lines[1] == "health    ok: everything is delivered"


def test_four_dead_letters_and_two_providers_fit_a_screen(mounted: Mounted) -> None:
    for path in ("/a/1", "/a/2", "/b/1", "/b/2"):
        mounted.dead(path)
    mounted.clock.advance(65)
    lines = text.status(snapshot(mounted)).splitlines()
    assert len(lines) <= 24
    assert "4 dead letters" in lines[1]


def test_each_dead_letter_stands_with_the_mv_that_retries_it(mounted: Mounted) -> None:
    op_id = mounted.dead("/a/x")
    shown = text.status(snapshot(mounted))
    assert "/a/x  rejected, status 422, 1 attempt, 2023-11-14 22:13:20 UTC (0 s ago)" in shown
    assert f"mv /mnt/notes/.relay/dead-letter/{op_id}.json /mnt/notes/.relay/retry/" in shown
    assert "a  /a/x  422 schema_violation: title is required" in shown


def test_the_command_survives_a_mount_point_with_a_blank(mounted: Mounted) -> None:
    mounted.identity = replace(mounted.identity, mountpoint="/mnt/my notes")
    op_id = mounted.dead("/a/x")
    line = next(line for line in text.status(snapshot(mounted)).splitlines() if " mv " in line)
    source = f"/mnt/my notes/.relay/dead-letter/{op_id}.json"
    assert shlex.split(line) == ["mv", source, "/mnt/my notes/.relay/retry/"]


def test_without_a_daemon_the_command_line_retries(mounted: Mounted) -> None:
    op_id = mounted.dead("/a/x")
    identity = replace(mounted.identity, pid=None, started_at=None)
    shown = text.status(snapshot(AtRest(identity, mounted.journal, mounted.clock)))
    assert f"fsmount writeback retry --opId {op_id} /mnt/notes" in shown
    assert "mv " not in shown


@pytest.mark.parametrize(
    ("reason", "commands"),
    [
        (Reason.CONFLICT, ("discarded/", "cp")),
        (Reason.REMOTE_DELETED, ("discarded/", "cp")),
        (Reason.INTERRUPTED, ("cp", "discarded/")),
        (Reason.TOO_LARGE, ("discarded/",)),
        (Reason.CORRUPT_SPOOL, ("discarded/",)),
        (Reason.FORBIDDEN, ("get permission there, then: mv", "retry/")),
        (Reason.EXHAUSTED, ("retry/",)),
    ],
)
def test_a_dead_letter_stands_with_the_way_out_of_its_reason(
    mounted: Mounted, reason: Reason, commands: tuple[str, ...]
) -> None:
    op_id = mounted.dead("/a/x", reason=reason)
    lines = text.status(snapshot(mounted)).splitlines()
    line = lines[next(number for number, one in enumerate(lines) if one.startswith("  /a/x")) + 1]
    places = [line.index(command) for command in commands]
    assert places == sorted(places)
    assert ("retry/" in line) == ("retry/" in commands)
    if "cp" in commands:
        assert f"cp /mnt/notes/.relay/content/{op_id} /mnt/notes/a/x" in line
    stopped = replace(mounted.identity, pid=None, started_at=None)
    at_rest = text.status(snapshot(AtRest(stopped, mounted.journal, mounted.clock)))
    assert ("writeback retry" in at_rest) == ("retry/" in commands)
    assert "mv " not in at_rest


def test_many_dead_letters_are_cut_and_counted(mounted: Mounted) -> None:
    for number in range(9):
        mounted.dead(f"/a/{number}")
    assert "and 5 more: see .relay/dead-letter/" in text.status(snapshot(mounted))


def test_a_name_cannot_forge_a_line(mounted: Mounted) -> None:
    mounted.dead("/a/x\nhealth    ok\x1b[2J")
    shown = text.status(snapshot(mounted))
    assert "\x1b" not in shown
    assert "/a/x\\nhealth    ok\\x1b[2J  rejected" in shown
    assert not any(line.startswith("health    ok") for line in shown.splitlines())


def test_transfers_show_their_progress(mounted: Mounted) -> None:
    op_id = mounted.save("/a/x")
    mounted.sending = (Transfer(op_id=op_id, path=RemotePath("/a/x"), bytes_sent=512, size=2048),)
    assert "/a/x  512 B of 2.0 KiB (25 %)" in text.status(snapshot(mounted))


def test_offline_says_since_when_and_when_it_is_tried(mounted: Mounted) -> None:
    now = mounted.now()
    mounted.way = Connection(state=ConnectionState.OFFLINE, offline_since=now - 60, next_probe_at=now + 8)
    shown = text.status(snapshot(mounted))
    assert "health    offline" in shown
    assert "(60 s ago); next try" in shown
    assert "(in 8 s)" in shown


def test_the_readme_is_one_screen_and_names_nothing_absent() -> None:
    assert len(readme.README.splitlines()) <= 24
    assert max(len(line) for line in readme.README.splitlines()) <= 100
    for absent in ("held", "force", "conflict/", "events", "metrics", "problems", "config.json", "ctl"):
        assert absent not in readme.README
