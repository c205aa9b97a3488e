"""What a token says that it may write (relayfile-api, section 4)."""

from __future__ import annotations

import base64
import json

import pytest

from fsmount.model import RemotePath
from fsmount.remote.claims import Writing


def token(*scopes: str) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"scopes": scopes}).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.x"


@pytest.mark.parametrize(
    ("scopes", "written", "refused"),
    [
        (("fs:read", "fs:write"), ("/", "/a", "/a/b"), ()),
        (("fs:read",), (), ("/", "/a")),
        (("fs:read", "sync:read", "relayfile:fs:read:*"), (), ("/a",)),
        (("relayfile:fs:write",), ("/a",), ()),
        (("relayfile:fs:manage:/a/**",), ("/a", "/a/b", "/a/b/c"), ("/ab", "/b", "/")),
        (("relayfile:fs:write:/a/*",), ("/a/b", "/a/b/c"), ("/a", "/ab")),
        (("*:*:*:/a/b",), ("/a/b",), ("/a/b/c", "/a")),
        (("relayfile:fs:write:/a/x*",), ("/a/x", "/a/xy", "/a/x/y"), ("/a/y",)),
        (("relayfile:fs:write:/*/b",), (), ("/a/b",)),
        (("workspace:any:write:/a/**",), ("/a/b",), ("/b",)),
        (("relayfile:sync:write:/a/**",), (), ("/a/b",)),
        # A narrow grant takes the place of the bare one, a whole one does not.
        (("fs:write", "relayfile:fs:write:/a/**"), ("/a/b",), ("/b",)),
        (("fs:write", "relayfile:fs:read:/a/**"), ("/a/b", "/b"), ()),
        (("fs:write", "relayfile:fs:write"), ("/b",), ()),
    ],
)
def test_where_a_token_may_write(scopes: tuple[str, ...], written: tuple[str, ...], refused: tuple[str, ...]) -> None:
    grants = Writing(token(*scopes))
    assert [path for path in (*written, *refused) if grants.at(RemotePath(path))] == list(written)


@pytest.mark.parametrize(
    ("scope", "anywhere"),
    [("fs:read", False), ("relayfile:sync:write", False), ("fs:write", True), ("relayfile:fs:write:/a", True)],
)
def test_whether_there_is_anything_to_write(scope: str, anywhere: bool) -> None:
    assert Writing(token(scope)).anywhere is anywhere


@pytest.mark.parametrize("text", ["secret", "a.b.c", token(), "e30.e30.x"])
def test_a_token_that_says_nothing_may_be_tried(text: str) -> None:
    assert Writing(text).anywhere
    assert Writing(text).at(RemotePath("/a"))
