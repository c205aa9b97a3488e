"""``GET /fs/tree``: the pages of a listing.

Invariant: a listing is taken whole or not at all.
"""

from __future__ import annotations

from urllib.parse import quote

from fsmount.errors import InvalidAnswer, Refusal
from fsmount.model import RemotePath
from fsmount.remote.http import Client
from fsmount.remote.routes import Routes
from fsmount.wire.relayfile import TreeEntry, TreePage

RESTARTS = 5
DEEPEST = 100
MOST_PAGES = 30
"""Pages of a subtree that are worth reading to learn how much it holds."""


class Page(TreePage, frozen=True, kw_only=True):
    """A page that names what every relayfile page names: a login page in JSON is no empty directory."""

    path: str
    entries: tuple[TreeEntry, ...] | None


class Trees:
    """Listings of one workspace. Every method raises RemoteError."""

    def __init__(self, client: Client, routes: Routes) -> None:
        self._client = client
        self._routes = routes
        self.tells_digests: bool | None = None
        """Whether the rows of files come with digests; None before there was one."""

    async def page(self, directory: RemotePath, cursor: str = "", depth: int = 1) -> Page:
        """One page of what lies so deep below a directory."""
        cursors = f"&cursor={quote(cursor)}" if cursor else ""
        call = self._routes.call("GET", "tree", directory, more=f"&depth={depth}{cursors}")
        answer = await self._client.request(call)
        page = self._client.decoded_names(call, answer, Page)
        for row in page.entries or ():
            if row.type == "file":
                self.tells_digests = row.content_hash is not None
                break
        return page

    async def rows(self, directory: RemotePath) -> list[TreeEntry]:
        """All direct children. When the entry that a cursor names has gone meanwhile (400), it begins anew."""
        restarts = 0
        while True:
            first = await self.page(directory)
            try:
                return await self._rest(directory, first)
            except Refusal as refusal:
                if refusal.status != 400 or restarts == RESTARTS:
                    raise
                restarts += 1

    async def weighs_more(self, directory: RemotePath, most: int) -> bool:
        """Whether the files below hold more than ``most`` bytes as they are stored, or are too many to tell."""
        page, weight, pages = await self.page(directory, depth=DEEPEST), 0, 1
        while True:
            weight += sum(row.byte_size or row.size or 0 for row in page.entries or ())
            if weight > most or (page.next_cursor and pages == MOST_PAGES):
                return True
            if not page.next_cursor:
                return False
            page, pages = await self.page(directory, page.next_cursor, DEEPEST), pages + 1

    async def _rest(self, directory: RemotePath, page: Page) -> list[TreeEntry]:
        rows, seen = list(page.entries or ()), set[str]()
        while page.next_cursor:
            if page.next_cursor in seen:
                raise InvalidAnswer(f"the listing of {directory} does not end")
            seen.add(page.next_cursor)
            page = await self.page(directory, page.next_cursor)
            rows += page.entries or ()
        return rows
