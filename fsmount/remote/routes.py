"""Requests of relayfile's routes below one workspace.

Invariant: a path travels percent-encoded in the query, and one that is not valid UTF-8 is refused here.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from fsmount.errors import Refusal
from fsmount.model import RemotePath, Revision
from fsmount.ports import Source
from fsmount.remote.http import Call

Headers = tuple[tuple[str, str], ...]


class Routes:
    """Makes the calls of one workspace."""

    def __init__(self, workspace: str) -> None:
        self.prefix = f"/v1/workspaces/{quote(workspace, safe='')}/fs/"

    def call(
        self,
        method: str,
        route: str,
        path: RemotePath,
        *,
        headers: Headers = (),
        body: bytes | None = None,
        source: Source | None = None,
        accepts: frozenset[int] = frozenset(),
        more: str = "",
    ) -> Call:
        """A request about one path; ``more`` goes on with the query. Raises Refusal 400."""
        try:
            asked = urlencode({"path": path}, quote_via=quote, safe="/") + more
        except UnicodeEncodeError as error:
            raise Refusal(400, code="invalid_path", message="the name is not valid UTF-8") from error
        target = f"{self.prefix}{route}?{asked}"
        return Call(
            method=method, target=target, path=path, content=body, source=source, headers=headers, accepts=accepts
        )


def at_base(revision: Revision | None) -> Headers:
    """The precondition of a write under ``/fs/file``: that revision, or that there is no file."""
    return (("If-Match", revision or "0"),)
