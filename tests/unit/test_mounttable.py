"""The kernel's mount table as it is really written: escapes, optional fields, stacked mounts."""

from pathlib import Path

import pytest

from fsmount import mounttable
from fsmount.mounttable import MountLine, is_within, mounted_at, mounts, parse, unescape

OURS = b"95 28 0:52 / /mnt/my\\040files rw,nosuid - fuse.fsmount relayfile+http://h/w rw,user_id=0"


def test_a_line_with_escapes_and_no_optional_field() -> None:
    line = parse(OURS)
    assert line == MountLine(
        mountpoint="/mnt/my files", fstype="fuse.fsmount", source="relayfile+http://h/w", device="0:52", user=0
    )
    assert line.ours
    assert line.minor == 52


def test_any_number_of_optional_fields_is_passed_over() -> None:
    line = parse(b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 unbindable - ext3 /dev/root rw")
    assert line is not None
    assert (line.mountpoint, line.fstype, line.source) == ("/mnt2", "ext3", "/dev/root")
    assert not line.ours


def test_a_directory_named_dash_is_not_taken_for_the_separator() -> None:
    line = parse(b"36 35 98:0 / - rw - tmpfs none rw")
    assert line is not None
    assert (line.mountpoint, line.fstype) == ("-", "tmpfs")


@pytest.mark.parametrize("line", [b"", b"36 35 98:0 /", b"36 35 98:0 / /mnt rw shared:1", b"36 35 98:0 / /mnt rw -"])
def test_a_line_of_another_shape_is_none(line: bytes) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [(rb"a\040b", "a b"), (rb"a\011b", "a\tb"), (rb"a\012b", "a\nb"), (rb"a\134040", r"a\040"), (b"\xff", "\udcff")],
)
def test_escapes_are_undone_once(written: bytes, meant: str) -> None:
    assert unescape(written) == meant


def test_of_stacked_mounts_the_topmost_is_seen(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(b"1 0 0:1 / /m rw - tmpfs below rw\n" + OURS + b"\n2 0 0:2 / /m rw - fuse.fsmount above rw\n")
    lines = mounts(table)
    assert len(lines) == 3
    found = mounted_at("/m", lines)
    assert found is not None
    assert found.source == "above"
    assert mounted_at("/m/x", lines) is None


def test_this_machines_table_can_be_read() -> None:
    assert mounted_at("/proc") is not None
    assert mounttable.mounts()


@pytest.mark.parametrize(
    ("path", "directory", "inside"),
    [("/m", "/m", True), ("/m/a", "/m", True), ("/ma", "/m", False), ("/", "/m", False), ("/m", "/", True)],
)
def test_inside_is_decided_by_whole_names(path: str, directory: str, inside: bool) -> None:
    assert is_within(path, directory) is inside
