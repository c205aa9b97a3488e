"""The ops in the store: every write's way to the provider behind the server.

This server has no provider of its own: an op waits until a consumer of `/writeback` says what became of it.
Invariant: `pending` becomes `succeeded` or `dead_lettered`, and only a replay leads back.
"""

import sqlite3
from collections.abc import Callable
from enum import Enum

import msgspec

from fsmount.server.paths import provider

_COLUMNS = (
    "id, path, kind, revision, content_type, correlation_id, at, identity_kind, identity_key, provider, status,"
    " attempts, last_error, provider_result, updated_at"
)


class OpStatus(Enum):
    """How far an op is."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    DEAD_LETTERED = "dead_lettered"


class StoredOp(msgspec.Struct, frozen=True, kw_only=True):
    """One op; times are UTC nanoseconds since the epoch, `provider_result` is JSON text."""

    id: int
    path: str
    kind: str
    revision: str
    content_type: str | None
    correlation_id: str
    at: int
    identity_kind: str | None
    identity_key: str | None
    provider: str
    status: OpStatus
    attempts: int
    last_error: str | None
    provider_result: str | None
    updated_at: int | None

    @property
    def op_id(self) -> str:
        """The id that clients know."""
        return f"op_{self.id}"


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letters of one provider."""

    count: int
    newest_error: str | None


class OpLog:
    """The table `op` of one store. `now` gives UTC nanoseconds since the epoch."""

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], int]) -> None:
        self._sql = connection
        self._now = now

    def get(self, workspace: str, op_id: str) -> StoredOp | None:
        """The op that clients know by this id."""
        number = _number(op_id)
        found = self._select("WHERE id = ? AND workspace = ?", number, workspace) if number is not None else []
        return found[0] if found else None

    def newest(
        self,
        workspace: str,
        *,
        before: int | None,
        status: str | None,
        kind: str | None,
        provider: str | None,
        limit: int,
    ) -> list[StoredOp]:
        """At most `limit` ops older than the number `before`, newest first, of those asked for."""
        asked = {"id <": before, "status =": status, "kind =": kind, "provider =": provider}
        given = {name: value for name, value in asked.items() if value is not None}
        where = "".join(f" AND {name} ?" for name in given)
        return self._select(f"WHERE workspace = ?{where} ORDER BY id DESC LIMIT ?", workspace, *given.values(), limit)

    def waiting(self, workspace: str) -> list[StoredOp]:
        """Every pending op, oldest first."""
        return self._select("WHERE workspace = ? AND status = 'pending' ORDER BY id", workspace)

    def settle(self, op: StoredOp, status: OpStatus, *, error: str | None, result: str | None) -> None:
        """Note what became of an op at its provider; `result` is JSON text. To be called in a transaction."""
        self._sql.execute(
            "UPDATE op SET status = ?, attempts = attempts + 1, last_error = ?, provider_result = ?, updated_at = ?"
            " WHERE id = ?",
            (status.value, error, result, self._now(), op.id),
        )

    def replay(self, op: StoredOp) -> None:
        """Let a dead-lettered op wait again; its last error stays to be seen. To be called in a transaction."""
        self._sql.execute("UPDATE op SET status = 'pending', updated_at = ? WHERE id = ?", (self._now(), op.id))

    def failures(self, workspace: str) -> dict[str, Failures]:
        """The dead letters by provider."""
        # SQLite gives the bare column of a max() from the row that holds the maximum.
        rows = self._sql.execute(
            "SELECT provider, count(*), last_error, max(id) FROM op WHERE workspace = ? AND status = 'dead_lettered'"
            " GROUP BY provider",
            (workspace,),
        )
        return {row[0]: Failures(count=row[1], newest_error=row[2]) for row in rows}

    def fill(self) -> None:
        """Name the provider of every op of a store whose ops had none yet."""
        self._sql.create_function("provider_of", 1, provider, deterministic=True)
        self._sql.execute("UPDATE op SET provider = provider_of(path)")

    def _select(self, rest: str, *values: str | int) -> list[StoredOp]:
        rows = self._sql.execute(f"SELECT {_COLUMNS} FROM op {rest}", values)  # noqa: S608  constants only
        named = (dict(zip(StoredOp.__struct_fields__, row, strict=True)) for row in rows)
        return [StoredOp(**{**row, "status": OpStatus(row["status"])}) for row in named]


def _number(op_id: str) -> int | None:
    digits = op_id.removeprefix("op_")
    if digits == op_id or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    return int(digits)
