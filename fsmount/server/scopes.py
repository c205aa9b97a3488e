"""What a token's grants permit (relayfile-api, section 4); pure.

A requirement is `resource:action`. A grant is the same literally, `plane:resource:action[:path]` with
the plane `relayfile` or `*`, or `workspace:LABEL:action[:path]`, which speaks of files only.
Invariant: a grant with a path, where it fits a requirement, takes the place of the bare literal.
"""

from collections.abc import Sequence

import msgspec

_PLANES = {"relayfile", "*"}
_EVERYWHERE = "*"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A structured grant; `path` is `*` where none was given."""

    plane: str
    resource: str
    action: str
    path: str = _EVERYWHERE

    def fits(self, needed: str) -> bool:
        """Whether it speaks of this requirement; `manage` is reading and writing."""
        resource, _, action = needed.partition(":")
        actions = {"*", action} | ({"manage"} if action in {"read", "write"} else set())
        return self.resource in {"*", resource} and self.action in actions

    def covers(self, path: str) -> bool:
        """Whether `path` lies where it was granted."""
        place = self.path
        if place == _EVERYWHERE:
            return True
        if place.endswith("/**"):
            return _plain(place[:-3]) and (path == place[:-3] or path.startswith(place[:-2]))
        if place.endswith("/*"):
            return _plain(place[:-2]) and path.startswith(place[:-1]) and path != place[:-1]
        if place.endswith("*"):
            return _plain(place[:-1]) and path.startswith(place[:-1])
        return _plain(place) and path == place


def permits(granted: Sequence[str], needed: str, path: str) -> bool:
    """Whether the requirement is granted at `path`."""
    fitting = [grant for grant in map(parse, granted) if grant is not None and grant.fits(needed)]
    if any(grant.covers(path) for grant in fitting):
        return True
    return needed in granted and not any(grant.path != _EVERYWHERE for grant in fitting)


def permits_somewhere(granted: Sequence[str], needed: str) -> bool:
    """The looser rule of routes that name no path: the `workspace` plane does not count, nor do paths."""
    return needed in granted or any(
        grant.plane in _PLANES and grant.fits(needed) for grant in map(parse, granted) if grant is not None
    )


def permits_all(granted: Sequence[str], needed: str, paths: Sequence[str]) -> bool:
    """Whether it is granted at each of these paths; none of them means the root, as a feed without a filter does."""
    return all(permits(granted, needed, path) for path in paths or ("/",))


def parse(text: str) -> Grant | None:
    """The structured grant that `text` is, if it is one."""
    plane, *rest = text.split(":", 3)
    if plane in _PLANES and len(rest) >= 2:
        return Grant(plane=plane, resource=rest[0], action=rest[1], path=rest[2] if len(rest) > 2 else _EVERYWHERE)
    if plane == "workspace" and len(rest) >= 2:
        return Grant(plane=plane, resource="fs", action=rest[1], path=rest[2] if len(rest) > 2 else _EVERYWHERE)
    return None


def _plain(place: str) -> bool:
    # A star anywhere but at the end matches nothing.
    return "*" not in place
