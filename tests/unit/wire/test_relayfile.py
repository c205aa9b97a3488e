"""What the JSON looks like on the wire, in both directions."""

import msgspec
import pytest

from fsmount.wire import relayfile as wire


def encoded(body: msgspec.Struct) -> bytes:
    return msgspec.json.encode(body)


def test_members_that_always_appear() -> None:
    assert encoded(wire.TreePage(path="/x")) == b'{"path":"/x","entries":[],"nextCursor":null}'
    assert encoded(wire.EventPage()) == b'{"events":[],"nextCursor":null}'
    assert encoded(wire.ErrorBody(code="c")) == b'{"code":"c","message":"","correlationId":""}'
    assert encoded(wire.BulkResponse()) == (b'{"written":0,"errorCount":0,"errors":[],"results":[],"correlationId":""}')
    assert b'"semantics":{}' in encoded(wire.FileBody(path="/a", revision="rev_1"))


def test_members_that_are_left_out_when_empty() -> None:
    assert (
        encoded(wire.TreeEntry(path="/a", type="dir", revision="dir")) == b'{"path":"/a","type":"dir","revision":"dir"}'
    )
    assert encoded(wire.BulkError(path="/a", code="c", message="m")) == b'{"path":"/a","code":"c","message":"m"}'
    assert encoded(wire.Health(status="ok")) == b'{"status":"ok"}'


def test_an_empty_file_has_an_exact_size() -> None:
    assert b'"byteSize":0' in encoded(wire.TreeEntry(path="/a", type="file", byte_size=0))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (wire.TreePage, b'{"path":"/","entries":null,"nextCursor":null,"new":[1]}'),
        (wire.TreePage, b"{}"),
        (wire.EventPage, b'{"events":null}'),
        (wire.BulkResponse, b'{"written":1,"errorCount":0,"errors":null,"results":null,"correlationId":"x"}'),
        (wire.BulkResponse, b'{"written":1}'),
        (wire.FileBody, b'{"path":"/a","revision":"r","semantics":null,"lease":{"holder":"me"}}'),
        (wire.Health, b'{"status":"ok","features":null}'),
        (wire.TreeEntry, b'{"path":"/a","type":"dir"}'),
        (wire.ErrorBody, b'{"error":"fork_expired","correlationId":"x"}'),
    ],
)
def test_a_foreign_answer_is_read_leniently(kind: type[msgspec.Struct], text: bytes) -> None:
    assert isinstance(msgspec.json.decode(text, type=kind), kind)


def test_the_body_of_a_bulk_error_keeps_its_text() -> None:
    error = msgspec.json.decode(b'{"path":"/a","status":422,"body":{"code":"x", "n":[1]}}', type=wire.BulkError)
    assert isinstance(error.body, msgspec.Raw)
    assert bytes(error.body) == b'{"code":"x", "n":[1]}'
