"""`GET /fs/query`: files by what is attached to them."""

from collections.abc import Iterator
from itertools import islice

from fsmount.server.messages import Answer, answer
from fsmount.server.paths import provider
from fsmount.server.records import Row, UnknownCursor
from fsmount.server.routes import Call, bad_cursor, number, semantics_of
from fsmount.wire.relayfile import QueryItem, QueryPage

_PROPERTY = "property."
_STEP = 1000


def query(call: Call) -> Answer:
    """One page of the files at or below a path that fit every parameter given, sorted by path."""
    limit = number(call.request.query.get("limit", ""), default=100, most=1000)
    try:
        found = list(islice(_found(call), limit + 1))
    except UnknownCursor as error:
        raise bad_cursor() from error
    page = tuple(found[:limit])
    return answer(200, QueryPage(items=page, next_cursor=page[-1].path if len(found) > limit else None))


def _found(call: Call) -> Iterator[QueryItem]:
    after = call.request.query.get("cursor") or None
    sight = call.sight()
    while rows := call.store.listings.files(call.workspace, call.path, after=after, limit=_STEP, sight=sight):
        found = (_item(row, call.extensions) for row in rows)
        yield from (item for item in found if _fits(item, call.request.query))
        after = rows[-1].path


def _fits(item: QueryItem, wanted: dict[str, str]) -> bool:
    among = {"relation": item.relations, "permission": item.permissions, "comment": item.comments}
    return (
        wanted.get("provider", "") in {"", item.provider}
        and all(not wanted.get(name) or wanted[name] in (values or ()) for name, values in among.items())
        and all(
            (item.properties or {}).get(name.removeprefix(_PROPERTY)) == value
            for name, value in wanted.items()
            if name.startswith(_PROPERTY)
        )
    )


def _item(row: Row, extensions: bool) -> QueryItem:
    attached = semantics_of(row.semantics)
    return QueryItem(
        path=row.path,
        revision=row.revision or "",
        content_type=row.content_type or "",
        provider=provider(row.path) or None,
        provider_object_id=row.object_id,
        last_edited_at=row.updated_at,
        size=row.size or 0,
        properties=attached.properties,
        relations=attached.relations,
        permissions=attached.permissions,
        comments=attached.comments,
        byte_size=row.byte_size if extensions else None,
        encoding=row.encoding if extensions else None,
    )
