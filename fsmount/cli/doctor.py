"""``fsmount doctor``: what is well, what is not, and what to do about each.

Invariant: it changes nothing, ends, touches no mount in this process and shows no secret.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from fsmount.cli import configfile, findings, values
from fsmount.cli.findings import Finding, fail, failed, ok, warn
from fsmount.cli.options import CREDENTIALS
from fsmount.config import Credentials, mount_name, parse_remote
from fsmount.errors import FsmountError, UsageError


def _credential_options(function: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(CREDENTIALS):
        function = option(function)
    return function


@click.command(context_settings={"auto_envvar_prefix": "FSMOUNT"})
@click.argument("remote", metavar="[REMOTE]", required=False)
@_credential_options
@click.option(
    "--timeout",
    type=values.positive_seconds,
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long each step may wait for the remote.",
)
def doctor(remote: str | None, token_file: Path | None, token_command: str | None, timeout: float) -> int:
    """Check this machine, the known mounts and, if it is given, REMOTE; say what to do about each.

    A line begins with ok, warn or FAIL. The exit code is 0 unless something fails, and then that of the first failure:
    2 configuration, 4 the remote, 5 state, 6 a mount that hangs, 7 this machine.
    """
    code = 0
    for finding in _found(remote, Credentials(token_file=token_file, token_command=token_command), timeout):
        click.echo(str(finding))
        code = code or finding.code
    return code


def _found(remote: str | None, credentials: Credentials, timeout: float) -> Iterator[Finding]:
    yield from findings.programs()
    yield from findings.device()
    yield from findings.directories()
    chosen: configfile.Values = {}
    try:
        file = _file()
        yield ok(f"{file.path} is fine" if file.everywhere or file.tables else "no configuration file is in use")
        chosen = file.chosen(_headings(remote))
    except FsmountError as error:
        yield failed(error)
    credentials = _nearest(credentials, chosen)
    yield from _token_file(credentials.token_file)
    yield from findings.known_mounts()
    if remote is not None:
        yield from _remote(remote, credentials, timeout)


def _file() -> configfile.ConfigFile:
    from fsmount.cli.mount import mount

    return configfile.read({param.name: param for param in mount.params if param.name})


def _headings(remote: str | None) -> list[str]:
    if remote is None:
        return []
    try:
        url = parse_remote(remote)
    except UsageError:
        return [remote]
    return [remote, str(url), mount_name(url)]


def _nearest(given: Credentials, chosen: configfile.Values) -> Credentials:
    """The credential of a mount: flag or variable first, then the configuration file."""
    if given.token_file or given.token_command or os.environ.get(given.environment, "").strip():
        return given
    file, command = chosen.get("token_file"), chosen.get("token_command")
    return Credentials(token_file=Path(str(file)) if file else None, token_command=str(command) if command else None)


def _token_file(path: Path | None) -> Iterator[Finding]:
    if path is None:
        return
    try:
        found = path.stat()
    except OSError as error:
        yield fail(f"the token file {path} cannot be read: {error.strerror}", "check its name and permissions", 4)
        return
    if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warn(f"the token file {path} can be read by others", f"chmod 600 {path}")
    elif not os.access(path, os.R_OK):
        yield fail(f"the token file {path} cannot be read by you", f"chmod u+r {path}", 4)
    else:
        yield ok(f"the token file {path} is yours alone")


def _remote(text: str, credentials: Credentials, timeout: float) -> Iterator[Finding]:
    from fsmount.app.reach import reached

    try:
        url = parse_remote(text)
    except UsageError as error:
        yield failed(error)
        return
    for step in reached(url, credentials, timeout=timeout):
        level = {True: "ok", None: "warn", False: "FAIL"}[step.fine]
        yield Finding(level=level, said=step.said, hint=step.hint, code=step.code)
