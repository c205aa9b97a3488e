"""How far a remote can be reached, step by step, for ``fsmount doctor``.

Invariant: each step ends within the timeout, and the first that fails is the last: what follows would only repeat it.
"""

from __future__ import annotations

import email.utils
import ipaddress
import os
import socket
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import trio
from msgspec import Struct

from fsmount.config import Credentials, RemoteUrl
from fsmount.errors import FsmountError, RemoteError, Unreachable
from fsmount.model import OpId, RemotePath
from fsmount.ports import Details
from fsmount.remote.credentials import TokenSource
from fsmount.remote.http import Call, Client
from fsmount.remote.relayfile import RelayfileRemote

SKEW = 60.0
"""Seconds between two clocks from which on a person is told: tokens begin and end by them."""


class Step(Struct, frozen=True, kw_only=True):
    """One step. ``fine`` is None where it works but not as it should; ``code`` is the exit code of a failure."""

    said: str
    fine: bool | None = True
    hint: str = ""
    code: int = 0


def reached(url: RemoteUrl, credentials: Credentials, *, timeout: float) -> list[Step]:
    """Name, port, server and credential, as far as they come; ``timeout`` seconds for each. Raises no FsmountError."""

    async def walk() -> list[Step]:
        steps: list[Step] = []
        try:
            async for step in _steps(url, credentials, timeout):
                steps.append(step)  # noqa: PERF401 - what came before a failure counts too
        except FsmountError as error:
            steps.append(Step(said=error.message, fine=False, hint=error.hint or "", code=error.exit_code))
        return steps

    return trio.run(walk)


async def _steps(url: RemoteUrl, credentials: Credentials, patience: float) -> AsyncIterator[Step]:
    parts = urlsplit(url.origin)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if _through_proxy(parts.scheme, host):
        yield Step(said=f"{host} is reached through a proxy of the environment")
    else:
        yield Step(said=await _found(host, port, patience))
        yield Step(said=await _connected(host, port, patience))
    notes = _Notes()
    yield await _clocks(url, TokenSource(credentials, warn=notes.warn), notes, patience)
    yield await _probed(url, credentials, notes, patience)
    for warning in dict.fromkeys(notes.warnings):
        yield Step(said=warning, fine=None)


async def _found(host: str, port: int, patience: float) -> str:
    try:
        with trio.fail_after(patience):
            rows = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except trio.TooSlowError as error:
        raise Unreachable(
            f"no name server told within {patience:g} s what {host} is", hint="check the network"
        ) from error
    except (OSError, UnicodeError) as error:
        hint = "check the spelling of the remote and the name server"
        raise Unreachable(f"the host {host} is unknown: {error}", hint=hint) from error
    addresses = sorted({str(row[4][0]) for row in rows})
    return f"{host} is {', '.join(addresses)}" if addresses != [host] else f"{host} is an address"


async def _connected(host: str, port: int, patience: float) -> str:
    try:
        with trio.fail_after(patience):
            stream = await trio.open_tcp_stream(host, port)
        await stream.aclose()
    except trio.TooSlowError as error:
        hint = "check the port, and what filters packets on the way"
        raise Unreachable(f"{host}:{port} does not answer within {patience:g} s", hint=hint) from error
    except (OSError, UnicodeError) as error:
        hint = "start the server, or check host and port of the remote"
        raise Unreachable(f"nothing listens at {host}:{port}", hint=hint) from error
    return f"{host}:{port} accepts connections"


async def _clocks(url: RemoteUrl, tokens: TokenSource, notes: _Notes, patience: float) -> Step:
    """Whether this clock and the server's agree; a server without that route has another way to say no."""
    client = Client(url.origin, tokens, timeout=patience, log=notes)
    try:
        answer = await client.request(Call(method="GET", target="/health", anonymous=True))
        date = email.utils.parsedate_to_datetime(answer.header("date")).timestamp()
    except Unreachable:
        raise
    except (RemoteError, ValueError, TypeError, OverflowError):
        return Step(said=f"{url.origin} speaks HTTP, but does not tell its time", fine=None)
    finally:
        await client.aclose()
    secure = " over TLS" if url.origin.startswith("https:") else ""
    ahead = time.time() - date
    if abs(ahead) > SKEW:
        return Step(
            said=f"this clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's",
            fine=None,
            hint="set the clock: tokens are valid by it",
        )
    return Step(said=f"{url.origin} answers{secure}, and its clock agrees")


async def _probed(url: RemoteUrl, credentials: Credentials, notes: _Notes, patience: float) -> Step:
    remote = RelayfileRemote(url, credentials, timeout=patience, log=notes)
    try:
        with trio.fail_after(patience):
            await remote.probe()
    except trio.TooSlowError as error:
        raise Unreachable(f"{url.origin} did not answer within {patience:g} s", hint="look at the server") from error
    finally:
        with trio.CancelScope(shield=True):
            await remote.aclose()
    return Step(said=f"{url} can be read with this credential")


def _through_proxy(scheme: str, host: str) -> bool:
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
    names = (f"{scheme}_proxy", "all_proxy")
    return not local and any(os.environ.get(name) or os.environ.get(name.upper()) for name in names)


class _Notes:
    """Implements ports.EventLog for one look: warnings are kept, the rest is in what the steps say."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        """Keeps it."""
        self.warnings.append(message)

    def note(
        self,
        event: str,
        message: str = "",
        *,
        op: OpId | None = None,  # noqa: ARG002 - the port's
        path: RemotePath | None = None,  # noqa: ARG002
        level: str = "info",  # noqa: ARG002
        details: Details | None = None,  # noqa: ARG002
    ) -> None:
        if event.startswith("credential"):
            self.warnings.append(message)
