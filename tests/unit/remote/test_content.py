"""What the bytes decide, and what a row of the tree may claim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.errors import Refusal
from fsmount.model import Kind, RemotePath
from fsmount.remote import content
from fsmount.remote.entries import entries, epoch
from fsmount.wire.relayfile import TreeEntry
from tests.support.uploads import Bytes


@given(st.binary() | st.text().map(lambda text: text.encode(errors="replace")))
def test_encoding_is_undone_by_decoding(original: bytes) -> None:
    text, encoding = content.encode(original)
    assert content.decode(text, encoding) == original


@pytest.mark.parametrize(
    ("original", "encoding"),
    [
        (b"", None),
        (b"line\tone\r\nline two\n", None),
        ("größe \U0001f600".encode(), None),
        (b"nul \0", "base64"),
        (b"escape \x1b[0m", "base64"),
        (b"rubout \x7f", "base64"),
        (b"\xff\xfe", "base64"),
        (b"\xed\xa0\x80", "base64"),
    ],
)
def test_text_is_what_is_text(original: bytes, encoding: str | None) -> None:
    assert content.encode(original)[1] == encoding


@pytest.mark.parametrize("text", ["AA==", "AA", "A\nA=\r\n="])
def test_base64_with_and_without_padding(text: str) -> None:
    assert content.decode(text, "base64") == b"\0"


def test_a_digest_in_other_dress_is_the_same_and_one_of_another_kind_is_let_be() -> None:
    digest = content.checked(b"x", None)
    for told in (digest, digest.upper(), f"sha256:{digest}"):
        assert content.digest_of(told) == content.checked(b"x", told) == digest
    for other in (None, "", "md5:9dd4e461268c8034f5c8564e155c67a6", "rev_7"):
        assert content.digest_of(other) is None
        assert content.checked(b"x", other) == digest
    with pytest.raises(content.BadContent):
        content.checked(b"y", f"sha256:{digest}")


@pytest.mark.parametrize(("text", "encoding"), [("A", "base64"), ("A*==", "base64"), ("ä", "base64"), ("x", "rot13")])
def test_undecodable_content(text: str, encoding: str) -> None:
    with pytest.raises(content.BadContent):
        content.decode(text, encoding)


def test_a_file_over_the_limit_is_not_read() -> None:
    class Huge(Bytes):
        @property
        def size(self) -> int:
            return content.SIZE_LIMIT + 1

        def read(self, offset: int, size: int) -> bytes:
            raise AssertionError("read")

    with pytest.raises(Refusal) as caught:
        content.whole(Huge(b""))
    assert caught.value.status == 413


def test_names_that_no_directory_holds_are_left_out() -> None:
    paths = [
        "/d/ok",
        "/d/",
        "/d/.",
        "/d/..",
        "/d/a\0b",
        "/d/" + "ä" * 128,
        "/other/x",
        "/d/sub/file",
        "/d/" + "x" * 255,
    ]
    rows = [TreeEntry(path=path, type="file", revision="r") for path in paths]
    found, problems = entries(rows, RemotePath("/d"), exact=False)
    assert [entry.path for entry in found] == ["/d/ok", "/d/sub", "/d/" + "x" * 255]
    assert found[1].kind is Kind.DIRECTORY
    names = ["", ".", "..", "a\0b", "ä" * 128]
    assert [(problem.path, problem.shown_as) for problem in problems] == [(f"/d/{name}", None) for name in names]
    assert all(problem.why for problem in problems)


@pytest.mark.parametrize("order", [1, -1])
def test_one_entry_for_a_file_and_a_directory_of_one_name(order: int) -> None:
    rows = [TreeEntry(path="/a", type="file", revision="r"), TreeEntry(path="/a", type="dir", revision="dir")][::order]
    (entry,), (problem,) = entries(rows, RemotePath("/"), exact=False)
    assert entry.kind is Kind.FILE
    assert (problem.path, problem.shown_as) == ("/a", "/a")


def test_a_size_that_is_not_exact_is_not_told() -> None:
    row = TreeEntry(path="/a", type="file", revision="r", size=8, byte_size=5)
    told = [entries([row], RemotePath("/"), exact=exact)[0][0].size for exact in (True, False)]
    assert told == [5, None]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T00:00:10.123456789Z", 10.123456),
        ("1970-01-01T02:00:10.5+02:00", 10.5),
        ("0001-01-01T00:00:00Z", 0.0),
        ("yesterday", 0.0),
        (None, 0.0),
    ],
)
def test_times(text: str | None, seconds: float) -> None:
    assert epoch(text) == pytest.approx(seconds, abs=1e-5)
