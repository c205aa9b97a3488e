"""The one screen: short, escaped, and every failure with its command."""

import shlex
from pathlib import Path

import pytest
from msgspec.structs import replace

from fsmount.eventlog import EVENTS
from fsmount.model import (
    Connection,
    ConnectionState,
    Kind,
    LocalNode,
    Problem,
    ProviderResults,
    Reason,
    Refuser,
    RemotePath,
    Transfer,
    WriteAccess,
    Writes,
)
from fsmount.render import readme, text
from fsmount.status import AtRest, Health, snapshot
from tests.support.facts import Mounted


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path)


def test_a_quiet_mount_takes_few_lines(mounted: Mounted) -> None:
    lines = text.status(snapshot(mounted)).splitlines()
    assert len(lines) == 8
    assert lines[1] == "health    ok: everything is delivered"


@pytest.mark.parametrize(
    ("writes", "said"),
    [
        (
            Writes(allowed=WriteAccess.NOWHERE, because=Refuser.READ_ONLY),
            "nothing can be written (Read-only file system): the mount is read-only",
        ),
        (
            Writes(allowed=WriteAccess.NOWHERE, because=Refuser.CREDENTIAL),
            (
                "nothing can be written (Read-only file system): the token grants no writing; "
                "with another in its place: kill -HUP 4711"
            ),
        ),
        (
            Writes(allowed=WriteAccess.PART, places=tuple("abcde\n"), because=Refuser.CREDENTIAL),
            "only a, b, c, d and 2 more places; elsewhere Permission denied: the token grants no more",
        ),
    ],
)
def test_why_writes_are_refused_is_said_in_a_line(mounted: Mounted, writes: Writes, said: str) -> None:
    mounted.writing = writes
    assert text.status(snapshot(mounted)).splitlines()[8:] == [f"writes    {said}"]


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
    assert shlex.split(line)[-3:] == ["mv", source, "/mnt/my notes/.relay/retry/"]


def test_without_a_daemon_the_command_line_retries(mounted: Mounted) -> None:
    op_id = mounted.dead("/a/x")
    identity = replace(mounted.identity, pid=None, started_at=None)
    shown = text.status(snapshot(AtRest(identity, mounted.journal, mounted.clock)))
    assert f"fsmount writeback retry --opId {op_id} /mnt/notes" in shown
    assert "mv " not in shown


@pytest.mark.parametrize(
    ("reason", "commands"),
    [
        (Reason.CONFLICT, ("/mnt/notes/.relay/conflict/", "discarded/", "force/")),
        (Reason.REMOTE_DELETED, ("discarded/", "force/")),
        (Reason.INTERRUPTED, ("cp", "discarded/")),
        (Reason.TOO_LARGE, ("discarded/",)),
        (Reason.CORRUPT_SPOOL, ("discarded/",)),
        (Reason.FORBIDDEN, ("get permission there, then: mv", "retry/")),
        (Reason.EXHAUSTED, ("retry/",)),
        (Reason.PROVIDER_FAILED, ("have it tried again there: mv", "retry/", "discarded/")),
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
    assert ("writeback retry" in at_rest) == ("retry/" in commands or "force/" in commands)
    assert ("--force" in at_rest) == ("force/" in commands)
    assert " mv " not in at_rest


def test_only_what_the_credential_may_not_learn_of_providers_is_said(mounted: Mounted) -> None:
    assert "provider results" not in text.status(snapshot(mounted))
    mounted.told_of_providers = ProviderResults.UNKNOWN
    assert "; provider results: unknown\n" in text.status(snapshot(mounted))


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


def test_held_ops_stand_with_both_ways_out(mounted: Mounted) -> None:
    mounted.hold("/a/x")
    mounted.hold("/a/y")
    shown = text.status(snapshot(mounted))
    assert "health    failing: 2 ops of a mass delete held" in shown
    assert "2 held" in shown
    assert "mv /mnt/notes/.relay/held/* /mnt/notes/.relay/retry/" in shown
    assert "mv /mnt/notes/.relay/held/* /mnt/notes/.relay/discarded/" in shown


def test_more_than_one_command_takes_are_decided_on_through_ctl(mounted: Mounted) -> None:
    mounted.hold("/a/x")
    shown = snapshot(mounted)
    many = replace(shown, queue=replace(shown.queue, held=100_000))
    assert "echo release held > /mnt/notes/.relay/ctl" in text.status(many)
    assert "echo discard held > /mnt/notes/.relay/ctl" in text.status(many)


def test_paused_says_how_to_go_on(mounted: Mounted) -> None:
    mounted.pausing = True
    line = text.status(snapshot(mounted)).splitlines()[1]
    assert line.startswith("health    paused: ")
    assert line.endswith("echo resume > /mnt/notes/.relay/ctl")


def test_uploads_that_all_but_stopped_say_how_to_go_on(mounted: Mounted) -> None:
    mounted.breaking = True
    assert "one op a minute is tried" in text.status(snapshot(mounted))
    mounted.dead("/a/x")
    line = text.status(snapshot(mounted)).splitlines()[1]
    assert "1 dead letter; nothing is tried again by itself; so much was refused" in line
    assert "echo resume > /mnt/notes/.relay/ctl" in line


def test_damage_is_told_on_the_one_line_with_the_way_out(mounted: Mounted) -> None:
    mounted.journal._db.damage = "the journal /state/journal.db: page 5\n\x1b[2J is malformed"
    lines = text.status(snapshot(mounted)).splitlines()
    assert len(lines) == 8
    assert lines[1].startswith("health    failing: the journal /state/journal.db: page 5\\n\\x1b[2J is malformed; ")
    assert lines[1].endswith("move the state directory aside to start without it")


def test_what_is_only_here_and_what_is_not_shown_take_a_line_each(mounted: Mounted) -> None:
    mounted.journal.keep(LocalNode(path=RemotePath("/a"), kind=Kind.DIRECTORY))
    mounted.odd = (Problem(path="/b", why="a file and a directory of one name"),)
    lines = text.status(snapshot(mounted)).splitlines()
    assert any(line.startswith("only here 1 entry: ") for line in lines)
    assert any(line.endswith("see /mnt/notes/.relay/problems") for line in lines)


def test_trouble_of_every_kind_still_fits_a_screen(mounted: Mounted) -> None:
    mounted.hold("/a/held")
    mounted.dead("/a/1")
    mounted.dead("/b/1", reason=Reason.CONFLICT)
    mounted.journal.keep(LocalNode(path=RemotePath("/a"), kind=Kind.DIRECTORY))
    mounted.odd = (Problem(path="/b", why="a file and a directory of one name"),)
    assert len(text.status(snapshot(mounted)).splitlines()) <= 24


def test_a_subtree_mount_names_its_files_from_its_own_root(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path, root="/github")
    op_id = mounted.dead("/github/a/x", reason=Reason.INTERRUPTED)
    assert f"cp /mnt/notes/.relay/content/{op_id} /mnt/notes/a/x;" in text.status(snapshot(mounted))


def test_the_readme_is_one_screen_of_a_terminal() -> None:
    lines = readme.README.splitlines()
    assert 24 <= len(lines) <= 40
    assert max(len(line) for line in lines) <= 80
    assert readme.README.isascii()


@pytest.mark.parametrize(
    "needed",
    [
        "status ", "status.json", "state.json", "metrics", "config.json", "log", "events", "problems", "ctl",
        "pending/OP.json", "dead-letter/OP.json", "held/OP.json", "discarded/OP.json", "content/OP", "conflict/OP/",
        ".gitignore", "CACHEDIR.TAG", "mv dead-letter/OP.json retry/", "mv dead-letter/OP.json discarded/",
        "mv dead-letter/OP.json force/", "mv discarded/OP.json retry/", "mv held/* retry/", "mv held/* discarded/",
        "retry all", "echo retry github > ctl", "release held", "discard held", "pause", "resume", "flush",
        "refresh PATH", "purge OP", "EBUSY", "ENOENT", "EPERM", "EINVAL", "EIO", "ETIMEDOUT", "sync .",
        "getfattr -n user.relay.state", "setfattr -n user.relay.base -v theirs", *sorted(EVENTS), *Health,
    ],
)  # fmt: skip
def test_the_readme_tells_everything_that_is_there(needed: str) -> None:
    if needed != Health.STOPPED:  # then there is no tree to read it in
        assert needed in readme.README
