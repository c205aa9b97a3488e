"""Mine against theirs: from plain directories of the shape of `.relay`."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from fsmount.cli.diff import Side, _base, _mine, _print, _theirs
from fsmount.cli.live import LiveQueue
from fsmount.cli.queue import COMPARED, ShownOp, Version
from fsmount.cli.target import Target
from fsmount.errors import FsmountError

OP = f"op_{'0' * 26}"
TARGET = Target(mountpoint="/mnt", said=True)


@pytest.fixture
def relay(tmp_path: Path) -> Path:
    for name in ("conflict", "content"):
        (tmp_path / ".relay" / name).mkdir(parents=True)
    (tmp_path / ".relay" / "conflict" / OP).mkdir()
    return tmp_path / ".relay"


def queue(relay: Path) -> LiveQueue:
    return LiveQueue(Target(mountpoint=str(relay.parent)))


def op(**members: object) -> ShownOp:
    told = {"opId": OP, "path": "/a/f.txt", "state": "dead-letter", "kind": "put", "reason": "conflict", "size": 1}
    return msgspec.convert({**told, **members}, ShownOp)


def side(label: str, content: bytes | None) -> Side:
    return Side(label=label, version=None if content is None else Version.of([content]))


def printed(theirs: bytes | None, mine: bytes | None, capfdbinary: pytest.CaptureFixture[bytes]) -> tuple[bytes, bytes]:
    _print(side("mine /f OP", mine), side("theirs /f r7", theirs))
    captured = capfdbinary.readouterr()
    return captured.out, captured.err


def test_what_saving_mine_would_change(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = printed(b"one\ntwo\n", b"one\n2\n", capfdbinary)
    assert out == b"--- theirs /f r7\n+++ mine /f OP\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"


def test_the_same_is_no_difference(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed(b"a\n", b"a\n", capfdbinary) == (b"", b"mine and theirs are the same\n")


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        (b"a\nb", b"a\nb\n"), (None, b"a\n"), (b"a\n", None), (b"a\n", b""), (b"", b"x"),
        (b"\xff\xe9\n", b"\xff\xea\n"), (b"a\r\nb\r\n", b"a\nb\n"), ("\u2028a\x0bb\x0c\n".encode(), b"a\x1e\n"),
    ],
)  # fmt: skip
def test_applied_to_theirs_it_gives_mine(
    theirs: bytes | None, mine: bytes | None, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    out, _ = printed(theirs, mine, capfdbinary)
    file = tmp_path / "f"
    file.write_bytes(theirs or b"")
    named = out.replace(b"--- theirs /f r7", b"--- a/f").replace(b"+++ mine /f OP", b"+++ b/f")
    subprocess.run(["git", "apply", "--whitespace=nowarn"], input=named, check=True, timeout=10, cwd=tmp_path)
    assert file.read_bytes() == (mine or b"")


def test_binary_files_are_told_by_length_and_digest(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = printed(b"\0\1", b"abc", capfdbinary)
    lines = out.decode().splitlines()
    assert lines[0] == "binary files differ:"
    assert lines[1].startswith("  theirs /f r7: 2 B, sha256 b413f47d")
    assert lines[2].startswith("  mine /f OP: 3 B, sha256 ba7816bf")


def test_very_long_files_too(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = printed(b"x" * (COMPARED + 1), b"abc", capfdbinary)
    assert out.startswith(b"longer than 1.0 MiB:\n  theirs /f r7: 1.0 MiB, sha256 ")


def test_a_binary_file_against_nothing(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = printed(None, b"\0", capfdbinary)
    assert b"  theirs /f r7: nothing\n" in out


def test_theirs_of_what_was_deleted_there_is_nothing(relay: Path) -> None:
    assert _theirs(queue(relay), op(reason="remote-deleted"), TARGET).version is None


def test_theirs_that_is_not_known_is_not_taken_for_empty(relay: Path) -> None:
    with pytest.raises(FsmountError, match=r"their version of /a/f\.txt is not known here") as caught:
        _theirs(queue(relay), op(), TARGET)
    assert f"fsmount writeback retry --opId {OP} --wait /mnt" in (caught.value.hint or "")


def test_what_is_no_conflict_has_no_other_version(relay: Path) -> None:
    with pytest.raises(FsmountError, match="is rejected, no conflict"):
        _theirs(queue(relay), op(reason="rejected"), TARGET)


def test_the_base_and_its_revision(relay: Path) -> None:
    with pytest.raises(FsmountError, match="is not kept here"):
        _base(queue(relay), op(baseRevision="r3"), TARGET)
    (relay / "conflict" / OP / "base").write_text("old\n")
    found = _base(queue(relay), op(baseRevision="r3"), TARGET)
    assert found.label == "base /a/f.txt r3"
    assert found.content == b"old\n"


def test_what_was_made_new_has_no_base(relay: Path) -> None:
    assert _base(queue(relay), op(baseRevision=None), TARGET).version is None


def test_mine_of_a_delete_is_nothing_but_missing_bytes_are_told(relay: Path) -> None:
    assert _mine(queue(relay), op(kind="delete", size=None), TARGET).version is None
    with pytest.raises(FsmountError, match=f"the bytes of {OP} cannot be read"):
        _mine(queue(relay), op(), TARGET)


def test_labels_are_escaped(relay: Path) -> None:
    (relay / "content" / OP).write_text("")
    assert _mine(queue(relay), op(path="/a\n\x1b[31m"), TARGET).label == f"mine /a\\n\\x1b[31m {OP}"


def test_on_a_terminal_nothing_acts_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsmount.cli.diff import _shown

    assert _shown("+\x1b[31m\ta\r\n") == b"+\x1b[31m\ta\r\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert _shown("+\x1b[31m\ta\r\n") == b"+\\x1b[31m\ta\\r\n"
