"""The grammar of grants, as functions; what each route asks of them is in tests/conformance."""

import pytest

from fsmount.server.scopes import permits, permits_all, permits_somewhere


@pytest.mark.parametrize(
    ("grant", "covered", "beyond"),
    [
        ("relayfile:fs:read:/**", ["/", "/a", "/a/b"], []),
        ("relayfile:fs:read:/*", ["/a", "/a/b"], ["/"]),
        ("relayfile:fs:read:/a/**", ["/a", "/a/b"], ["/", "/ab", "a/b"]),
        ("relayfile:fs:read:/a/*", ["/a/b", "/a/b/c"], ["/a", "/a/", "/ab"]),
        ("relayfile:fs:read:/a:b/**", ["/a:b/c"], ["/a"]),
        ("relayfile:fs:read:/a/**/b", [], ["/a/x/b", "/a/**/b"]),
        ("relayfile:fs:read:**", [], ["/a"]),
        ("relayfile:fs:read:", [], ["/a", "/"]),
        ("relayfile:fs", [], ["/a"]),
        ("workspace:x:read", ["/a"], []),
        ("workspace:x:*:/a", ["/a"], ["/b"]),
        ("fs:*", [], ["/a"]),
        ("fs:manage", [], ["/a"]),
    ],
)
def test_where_a_grant_reaches(grant: str, covered: list[str], beyond: list[str]) -> None:
    assert [path for path in covered if not permits([grant], "fs:read", path)] == []
    assert [path for path in beyond if permits([grant], "fs:read", path)] == []


@pytest.mark.parametrize(
    ("grants", "needed", "granted"),
    [
        (["sync:trigger"], "sync:trigger", True),
        (["relayfile:sync:trigger"], "sync:trigger", True),
        (["relayfile:sync:manage"], "sync:read", True),
        (["relayfile:sync:manage"], "sync:trigger", False),
        (["*:*:*:/only/here"], "ops:read", True),
        (["workspace:x:read"], "fs:read", False),
        (["fs:write", "relayfile:fs:write:/a/**"], "fs:write", True),
    ],
)
def test_a_route_without_a_path(grants: list[str], needed: str, *, granted: bool) -> None:
    assert permits_somewhere(grants, needed) is granted


def test_a_feed_needs_every_filter_or_the_root() -> None:
    grants = ["fs:read", "relayfile:fs:read:/a/**", "relayfile:fs:read:/b"]
    assert permits_all(grants, "fs:read", ["/a/x", "/a/**", "/b"])
    assert not permits_all(grants, "fs:read", ["/a/x", "/c"])
    assert not permits_all(grants, "fs:read", [])
    assert permits_all(["fs:read"], "fs:read", [])
