"""What a token says of itself, whatever it is."""

from __future__ import annotations

import base64
import json

import pytest

from fsmount.model import RemotePath
from fsmount.remote import claims


def token(**said: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    return f"relay_pa_eyJ.{payload}.signature"


@pytest.mark.parametrize(
    ("scopes", "root", "filters"),
    [
        (["relayfile:fs:read:/github/**"], "/", ["/github/**"]),
        (["relayfile:fs:read:/github/**"], "/github/issues", ["/github/issues/**"]),
        (["relayfile:fs:read:/github/**"], "/git", []),
        (["relayfile:fs:read:/github/*"], "/", ["/github/**"]),
        (["workspace:x:manage:/a/**", "*:*:read:/b/f", "fs:read"], "/", ["/a/**", "/b/f"]),
        ("relayfile:fs:read:/a/** relayfile:fs:write:/b/**", "/", ["/a/**"]),
        (["relayfile:fs:read:/a/pre*", "relayfile:fs:read", "relayfile:sync:read:/c"], "/", []),
        (None, "/", []),
        (["relayfile:fs:read:/a/**", "relayfile:fs:read:/b/pre*"], "/", []),
        (["relayfile:fs:read:/a/**", "relayfile:fs:read:/b/pre*"], "/a", ["/a/**"]),
        (["relayfile:fs:read:/a/**", "relayfile:fs:read:/a/pre*"], "/", ["/a/**"]),
        (["relayfile:fs:read:/a/**", "relayfile:fs:read:/ab*"], "/", []),
        (["relayfile:fs:read:/b/pre*"], "/b/prefix/d", ["/b/prefix/d/**"]),
        (["relayfile:fs:read:*"], "/b", ["/b/**"]),
        (["relayfile:fs:read:/*"], "/", ["/**"]),
        (["relayfile:fs:read:/a/*"], "/a", ["/a/**"]),
        (["relayfile:fs:read:/a/**", "relayfile:fs:read:/*/b", "relayfile:fs:read:/*/**"], "/", ["/a/**"]),
    ],
)
def test_filters_lie_inside_the_grants_and_below_the_root(scopes: object, root: str, filters: list[str]) -> None:
    assert claims.readable(token(scopes=scopes), RemotePath(root)) == filters


@pytest.mark.parametrize(
    ("scopes", "places"),
    [
        (None, None),
        (["fs:read"], ()),
        (["fs:read", "fs:write"], None),
        (["relayfile:fs:write"], None),
        (["fs:write", "relayfile:fs:write:*"], None),
        (["fs:write", "relayfile:fs:write:/a/**"], ("/a/**",)),
        (["relayfile:fs:write:/b", "relayfile:fs:manage:/a/**", "relayfile:fs:read:/c"], ("/a/**", "/b")),
    ],
)
def test_where_a_token_may_write(scopes: object, places: tuple[str, ...] | None) -> None:
    assert claims.Writing(token(scopes=scopes)).places == places


@pytest.mark.parametrize("odd", ["", "opaque", "a.b.c", "a.!!.c", "a.bm8.c", token(scopes=7, exp="soon")])
def test_a_token_that_says_nothing_is_no_error(odd: str) -> None:
    assert claims.readable(odd, RemotePath("/")) == []
    assert claims.expiry(odd) is None


def test_the_expiry() -> None:
    assert claims.expiry(token(exp=5)) == 5.0
    assert claims.expiry(token()) is None
