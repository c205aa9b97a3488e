"""One frozen ``Config`` for a mount: parsed and validated once, at the edge.

Invariant: a ``Config`` that exists is valid; nothing beyond this module parses an option or a URL.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from fsmount.errors import MachineLacks, UsageError
from fsmount.model import ROOT, RemotePath

SCHEMES = {"relayfile+http": "http", "relayfile+https": "https"}
_LONGEST_NAME = 190
DEFAULT_LITTER = (
    ".*.sw?", ".*.sw??", "*~", "4913", ".#*", "#*#", ".~lock.*#", ".goutputstream-*", ".nfs*", ".fuse_hidden*",
    ".DS_Store", "._*",
)  # fmt: skip


class RemoteUrl(Struct, frozen=True, kw_only=True):
    """Where the files are. ``origin`` is the HTTP origin (``http://127.0.0.1:8080``), ``root`` what is shown."""

    protocol: str
    origin: str
    workspace: str
    root: RemotePath = ROOT

    def __str__(self) -> str:
        """The URL as a person writes it; holds no credential."""
        subtree = "" if self.root == ROOT else quote(self.root)
        return f"{self.protocol}+{self.origin}/{quote(self.workspace, safe='')}{subtree}"


def parse_remote(text: str) -> RemoteUrl:
    """Reads ``relayfile+http(s)://HOST[:PORT]/WORKSPACE[/SUBTREE]``; raises UsageError with what is wrong."""
    shape = "a remote looks like relayfile+http://HOST[:PORT]/WORKSPACE[/SUBTREE]"
    try:
        parts, unclean = urlsplit(text), re.search(r"[\x00-\x20\x7f-\xa0\ud800-\udfff]", text)
    except ValueError as error:
        raise UsageError(f"the remote {_shown(text)!r} is no URL: {error}", hint=shape) from error
    if unclean:
        raise UsageError(f"the remote {_shown(text)!r} holds blanks or characters that no URL has", hint=shape)
    if parts.scheme not in SCHEMES:
        raise UsageError(f"unknown remote {_shown(text)!r}", hint=shape)
    if parts.username or parts.password:
        raise UsageError(
            "a remote URL carries no credential", hint="use --token-file, --token-command or FSMOUNT_TOKEN"
        )
    if parts.query or parts.fragment:
        raise UsageError(f"the remote {_shown(text)!r} has a query or fragment", hint=shape)
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(f"the remote {_shown(text)!r} has no valid port", hint=shape) from error
    if port == 0:
        raise UsageError(f"the remote {_shown(text)!r} has port 0", hint="give the port that the server listens on")
    if not parts.hostname:
        raise UsageError(f"the remote {_shown(text)!r} names no host", hint=shape)
    segments = _segments(parts.path)
    if segments is None:
        raise UsageError(
            f"the remote {_shown(text)!r} names no workspace or a path with empty or dot segments", hint=shape
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return RemoteUrl(
        protocol="relayfile",
        origin=f"{SCHEMES[parts.scheme]}://{host}" + (f":{port}" if port else ""),
        workspace=segments[0],
        root=RemotePath("/" + "/".join(segments[1:])),
    )


def _segments(path: str) -> list[str] | None:
    """The decoded names, the workspace first; None where that is no path."""
    try:
        segments = [unquote(part, errors="strict") for part in path.strip("/").split("/")]
    except UnicodeDecodeError:
        return None
    if not segments[0] or any(part in ("", ".", "..") or "/" in part or "\0" in part for part in segments):
        return None
    return segments


def _shown(text: str) -> str:
    """The URL for an error message, without anything that stands before an ``@``."""
    return re.sub(r"//[^/@]*@", "//***@", text)


def mount_name(remote: RemoteUrl) -> str:
    """The default name: host, port and path with all but ``[A-Za-z0-9.-]`` as ``_``, and 6 hex of the URL's digest.

    What a directory's name has no room for is left out; the digest still tells two remotes apart.
    """
    url = str(remote)
    readable = re.sub(r"[^A-Za-z0-9.-]", "_", url.partition("://")[2])[:_LONGEST_NAME]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:6]}"


class Credentials(Struct, frozen=True, kw_only=True):
    """Where the token comes from, never the token itself: file or command, else the variable ``environment``."""

    token_file: Path | None = None
    token_command: str | None = None
    environment: str = "FSMOUNT_TOKEN"


class Config(Struct, frozen=True, kw_only=True):
    """Everything a mount was told. Times are seconds, sizes bytes."""

    remote: RemoteUrl
    mountpoint: Path
    name: str
    state_dir: Path
    cache_dir: Path
    log_file: Path
    credentials: Credentials = Credentials()
    foreground: bool = False
    debug: bool = False
    timeout: float = 30.0
    attr_ttl: float = 5.0
    settle: float = 0.3
    max_settle: float = 3.0
    delete_settle: float = 2.0
    litter_delete_settle: float = 10.0
    open_settle: float = 5.0
    max_attempts: int = 8
    max_deletes: int = 100
    """Deletes within a minute beyond which they are held."""
    keep_discarded: float = 30 * 86400.0
    discard_limit: int | None = 10 * 1024**3
    drain: float = 10.0
    cache_limit: int = 10 * 1024**3
    spool_limit: int | None = None
    """None: 80 % of the disk."""
    read_only: bool = False
    write_through: bool = False
    hide_relay: bool = False
    break_lock: bool = False
    noexec: bool = False
    """Nothing on the mount can be run as a program."""
    nonempty: bool = False
    allow_other: bool = False
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    litter: tuple[str, ...] = DEFAULT_LITTER


def state_home() -> Path:
    """``$XDG_STATE_HOME/fsmount``: the state directories and the registry of mounts; raises MachineLacks."""
    return _home("XDG_STATE_HOME", ".local/state")


def cache_home() -> Path:
    """``$XDG_CACHE_HOME/fsmount``; raises MachineLacks."""
    return _home("XDG_CACHE_HOME", ".cache")


def config_home() -> Path:
    """``$XDG_CONFIG_HOME/fsmount``; raises MachineLacks."""
    return _home("XDG_CONFIG_HOME", ".config")


def _home(variable: str, usual: str) -> Path:
    """A relative path in the variable counts as none, as the XDG Base Directory Specification has it."""
    said = os.environ.get(variable, "")
    if os.path.isabs(said):
        return Path(said) / "fsmount"
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise MachineLacks(
            f"neither {variable} nor HOME says where this user's files are", hint=f"set {variable} to an absolute path"
        )
    return Path(home) / usual / "fsmount"


_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_size(text: str, disk: Path) -> int:
    """Bytes of ``10G``, ``512M`` or ``80%`` (of the disk that holds ``disk``); raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|[KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(
            f"{text!r} is no size", hint="write bytes with K, M, G or T, or a share of the disk such as 80%"
        )
    number, unit = float(match[1]), match[2].upper()
    if unit != "%":
        return int(number * _UNITS[unit])
    if number > 100:
        raise UsageError(f"{text!r} is more than the disk", hint="a share of the disk is at most 100%")
    while not disk.exists():
        disk = disk.parent
    whole = os.statvfs(disk)
    return int(whole.f_blocks * whole.f_frsize * number / 100)
