"""The bearer token: where it is read, and when it is read again.

Invariant: tokens are in memory only; no message, exception or representation made here holds one, and an answer that
echoes one, be it a former one, is shown without it.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import trio

from fsmount.config import Credentials
from fsmount.errors import Refusal

LONGEST = 64 * 1024
"""Bytes read of a token file or a command's output."""
_TOKEN = re.compile(r"[\x21-\x7e]+")
_SECRET = 8
"""Letters from which on a token is looked for in texts: a shorter one is a test's, and part of many words."""
_CLASSES = ("relay_pa_", "relay_ws_", "relay_id_", "relay_ag_")
"""What may stand before a token and is no part of what a server goes by (relayfile-api, section 1)."""
_REMEMBERED = 8
"""Tokens that are looked for in texts: a request that is under way may bring back one from before it was renewed."""
_ASK_AGAIN = 30.0
"""Seconds between two runs of a token command while the credential stands refused."""


class TokenSource:
    """One credential of one remote. ``warn`` is told once of a token file that others may read."""

    def __init__(self, credentials: Credentials, *, warn: Callable[[str], None], command_timeout: float = 10.0) -> None:
        self._credentials = credentials
        self._warn = warn
        self._command_timeout = command_timeout
        self._token: str | None = None
        self._refused: str | None = None
        self._asked_at = -_ASK_AGAIN
        self._warned = False
        self._reading = trio.Lock()
        self._secrets: tuple[str, ...] = ()
        self.taken = 0
        """How many times a token was taken that was not the one before it."""

    async def token(self) -> str:
        """The token in use, read on first need. Raises Refusal 401 where there is none. A checkpoint."""
        async with self._reading:
            if self._token is None:
                return self._take(await self._read())
            return self._token

    async def renewed(self, refused: str) -> str | None:
        """The token to use in place of one that the remote refused, or None where there is no other. A checkpoint.

        Raises Refusal 401 when the credential cannot be read. Several requests refused at once read it once.
        """
        async with self._reading:
            if self._token == refused:
                self._token = None
                self._refused = refused
                self._asked_at = trio.current_time()
                self._take(await self._read())
            return self._token if self._token != refused else None

    def changed(self, *, asked: bool = False) -> bool:
        """Whether another token than the refused one lies ready. Never raises, never waits.

        A command is not run here, for it may take seconds: now and then, or where a person ``asked``, this says True,
        and the next request runs it.
        """
        if self._credentials.token_command is not None:
            now = _now()
            if not asked and now - self._asked_at < _ASK_AGAIN:
                return False
            self._asked_at = now
            self._token = None
            return True
        try:
            found = self._read_file() if self._credentials.token_file is not None else self._read_environment()
        except Refusal:
            return False
        if found == (self._refused or self._token):
            return False
        self._take(found)
        return True

    @property
    def current(self) -> str | None:
        """The token in use, None where none was needed yet."""
        return self._token

    def hides(self, text: str) -> str:
        """``text`` without the last tokens, which a server might echo: whole, as a URL has them, or without class."""
        echoes = {form for secret in self._secrets for form in _forms(secret) if len(form) >= _SECRET}
        for echo in sorted(echoes, key=len, reverse=True):
            text = text.replace(echo, "***")
        return text

    def _take(self, token: str) -> str:
        if token not in self._secrets[-1:]:
            # In one piece, for texts are shown while a thread reads the credential.
            self._secrets = (*(secret for secret in self._secrets if secret != token), token)[-_REMEMBERED:]
            self.taken += 1
        self._token = token
        return token

    async def _read(self) -> str:
        if self._credentials.token_file is not None:
            return self._read_file()
        if self._credentials.token_command is not None:
            return await self._run(self._credentials.token_command)
        return self._read_environment()

    def _read_file(self) -> str:
        path = self._credentials.token_file
        assert path is not None  # noqa: S101 - told apart by the caller
        try:
            with path.open("rb") as file:
                self._look_at_mode(path, os.fstat(file.fileno()).st_mode)
                content = file.read(LONGEST)
        except OSError as error:
            raise _missing(f"the token file {path} cannot be read: {error.strerror}") from error
        return _checked(content, f"the token file {path}")

    def _look_at_mode(self, path: Path, mode: int) -> None:
        if self._warned or not stat.S_ISREG(mode) or not mode & (stat.S_IRWXG | stat.S_IRWXO):
            return
        self._warned = True
        self._warn(f"the token file {path} can be read by others; chmod 600 {path}")

    def _read_environment(self) -> str:
        name = self._credentials.environment
        content = os.environ.get(name, "")
        if not content.strip():
            raise _missing(f"no credential: ${name} is not set")
        return _checked(content.encode(errors="surrogateescape"), f"${name}")

    async def _run(self, command: str) -> str:
        process = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        output, complaint = bytearray(), bytearray()
        ended = False
        try:
            with trio.move_on_after(self._command_timeout):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_collect, process.stdout, output)
                    nursery.start_soon(_collect, process.stderr, complaint)
                ended = await process.wait() is not None
        finally:
            await _end(process, kill=not ended)
        if not ended:
            raise _missing(f"the token command did not end within {self._command_timeout:g} s")
        if process.returncode != 0:
            raise _missing(f"the token command ended with {process.returncode}{_first_line(complaint)}")
        return _checked(bytes(output), "the token command's output")


def _forms(token: str) -> tuple[str, ...]:
    bare = next((token.removeprefix(name) for name in _CLASSES if token.startswith(name)), token)
    return token, bare, quote(token, safe="/*"), quote(bare, safe="/*")


def _now() -> float:
    """trio's time, on the loop and in a thread that trio started."""
    try:
        return trio.current_time()
    except RuntimeError:
        return trio.from_thread.run_sync(trio.current_time)


async def _collect(stream: trio.abc.ReceiveStream | None, into: bytearray) -> None:
    if stream is None:
        return
    # What exceeds the limit is read and dropped, so that the command can end.
    async for chunk in stream:
        into += chunk[: LONGEST - len(into)]


async def _end(process: trio.Process, *, kill: bool) -> None:
    if kill:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    with trio.CancelScope(shield=True):
        await process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


def _first_line(complaint: bytearray) -> str:
    lines = complaint.decode(errors="replace").strip().splitlines()
    return f": {lines[0][:200]}" if lines else ""


def _checked(content: bytes, where: str) -> str:
    text = content.decode("ascii", errors="replace").strip()
    if not text:
        raise _missing(f"{where} is empty")
    if not _TOKEN.fullmatch(text):
        raise _missing(f"{where} holds no token: it has spaces, line ends or characters outside ASCII")
    return text


def _missing(message: str) -> Refusal:
    error = Refusal(401, code="no_credential", message=message)
    error.hint = "give a token with --token-file, --token-command or FSMOUNT_TOKEN"
    return error
