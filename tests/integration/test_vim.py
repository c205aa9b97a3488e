"""vim on a real mount: one update a saved file, and nothing of vim's own ever on the server."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until

pytestmark = pytest.mark.mount

CAREFUL = "set backupskip= writebackup"
"""vim keeps no backup below /tmp unless it is told to."""


def vim(mount: Mount, file: str, *commands: str, backupcopy: str = "auto") -> None:
    """Edits a file of the mount without a screen."""
    script = mount.folder / "script.vim"
    script.write_text("\n".join((CAREFUL, f"set nocompatible backupcopy={backupcopy}", *commands)) + "\n")
    mount.sh(f"cd $MOUNT && vim -u NONE -i NONE -es -S {script} {shlex.quote(file)}")


def changes(mount: Mount, since: str) -> list[tuple[str, str]]:
    """What happened on the server after an event: type and path of each file event."""
    return [(event.type, event.path) for event in mount.server.events(since) if event.type.startswith("file.")]


def last_event(mount: Mount) -> str:
    events = mount.server.events()
    return events[-1].event_id if events else ""


@pytest.mark.parametrize("backup", ["nobackup", "backup"])
@pytest.mark.parametrize("backupcopy", ["yes", "no", "auto"])
def test_a_saved_file_is_one_update(mount: Mount, backupcopy: str, backup: str) -> None:
    mount.server.put("/notes/plan.md", "first\nsecond\n")
    until(lambda: "plan.md" in mount.out("ls $MOUNT/notes 2>/dev/null || true"), "the file is seen")
    since = last_event(mount)
    vim(mount, "notes/plan.md", f"set {backup}", "%s/second/changed/", "wq", backupcopy=backupcopy)
    vim(mount, "notes/new.md", f"set {backup}", "normal ohello", "wq", backupcopy=backupcopy)
    mount.delivered()
    assert mount.server.get("/notes/plan.md") == b"first\nchanged\n"
    assert mount.server.get("/notes/new.md") == b"\nhello\n"
    # The backup waits for ten seconds to be the only name of the file; nothing of that may come late.
    assert mount.ops("pending") == []
    assert sorted(changes(mount, since)) == [("file.created", "/notes/new.md"), ("file.updated", "/notes/plan.md")]
    names = set(mount.out("ls -A $MOUNT/notes").split())
    assert names == {"plan.md", "new.md"} | ({"plan.md~"} if backup == "backup" else set())


@pytest.mark.parametrize("backupcopy", ["yes", "no"])
def test_saving_again_and_again_while_it_is_open(mount: Mount, backupcopy: str) -> None:
    mount.server.put("/plan.md", "0\n")
    until(lambda: "plan.md" in mount.out("ls $MOUNT"), "the file is seen")
    since = last_event(mount)
    saves = [step for number in range(1, 6) for step in (f"%s/.*/{number}/", "w")]
    vim(mount, "plan.md", *saves, "q", backupcopy=backupcopy)
    mount.delivered()
    assert mount.server.get("/plan.md") == b"5\n"
    assert changes(mount, since) == [("file.updated", "/plan.md")], "a burst of saves is one update"
    assert mount.out("ls -A $MOUNT").split() == [".relay", "plan.md"]


def test_a_refused_save_is_mended_with_vim(mount: Mount) -> None:
    mount.server.put("/plan.md", "0\n")
    until(lambda: "plan.md" in mount.out("ls $MOUNT"), "the file is seen")
    mount.server.rules('PUT /plan.md 422 {"code":"schema_violation","message":"title is required"} times=1\n')
    vim(mount, "plan.md", "%s/0/bad/", "wq", backupcopy="no")
    assert mount.dead_letter()["reason"] == "rejected"
    assert mount.out("cat $MOUNT/plan.md") == "bad\n", "the user's bytes stay"
    vim(mount, "plan.md", "%s/bad/good/", "wq", backupcopy="no")
    mount.delivered()
    assert mount.server.get("/plan.md") == b"good\n"
    assert mount.ops("dead-letter") == []


class Screen:
    """vim on a terminal of its own, typed into."""

    def __init__(self, mount: Mount, name: str) -> None:
        self._mount = mount
        self._tmux = ["tmux", "-f", "/dev/null", "-S", str(mount.folder / "tmux")]
        command = f"cd {mount.point} && exec vim -u NONE -i NONE -N -c '{CAREFUL} updatecount=4 backupcopy=no' {name}"
        self._run("new-session", "-d", "-x", "80", "-y", "24", command)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env=self._mount.environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, *keys: str) -> None:
        """Keys by tmux's names; everything else is typed as it stands."""
        self._run("send-keys", *keys)

    def shows(self, text: str) -> None:
        """Waits until the text stands on the screen."""
        until(lambda: text in self._run("capture-pane", "-p"), f"vim shows {text!r}")

    def crash(self) -> None:
        """`kill -9` of vim."""
        pid = int(self._run("list-panes", "-F", "#{pane_pid}"))
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists(), "vim is gone")

    def end(self) -> None:
        """Nothing of it is left."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=10, check=False)


@pytest.fixture
def screen(mount: Mount) -> Iterator[Screen]:
    """vim with `letter.txt` of the server open."""
    mount.server.put("/letter.txt", "dear reader\n")
    until(lambda: "letter.txt" in mount.out("ls $MOUNT"), "the file is seen")
    opened = Screen(mount, "letter.txt")
    yield opened
    opened.end()


def test_typed_into_the_swap_file_stays_here(mount: Mount, screen: Screen) -> None:
    since = last_event(mount)
    screen.shows("dear reader")
    screen.type("o", "it is late", "Escape")
    screen.shows("it is late")
    until(lambda: ".letter.txt.swp" in mount.out("ls -A $MOUNT"), "the swap file is there")
    screen.type(":w", "Enter")
    screen.shows("written")
    until(lambda: mount.server.get("/letter.txt") == b"dear reader\nit is late\n", "the save is on the server")
    screen.type("o", "and cold", "Escape", ":wq", "Enter")
    until(lambda: ".letter.txt.swp" not in mount.out("ls -A $MOUNT"), "vim has left")
    mount.delivered()
    assert mount.server.get("/letter.txt") == b"dear reader\nit is late\nand cold\n"
    assert changes(mount, since) == [("file.updated", "/letter.txt")] * 2
    assert mount.out("ls -A $MOUNT").split() == [".relay", "letter.txt"]


def test_what_a_crash_of_vim_leaves_outlives_the_mount(mount: Mount, screen: Screen) -> None:
    since = last_event(mount)
    screen.shows("dear reader")
    screen.type("o", "never saved", "Escape", ":preserve", "Enter")
    screen.shows("preserved")
    screen.crash()
    assert mount.out("ls -A $MOUNT").split() == [".letter.txt.swp", ".relay", "letter.txt"]
    swap = mount.out("md5sum < $MOUNT/.letter.txt.swp")
    mount.umount()
    mount.start()
    assert mount.out("ls -A $MOUNT").split() == [".letter.txt.swp", ".relay", "letter.txt"]
    assert mount.out("md5sum < $MOUNT/.letter.txt.swp") == swap
    assert changes(mount, since) == []
    # -es does not ask; vim ends with 1 because recovering gives messages.
    mount.sh("cd $MOUNT && vim -u NONE -i NONE -N -es -r letter.txt -c 'w! recovered.txt' -c 'q!'", check=False)
    mount.delivered()
    assert mount.server.get("/recovered.txt") == b"dear reader\nnever saved\n"
    assert mount.server.get("/letter.txt") == b"dear reader\n"
    mount.sh("rm $MOUNT/.letter.txt.swp")
    mount.delivered()
    assert changes(mount, since) == [("file.created", "/recovered.txt")]
