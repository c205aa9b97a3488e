"""What our own token says: until when it serves, which paths it may read, and which it may write (relayfile-api,
sections 1 and 4).

Invariant: nothing here is trusted for more than a guess at what to ask for and when; the server decides.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

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
    """The filters of a live feed that say all of the token's narrow grants to read what is below ``root``.

    Empty where the token is no JWS or grants nothing there, and where a grant is one that no filter can say (names by
    how they begin): a feed by the other filters would be silent on what is read all the same.
    """
    places = [place for scope in _scopes(token) if (place := _read(scope)) is not None]
    filters = sorted({filter_ for place in places if (filter_ := _inside(place, root)) is not None})
    unsaid = any(_is_names_below(place, root) and not _is_within(place, filters) for place in places)
    return [] if unsaid else filters


def below(root: RemotePath) -> str:
    """The filter for a directory, itself included, and all below it."""
    return join(root, "**")


class Writing:
    """Where a token says that it may write. One that says nothing of its grants may write everywhere."""

    def __init__(self, token: str) -> None:
        scopes = _scopes(token)
        self._literal = not scopes or "fs:write" in scopes
        self._places = [place for scope in scopes if (place := _written(scope)) is not None]

    @property
    def anywhere(self) -> bool:
        """Whether there is a path that it may write."""
        return self._literal or bool(self._places)

    @property
    def places(self) -> tuple[str, ...] | None:
        """The paths, and the patterns of paths, that it may write; None: every path."""
        if "*" in self._places or (self._literal and not self._places):
            return None
        return tuple(sorted(set(self._places)))

    def at(self, path: RemotePath) -> bool:
        """Whether it may write that path. A narrow grant takes the place of the bare ``fs:write``."""
        if any(_covers(place, path) for place in self._places):
            return True
        return self._literal and all(place == "*" for place in self._places)


def _written(scope: str) -> str | None:
    """The path, or the pattern of paths, that a grant in several parts lets its bearer write."""
    match scope.split(":", 3):
        case [plane, resource, action, *path] if plane in _PLANES:
            fits = resource in {"fs", "*"} or plane == "workspace"
            return (path[0] if path else "*") if fits and action in {"write", "manage", "*"} else None
    return None


def _covers(place: str, path: RemotePath) -> bool:
    if place == "*":
        return True
    plain = place.removesuffix("**") if place.endswith("/**") else place.removesuffix("*")
    if "*" in plain:
        return False
    if place.endswith("/**"):
        return path.startswith(plain) or path == plain[:-1]
    return path.startswith(plain) if place.endswith("*") else path == place


def _claims(token: str) -> _Claims:
    try:
        payload = token.split(".")[1].encode()
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)), type=_Claims)
    except (IndexError, binascii.Error, msgspec.DecodeError, UnicodeError, RecursionError):
        return _Claims()


def _scopes(token: str) -> tuple[str, ...]:
    scopes = _claims(token).scopes
    return tuple(scopes.split()) if isinstance(scopes, str) else scopes or ()


def _read(scope: str) -> str | None:
    """The path, or the pattern of paths, that a narrow grant lets its bearer read."""
    match scope.split(":", 3):
        case [plane, resource, action, path] if plane in _PLANES and _reads(plane, resource, action):
            return path
    return None


def _reads(plane: str, resource: str, action: str) -> bool:
    return (resource in {"fs", "*"} or plane == "workspace") and action in {"read", "manage", "*"}


def _inside(place: str, root: RemotePath) -> str | None:
    """The filter for the part of a granted place that is below ``root``; None where none is or no filter can say it."""
    plain = place.removesuffix("**") if place.endswith("/**") else place.removesuffix("*")
    if "*" in plain:
        return None
    if plain == place:
        inside = place.startswith("/") and (place == root or is_below(RemotePath(place), root))
        return place if inside else None
    if _covers(place, root) or plain == root + "/":
        return below(root)
    directory = RemotePath(plain.rstrip("/") or "/")
    return below(directory) if plain.endswith("/") and is_below(directory, root) else None


def _is_names_below(place: str, root: RemotePath) -> bool:
    """Whether it grants what is below ``root`` by how a name begins."""
    plain = place.removesuffix("*")
    return plain != place and plain[-1:] not in ("", "/", "*") and is_below(RemotePath(plain), root)


def _is_within(place: str, filters: Sequence[str]) -> bool:
    return any(place.startswith(filter_.removesuffix("**")) for filter_ in filters if filter_.endswith("/**"))
