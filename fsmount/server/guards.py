"""The permission rules in the store: which file brings which.

Invariant: a row exists exactly for the files whose permissions hold a rule; it is written by the
transaction that writes the file.
"""

import sqlite3

import msgspec

from fsmount.server import payload
from fsmount.server.acl import Sight, is_marker, marker, rules_of
from fsmount.server.paths import ancestors
from fsmount.server.principal import Principal


class Guards:
    """The table `guard` of one store."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def keep(self, workspace: str, path: str, semantics: str | None, content: str, encoding: str) -> None:
        """Note the rules of a file that was written; `semantics` is JSON text, `content` is as it is stored."""
        self.forget(workspace, path)
        rules = rules_of(path, semantics, payload.decoded(content, encoding) if is_marker(path) else b"")
        if rules:
            text = msgspec.json.encode(rules).decode()
            self._sql.execute("INSERT INTO guard (workspace, path, rules) VALUES (?, ?, ?)", (workspace, path, text))

    def forget(self, workspace: str, path: str) -> None:
        """The file is gone."""
        self._sql.execute("DELETE FROM guard WHERE workspace = ? AND path = ?", (workspace, path))

    def forbids(self, workspace: str, path: str, principal: Principal) -> bool:
        """Whether the rules of the file and of the directories above it keep `principal` off."""
        return not Sight(self._around(workspace, path), principal).allows(path)

    def sight(self, workspace: str, base: str, principal: Principal) -> Sight | None:
        """What `principal` sees below `base`; None where no rule says anything, which is everything."""
        start = base if base == "/" else base + "/"
        below = self._sql.execute(
            "SELECT path, rules FROM guard WHERE workspace = ? AND path >= ? AND path < ?",
            (workspace, start, start[:-1] + "0"),
        )
        found = {**self._around(workspace, base), **_decoded(below)}
        return Sight(found, principal) if found else None

    def fill(self) -> None:
        """Note the rules of every file of a store of an older version, which knew none or not all of them."""
        rows = self._sql.execute(
            "SELECT workspace, path, semantics, content, encoding FROM file WHERE semantics IS NOT NULL"
            " OR path LIKE '%/.relayfile.acl'"
        ).fetchall()
        for row in rows:
            self.keep(*row)

    def _around(self, workspace: str, path: str) -> dict[str, tuple[str, ...]]:
        places = [path, *map(marker, ancestors(path))]
        # One parameter, for a path may have more levels than a statement may have parameters.
        return _decoded(
            self._sql.execute(
                "SELECT path, rules FROM guard WHERE workspace = ? AND path IN (SELECT value FROM json_each(?))",
                (workspace, msgspec.json.encode(places).decode()),
            )
        )


def _decoded(rows: sqlite3.Cursor) -> dict[str, tuple[str, ...]]:
    return {path: msgspec.json.decode(rules, type=tuple[str, ...]) for path, rules in rows}
