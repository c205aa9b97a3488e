"""Permission rules (relayfile-api, section 5): who may touch a file, and who does not even see it.

Invariant: one matching deny refuses; without one, a matching allow admits; rules of which none matches
refuse; no rule at all admits. There is no difference between reading and writing.
"""

from collections.abc import Iterable, Mapping

import msgspec

from fsmount.server.paths import parent
from fsmount.server.principal import Principal

MARKER = ".relayfile.acl"
LONGEST_MARKER = 1024 * 1024
"""Bytes of a marker, however they came: every one that the store has is small enough to be read for its rules."""
_EVERYONE = {"public", "any", "*"}
_KINDS = {"scope", "agent", "workspace"}
# What rules say of a principal; those of a file and of the directories above it are joined by `|`.
_RULED, _ALLOWED, _DENIED = 1, 2, 4


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One entry; `kind` is empty for everyone."""

    deny: bool
    kind: str = ""
    name: str = ""

    def matches(self, principal: Principal) -> bool:
        """Whether it speaks of this principal; scopes are compared literally."""
        match self.kind:
            case "scope":
                return self.name in principal.scopes
            case "agent":
                return self.name == principal.subject
            case "workspace":
                return self.name == principal.workspace
        return True


def rule(text: str) -> Rule | None:
    """The rule that an entry of `permissions` is; None for what is only remarked there."""
    effect, colon, rest = text.strip().partition(":")
    deny = effect == "deny"
    subject = rest.strip() if colon and effect in {"allow", "deny"} else text.strip()
    if subject in _EVERYONE:
        return Rule(deny=deny)
    kind, _, name = subject.partition(":")
    return Rule(deny=deny, kind=kind, name=name.strip()) if kind in _KINDS and name.strip() else None


def is_marker(path: str) -> bool:
    """Whether the file at `path` speaks of its whole directory."""
    return path.endswith("/" + MARKER)


def is_too_long(path: str, size: int) -> bool:
    """Whether a file of `size` bytes may not stand at `path`, because nobody would read its rules."""
    return size > LONGEST_MARKER and is_marker(path)


def rules_of(path: str, semantics: str | None, content: bytes) -> tuple[str, ...]:
    """The entries that a file brings: those of its semantics (JSON) and, for a marker, of its decoded content."""
    found = _permissions(semantics)
    if is_marker(path):
        found += _permissions(_inner(content))
    return tuple(text for text in found if rule(text) is not None)


class Sight:
    """What one principal may touch; `guards` holds the rules of each file that matters, by its path."""

    def __init__(self, guards: Mapping[str, tuple[str, ...]], principal: Principal) -> None:
        self._said = {path: _verdict(rules, principal) for path, rules in guards.items()}
        self._within: dict[str, int] = {}

    def allows(self, path: str) -> bool:
        """Whether the file at `path` may be touched, or created."""
        said = self._said.get(path, 0) | (0 if path == "/" else self._above(parent(path)))
        return not said & _DENIED and said in {0, _RULED | _ALLOWED}

    def _above(self, directory: str) -> int:
        """What the markers of a directory and of those above it say; a loop, for a path may be very deep."""
        unknown: list[str] = []
        while directory not in self._within and directory != "/":
            unknown.append(directory)
            directory = parent(directory)
        said = self._within.setdefault(directory, self._said.get(marker(directory), 0))
        for below in reversed(unknown):
            said = self._within[below] = said | self._said.get(marker(below), 0)
        return said


def marker(directory: str) -> str:
    """The path of a directory's marker."""
    return f"/{MARKER}" if directory == "/" else f"{directory}/{MARKER}"


def _verdict(rules: Iterable[str], principal: Principal) -> int:
    said = 0
    for text in rules:
        found = rule(text)
        if found is not None:
            said |= _RULED
            if found.matches(principal):
                said |= _DENIED if found.deny else _ALLOWED
    return said


class _Permitted(msgspec.Struct):
    permissions: tuple[str, ...] | None = None


class _Marker(msgspec.Struct):
    semantics: msgspec.Raw = msgspec.Raw()


def _permissions(semantics: str | bytes | None) -> tuple[str, ...]:
    if not semantics:
        return ()
    try:
        return msgspec.json.decode(semantics, type=_Permitted).permissions or ()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _inner(content: bytes) -> bytes:
    try:
        return bytes(msgspec.json.decode(content, type=_Marker).semantics)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b""
