"""What the store lists: directories as they are implied by files, and files by their path.

Invariant: a page costs what it shows, however large the tree is; only where permission rules hide something is
each file below looked at.
"""

import sqlite3
from collections.abc import Mapping

from fsmount.server.acl import Sight
from fsmount.server.paths import ancestors
from fsmount.server.records import Row, UnknownCursor

_ROW = "path, revision, encoding, digest, size, byte_size, updated_at, semantics, object_id, content_type"

# A file hides the directory of the same path, whose own files are listed all the same. Exactly one
# lower bound for the path, so that a page starts in the index where the last one ended.
_LISTING = f"""
    SELECT {_ROW}
    FROM file AS f WHERE workspace = :workspace AND {{place}} AND path {{bound}} :start {{seen}}
    UNION ALL
    SELECT path, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM directory AS d WHERE workspace = :workspace AND {{place}} AND path {{bound}} :start AND path != '/'
        AND NOT EXISTS (SELECT 1 FROM file AS f WHERE f.workspace = d.workspace AND f.path = d.path {{seen}}) {{holds}}
    ORDER BY path LIMIT :limit
"""  # noqa: S608  only constants of this module go in, here and below
_FILES = f"""
    SELECT {_ROW}
    FROM file AS f WHERE workspace = :workspace AND path {{bound}} :start AND path < :beyond
        AND (path = :base OR path >= :first) {{seen}}
    ORDER BY path LIMIT :limit
"""  # noqa: S608
_SEEN = "AND sees(f.path)"
_HOLDS_SEEN = """
    AND EXISTS (SELECT 1 FROM file AS f WHERE f.workspace = d.workspace AND f.path > d.path || '/'
        AND f.path < d.path || '0' AND sees(f.path))
"""
_CHILDREN = "parent = :base"
_DESCENDANTS = "path < :beyond AND level <= :deepest"


class Listings:
    """Reads the tables `file` and `directory` of one store."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._sight: Sight | None = None
        self._sql.create_function("sees", 1, self._sees)

    def tree(
        self, workspace: str, base: str, *, depth: int, after: str | None, limit: int, sight: Sight | None = None
    ) -> list[Row]:
        """At most `limit` rows below `base`, `depth` levels deep, bytewise by path, those past `after`.

        With `sight`, only the files that it allows, and directories that hold one. Raises UnknownCursor
        when `after` is no row of this listing.
        """
        first = base if base == "/" else base + "/"
        place = _CHILDREN if depth == 1 else _DESCENDANTS
        query: dict[str, str | int] = {
            "workspace": workspace,
            "base": base,
            "start": after or first,
            "beyond": first[:-1] + "0",
            "deepest": len(ancestors(base)) + depth,
            "limit": limit,
        }
        shown = {"place": place, "seen": _SEEN, "holds": _HOLDS_SEEN} if sight else {"place": place}
        if after is not None and (after < first or not self._rows(_LISTING, query, sight, bound="=", **shown)):
            raise UnknownCursor(after)
        return self._rows(_LISTING, query, sight, bound=">=" if after is None else ">", **shown)

    def files(
        self, workspace: str, base: str, *, after: str | None = None, limit: int = -1, sight: Sight | None = None
    ) -> list[Row]:
        """The file `base` and those below it, bytewise by path, past `after`; at most `limit` (-1: all).

        With `sight`, only those that it allows. Raises UnknownCursor when `after` is none of them.
        """
        first = base if base == "/" else base + "/"
        query: dict[str, str | int] = {
            "workspace": workspace,
            "base": base,
            "first": first,
            "start": after or base,
            "beyond": first[:-1] + "0",
            "limit": limit,
        }
        seen = _SEEN if sight else ""
        if after is not None and not self._rows(_FILES, query, sight, bound="=", seen=seen):
            raise UnknownCursor(after)
        return self._rows(_FILES, query, sight, bound=">=" if after is None else ">", seen=seen)

    def total(self, workspace: str, base: str, sight: Sight | None = None) -> int:
        """How many files lie below `base`, however deep; of those that `sight` allows."""
        if sight is None:
            row = self._sql.execute(
                "SELECT files FROM directory WHERE workspace = ? AND path = ?", (workspace, base)
            ).fetchone()
            return row[0] if row else 0
        first = base if base == "/" else base + "/"
        self._sight = sight
        (count,) = self._sql.execute(
            "SELECT count(*) FROM file AS f WHERE workspace = ? AND path >= ? AND path < ? AND sees(f.path)",
            (workspace, first, first[:-1] + "0"),
        ).fetchone()
        return int(count)

    def _rows(self, sql: str, query: Mapping[str, str | int], sight: Sight | None, **parts: str) -> list[Row]:
        self._sight = sight
        rows = self._sql.execute(sql.format(**{"seen": "", "holds": "", **parts}), query)
        return [Row(**dict(zip(Row.__struct_fields__, row, strict=True))) for row in rows]

    def _sees(self, path: str) -> bool:
        return self._sight is None or self._sight.allows(path)
