"""``fsmount serve``: the embedded server, from options to ServeOptions.

Invariant: stdout carries the server's one line and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import click

from fsmount.config import parse_remote, state_home
from fsmount.errors import UsageError


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where files, key and token live; made if missing.  [default: $XDG_STATE_HOME/fsmount/serve]",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:0",
    show_default=True,
    help="Where to listen; port 0 takes a free one.",
)
@click.option("--workspace", default="local", show_default=True, help="The workspace that the token is for.")
@click.option(
    "--rules", type=click.Path(dir_okay=False, path_type=Path), help="Refuse, delay or lose requests as this file says."
)
@click.option(
    "--jwks", metavar="URL", help="Believe the tokens of another issuer too, whose public keys are at this URL."
)
@click.option(
    "--rate-limit",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Answer 429 beyond N requests a minute of one token's subject.  [default: no limit]",
)
@click.option(
    "--body-cap",
    metavar="BYTES",
    type=click.IntRange(min=1),
    default=1024 * 1024,
    show_default=True,
    help="Answer 413 to a longer request.",
)
@click.option(
    "--extensions/--no-extensions",
    default=True,
    show_default=True,
    help="Offer what only this server has: exact sizes, a status per file of a batch, raw bytes of any length.",
)
def serve(
    data: Path | None,
    listen: str,
    workspace: str,
    rules: Path | None,
    jwks: str | None,
    *,
    rate_limit: int,
    body_cap: int,
    extensions: bool,
) -> int:
    """Run a relayfile-compatible server, for tests, trials and demonstrations.

    Prints one line when it is ready: 'serving REMOTE  token-file FILE'. Both go straight to 'fsmount mount REMOTE
    MOUNTPOINT --token-file FILE'. Ctrl-C or SIGTERM ends it; what was written stays in the data directory.

    The rules file is looked at again at every request; whenever it has changed, every times=N starts again. A missing
    file is no rules. Each line is one rule, '#' starts a comment, and the first rule that matches wins:

    \b
      METHOD GLOB ACTION...
      PUT /github/issues/** 422 {"code":"schema_violation"}
      * /** 503 retry-after=2 times=3

    \b
    METHOD  GET, PUT, DELETE, LIST, EVENTS, or * for any
    GLOB    a path: begins with / or **; * and ? stay within one name, ** crosses /; /a/** is /a too
    ACTION  one or more of:
      STATUS [JSON]   answer so (200 to 599) and do nothing
      retry-after=S   with a Retry-After of S seconds
      delay=2s        wait first; also 250ms, 1m
      hang            do nothing and never answer
      refuse          do nothing and close without a byte
      drop            do it, but close without a byte
      truncate        cut the answer's body short
      slow=BYTES/s    send the answer's body so slowly
      times=N         only for the first N requests

    EVENTS is /fs/events and the live feed, of the path /. A rule for it without times=N holds for feeds that are open,
    too: a STATUS, refuse or drop cuts them within a moment, hang makes them silent until the rule goes.
    """  # noqa: D301 - click's mark for lines that are kept
    from fsmount.server.serve import ServeOptions, run

    host, port = _address(listen)
    _check_workspace(workspace)
    _check_jwks(jwks)
    return run(
        ServeOptions(
            data=data or state_home() / "serve",
            host=host,
            port=port,
            workspace=workspace,
            rules=rules,
            jwks=jwks,
            rate_limit=rate_limit,
            body_cap=body_cap,
            extensions=extensions,
        )
    )


def _check_jwks(url: str | None) -> None:
    """Raises UsageError for what cannot be fetched; only what the network gives, never a file of this machine."""
    if url is not None and re.fullmatch(r"https?://[^\s/]+(/\S*)?", url) is None:
        raise UsageError(
            f"--jwks {url!r} is no HTTP URL", hint="such as https://auth.example.org/.well-known/jwks.json"
        )


def _check_workspace(name: str) -> None:
    """Raises UsageError for a workspace that no remote could name."""
    try:
        parse_remote(f"relayfile+http://host/{quote(name, safe='', errors='surrogateescape')}")
    except UsageError as error:
        raise UsageError(
            f"--workspace {name!r} cannot be a workspace's name", hint="use letters and digits, such as local"
        ) from error


def _address(text: str) -> tuple[str, int]:
    """HOST and PORT; an IPv6 host stands in brackets."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):(\d{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"--listen {text!r} is no HOST:PORT", hint="such as 127.0.0.1:8080, or [::1]:8080")
    return match[1].strip("[]"), int(match[2])
