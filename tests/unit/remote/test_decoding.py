"""JSON of servers that write it in other ways."""

from __future__ import annotations

import pytest

from fsmount.remote.decoding import UNREADABLE, decoded, decoded_names
from fsmount.wire.relayfile import BulkResponse, Event, EventPage, TreePage


def test_a_null_is_as_if_nothing_were_there() -> None:
    event = {"event_id": "evt_1", "type": "file.deleted", "path": "/a"}
    body = b'{"events":[{"eventId":"evt_1","type":"file.deleted","path":"/a","revision":null,"origin":null}]}'
    assert decoded(body, EventPage).events == (Event(**event),)
    assert decoded(b'{"written":null,"errors":null,"results":[]}', BulkResponse) == BulkResponse(errors=())


@pytest.mark.parametrize("body", [b'{"events":[{"type":null}]}', b'{"events":3}', b'{"events":[', b"null", b"\xff"])
def test_what_is_not_of_the_protocol_stays_unreadable(body: bytes) -> None:
    with pytest.raises(UNREADABLE):
        decoded(body, EventPage)


def test_a_name_that_is_no_text_and_a_null_come_together() -> None:
    body = b'{"entries":[{"path":"/\xff","type":"file","revision":null},{"path":"/a","type":"file"}]}'
    entries = decoded_names(body, TreePage).entries
    assert entries is not None
    assert [entry.path for entry in entries] == ["/\0", "/a"]
