"""What our own token says: until when it serves, and which paths it may read (relayfile-api, sections 1 and 4).

Invariant: nothing here is trusted for more than a guess at what to ask for and when; the server decides.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from fsmount.model import RemotePath, is_below, join

_PLANES = ("relayfile", "workspace", "*")


class _Claims(msgspec.Struct, frozen=True):
    scopes: str | tuple[str, ...] | None = None
    exp: float | None = None


def expiry(token: str) -> float | None:
    """When the token runs out, in UTC epoch seconds; None where it does not say."""
    return _claims(token).exp


def readable(token: str, root: RemotePath) -> list[str]:
    """The filters of a live feed that lie inside the token's narrow grants to read, and concern what is below ``root``.

    Empty where the token is no JWS, grants nothing there, or only what no filter can say (a prefix of a name).
    """
    found = {filter_ for scope in _scopes(token) if (filter_ := _filter(scope, root)) is not None}
    return sorted(found)


def below(root: RemotePath) -> str:
    """The filter for a directory, itself included, and all below it."""
    return join(root, "**")


def _claims(token: str) -> _Claims:
    try:
        payload = token.split(".")[1].encode()
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)), type=_Claims)
    except (IndexError, binascii.Error, msgspec.DecodeError, UnicodeError, RecursionError):
        return _Claims()


def _scopes(token: str) -> tuple[str, ...]:
    scopes = _claims(token).scopes
    return tuple(scopes.split()) if isinstance(scopes, str) else scopes or ()


def _filter(scope: str, root: RemotePath) -> str | None:
    match scope.split(":", 3):
        case [plane, resource, action, path] if plane in _PLANES and _reads(plane, resource, action):
            return _inside(path, root)
    return None


def _reads(plane: str, resource: str, action: str) -> bool:
    return (resource in {"fs", "*"} or plane == "workspace") and action in {"read", "manage", "*"}


def _inside(path: str, root: RemotePath) -> str | None:
    """The filter for the part of a granted path that is below ``root``."""
    directory = RemotePath(path.removesuffix("**").removesuffix("*").rstrip("/") or "/")
    if path.endswith(("/**", "/*")):
        if root == directory or is_below(root, directory):
            return below(root)
        return below(directory) if is_below(directory, root) else None
    if "*" in path or not path.startswith("/"):
        return None
    return path if path == root or is_below(RemotePath(path), root) else None
