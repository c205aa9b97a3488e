"""Start and stop of the embedded server.

Invariant: folder, key, token, rules and store come before the listener, so that once `/health`
answers, everything else is ready too.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import msgspec
import trio

from fsmount.errors import FsmountError, StateError, UsageError
from fsmount.server.bearers import keep_token
from fsmount.server.connection import Connection
from fsmount.server.jwks import TrustedKeys
from fsmount.server.limits import DeleteStorm, RateLimit
from fsmount.server.messages import Request
from fsmount.server.rules import Rules
from fsmount.server.site import Site, log_line
from fsmount.server.store import Store
from fsmount.server.tokens import issuer

MEBIBYTE = 1024 * 1024


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve. `data` is made if it is missing; port 0 lets the kernel choose.

    `extensions` off gives the plain API. `body_cap` is in bytes. `access_log` gets one line a
    request, `METHOD PATH STATUS`, before its answer is sent. Tokens whose keys are at the HTTP(S) URL
    `jwks` are believed beside the server's own. `rate_limit` is in requests a minute of one subject,
    `delete_storm` in deletes a minute of a workspace; 0 is no limit.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 0
    workspace: str = "local"
    rules: Path | None = None
    access_log: Path | None = None
    extensions: bool = True
    body_cap: int = MEBIBYTE
    jwks: str | None = None
    rate_limit: int = 0
    delete_storm: int = 0


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """Where a started server is found."""

    remote: str
    token_file: Path


def run(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT, then return 0. Says on stdout where, in one line.

    Raises UsageError (the address cannot be listened on) and StateError (the folder cannot be used).
    """
    return trio.run(_until_signalled, options)


async def serve(options: ServeOptions, *, task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve until cancelled; reports a Serving once everything is ready. Raises as `run` does."""
    try:
        options.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = issuer(options.data)
        token_file = keep_token(options.data, own, options.workspace)
        rules = Rules(options.rules, _complain)
        store = Store(options.data / "store.db", time.time_ns)
        log, close_log = _access_log(options.access_log)
    except OSError as error:
        raise StateError(f"cannot use {error.filename}: {error.strerror}", hint="give another --data") from error
    try:
        site = Site(
            store,
            own,
            rules,
            extensions=options.extensions,
            trusted=TrustedKeys(options.jwks) if options.jwks else None,
            rate_limit=RateLimit(options.rate_limit) if options.rate_limit else None,
            delete_storm=DeleteStorm(options.delete_storm) if options.delete_storm else None,
        )
        listener = await _listener(options)

        async def talk(stream: trio.SocketStream) -> None:
            await Connection(stream, site, body_cap=options.body_cap, log=log).serve()

        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, talk, [listener])
            task_status.started(Serving(remote=_remote(listener, options), token_file=token_file))
    finally:
        store.close()
        close_log()


async def _until_signalled(options: ServeOptions) -> int:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        failure: FsmountError | BrokenPipeError | None = None
        async with trio.open_nursery() as nursery:
            try:
                serving = await nursery.start(serve, options)
                sys.stdout.write(f"serving {serving.remote}  token-file {serving.token_file}\n")
                sys.stdout.flush()
            except (FsmountError, BrokenPipeError) as error:
                # Kept until the nursery has ended, which would wrap it in a group.
                failure = error
                nursery.cancel_scope.cancel()
            else:
                await anext(signals)
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
    return 0


async def _listener(options: ServeOptions) -> trio.SocketListener:
    try:
        first, *others = await trio.open_tcp_listeners(options.port, host=options.host)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}",
            hint="give another --listen; port 0 lets the kernel choose",
        ) from error
    # A name with several addresses would get a port for each; one server has one URL.
    for other in others:
        await other.aclose()
    return first


def _remote(listener: trio.SocketListener, options: ServeOptions) -> str:
    host, port = listener.socket.getsockname()[:2]
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    shown = f"[{loopback}]" if ":" in loopback else loopback
    return f"relayfile+http://{shown}:{port}/{quote(options.workspace, safe='')}"


def _access_log(path: Path | None) -> tuple[Callable[[Request, int | None], None], Callable[[], None]]:
    if path is None:
        return (lambda _request, _status: None), (lambda: None)
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # One write a line: a reader never sees half of one.
    return (lambda request, status: _whole_line(number, log_line(request, status))), (lambda: os.close(number))


def _whole_line(number: int, line: str) -> None:
    os.write(number, f"{line}\n".encode())


def _complain(line: str) -> None:
    sys.stderr.write(f"fsmount: serve: {line}\n")
    sys.stderr.flush()
