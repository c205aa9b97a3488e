"""Servers as forks of one process that has everything imported: hundreds are started, and an import costs most of that.

``Stem`` lives as long as the test process, and every server that it forked ends with it.
"""

from __future__ import annotations

import array
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MOST = 65536
_STREAMS = 3
"""Descriptors of a fork: its stdout, its stderr, and one that says how it ended."""


class Fork:
    """One server; what ``subprocess.Popen`` would say of it. The reader of ``stdout`` closes it."""

    def __init__(self, pid: int, stdout: int, ended: int) -> None:
        self.pid = pid
        self.stdout = open(stdout, encoding="utf-8")  # noqa: SIM115
        self._ended = ended
        self._code: int | None = None

    def wait(self, timeout: float) -> int:
        """The exit code, or the negative number of the signal. Raises TimeoutExpired."""
        if self._code is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("the server", timeout)
            self._code = int(os.read(self._ended, 16))
            os.close(self._ended)
        return self._code

    def send_signal(self, how: int) -> None:
        """Nothing if it has ended."""
        if self._code is None and not select.select([self._ended], [], [], 0)[0]:
            os.kill(self.pid, how)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Stem:
    """Forks ``fsmount.server.serve.run`` whenever it is asked to."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )

    def fork(self, options: dict[str, object], stderr: int) -> Fork:
        """A server with these ServeOptions."""
        stdout, its_stdout = os.pipe()
        ended, tells = os.pipe()
        descriptors = array.array("i", [its_stdout, stderr, tells])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        self._socket.sendmsg([json.dumps(options).encode()], ancillary)
        os.close(its_stdout)
        os.close(tells)
        return Fork(int(self._socket.recv(16)), stdout, ended)


def stem() -> Stem:
    """The one of this process; another one while something else is preloaded, a clock that can be set for example."""
    return _stem(os.environ.get("LD_PRELOAD"))


@functools.cache
def _stem(_preloaded: str | None) -> Stem:
    return Stem()


def main(descriptor: int) -> None:
    """What the stem does: forks what it is asked for, and tells the ends."""
    import fsmount.server.serve  # noqa: F401 - what the forks need

    running: dict[int, int] = {}
    wakes, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(fileno=descriptor) as asked:
        while True:
            ready, _, _ = select.select([asked.fileno(), wakes], [], [])
            if wakes in ready:
                os.read(wakes, _MOST)
                _tell_ends(running)
            if asked.fileno() in ready:
                message, ancillary, _, _ = asked.recvmsg(_MOST, socket.CMSG_SPACE(_STREAMS * 4))
                if not message:
                    break
                stdout, stderr, tells = array.array("i", ancillary[0][2])
                pid = os.fork()
                if pid == 0:
                    for inherited in (asked.detach(), wakes, woken, tells, *running.values()):
                        os.close(inherited)
                    _serve(json.loads(message), stdout, stderr)
                os.close(stdout)
                os.close(stderr)
                running[pid] = tells
                asked.send(str(pid).encode())
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _tell_ends(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        tells = running.pop(pid)
        os.write(tells, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(tells)


def _serve(options: dict[str, object], stdout: int, stderr: int) -> None:
    """In the fork: as a new process would."""
    import msgspec

    from fsmount.errors import FsmountError
    from fsmount.server.serve import ServeOptions, run

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    try:
        sys.exit(run(msgspec.convert(options, ServeOptions, dec_hook=lambda kind, value: kind(value))))
    except FsmountError as error:
        print(f"fsmount: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
