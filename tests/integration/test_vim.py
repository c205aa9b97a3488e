"""vim on a real mount: one update a saved file, and nothing of vim's own ever on the server."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.mount import until

pytestmark = pytest.mark.mount

CAREFUL = "set backupskip= writebackup"
"""vim keeps no backup below /tmp unless it is told to."""


def vim(bench: Bench, file: str, *commands: str, backupcopy: str = "auto") -> None:
    """Edits a file of the mount without a screen."""
    script = bench.folder / "script.vim"
    script.write_text("\n".join((CAREFUL, f"set nocompatible backupcopy={backupcopy}", *commands)) + "\n")
    bench.run(f"vim -u NONE -i NONE -es -S {script} {shlex.quote(file)}")


@pytest.mark.parametrize("backup", ["nobackup", "backup"])
@pytest.mark.parametrize("backupcopy", ["yes", "no", "auto"])
def test_a_saved_file_is_one_update(bench: Bench, backupcopy: str, backup: str) -> None:
    bench.server.put(f"/{bench.here}/plan.md", "first\nsecond\n")
    bench.see("plan.md")
    since = bench.now()
    vim(bench, "plan.md", f"set {backup}", "%s/second/changed/", "wq", backupcopy=backupcopy)
    vim(bench, "new.md", f"set {backup}", "normal ohello", "wq", backupcopy=backupcopy)
    assert bench.served() == {"plan.md": b"first\nchanged\n", "new.md": b"\nhello\n"}
    # The delete of a name that became a backup waits for ten seconds; nothing of that may come late.
    assert bench.ops("pending") == []
    assert bench.written(since) == {"created new.md": 1, "updated plan.md": 1}
    names = set(bench.run("ls -A").split())
    assert names == {"plan.md", "new.md"} | ({"plan.md~"} if backup == "backup" else set())


@pytest.mark.parametrize("backupcopy", ["yes", "no"])
def test_saving_again_and_again_while_it_is_open(bench: Bench, backupcopy: str) -> None:
    bench.server.put(f"/{bench.here}/plan.md", "0\n")
    bench.see("plan.md")
    since = bench.now()
    saves = [step for number in range(1, 6) for step in (f"%s/.*/{number}/", "w")]
    vim(bench, "plan.md", *saves, "q", backupcopy=backupcopy)
    assert bench.served() == {"plan.md": b"5\n"}
    assert bench.written(since) == {"updated plan.md": 1}, "a burst of saves is one update"
    assert bench.run("ls -A") == "plan.md\n"


def test_a_refused_save_is_mended_with_vim(bench: Bench) -> None:
    bench.server.put(f"/{bench.here}/plan.md", "0\n")
    bench.see("plan.md")
    bench.server.rules('PUT /*/plan.md 422 {"code":"schema_validation_failed","message":"title is required"} times=1\n')
    vim(bench, "plan.md", "%s/0/bad/", "wq", backupcopy="no")
    assert bench.dead_letter()["reason"] == "rejected"
    assert bench.run("cat plan.md") == "bad\n", "the user's bytes stay"
    vim(bench, "plan.md", "%s/bad/good/", "wq", backupcopy="no")
    assert bench.served() == {"plan.md": b"good\n"}
    assert bench.ops("dead-letter") == []


class Screen:
    """vim on a terminal of its own, typed into."""

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench = bench
        self._tmux = ["tmux", "-f", "/dev/null", "-S", str(bench.folder / "tmux")]
        options = f"{CAREFUL} updatecount=4 backupcopy=no"
        command = f"cd {bench.point}/{bench.here} && exec vim -u NONE -i NONE -N -c '{options}' {name}"
        self._run("new-session", "-d", "-x", "80", "-y", "24", command)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env=self._bench.environment,
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
def screen(bench: Bench) -> Iterator[Screen]:
    """vim with `letter.txt` of the server open."""
    bench.server.put(f"/{bench.here}/letter.txt", "dear reader\n")
    bench.see("letter.txt")
    opened = Screen(bench, "letter.txt")
    yield opened
    opened.end()


def test_typed_into_the_swap_file_stays_here(bench: Bench, screen: Screen) -> None:
    since = bench.now()
    screen.shows("dear reader")
    screen.type("o", "it is late", "Escape")
    screen.shows("it is late")
    until(lambda: ".letter.txt.swp" in bench.run("ls -A"), "the swap file is there")
    screen.type(":w", "Enter")
    screen.shows("written")
    path = f"/{bench.here}/letter.txt"
    until(lambda: bench.server.get(path) == b"dear reader\nit is late\n", "the save is on the server")
    screen.type("o", "and cold", "Escape", ":wq", "Enter")
    until(lambda: ".letter.txt.swp" not in bench.run("ls -A"), "vim has left")
    assert bench.served() == {"letter.txt": b"dear reader\nit is late\nand cold\n"}
    assert bench.written(since) == {"updated letter.txt": 2}
    assert bench.run("ls -A") == "letter.txt\n"


def test_what_a_crash_of_vim_leaves_outlives_the_mount(bench: Bench, screen: Screen) -> None:
    since = bench.now()
    screen.shows("dear reader")
    screen.type("o", "never saved", "Escape", ":preserve", "Enter")
    screen.shows("preserved")
    screen.crash()
    assert bench.run("ls -A") == ".letter.txt.swp\nletter.txt\n"
    swap = bench.run("md5sum < .letter.txt.swp")
    assert bench.umount().returncode == 0
    bench.start()
    assert bench.run("ls -A") == ".letter.txt.swp\nletter.txt\n"
    assert bench.run("md5sum < .letter.txt.swp") == swap
    assert bench.written(since) == {}
    # vim ends with 1 here, because recovering gives messages.
    bench.sh("cd $HERE && vim -u NONE -i NONE -N -es -r letter.txt -c 'w! recovered.txt' -c 'q!'", check=False)
    assert bench.served() == {"letter.txt": b"dear reader\n", "recovered.txt": b"dear reader\nnever saved\n"}
    bench.run("rm .letter.txt.swp")
    bench.delivered()
    assert bench.written(since) == {"created recovered.txt": 1}
