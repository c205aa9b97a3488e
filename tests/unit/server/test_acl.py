"""Permission rules: how they are read, and that a page of a listing is what is visible of it."""

import base64
import time
from contextlib import closing

import pytest

from fsmount.server.acl import LONGEST_MARKER, Rule, Sight, rule, rules_of
from fsmount.server.bodies import INLINE
from fsmount.server.principal import Principal
from fsmount.server.store import Store
from tests.support.mount import until
from tests.unit.server.conftest import Caller

MARKED = "/d/.relayfile.acl"
KEEPS_OFF = b'{"semantics":{"permissions":["agent:bob"]}}'
ALICE = Principal(workspace="w", subject="alice", scopes=("fs:read",))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("public", Rule(deny=False)),
        (" allow: any ", Rule(deny=False)),
        ("deny:*", Rule(deny=True)),
        ("scope:fs:read", Rule(deny=False, kind="scope", name="fs:read")),
        ("deny:agent:x", Rule(deny=True, kind="agent", name="x")),
        ("workspace:w", Rule(deny=False, kind="workspace", name="w")),
        ("agent:", None),
        ("allow", None),
        ("deny:", None),
        ("owner:alice", None),
        ("allow:allow:public", None),
        ("", None),
    ],
)
def test_what_an_entry_is(text: str, read: Rule | None) -> None:
    assert rule(text) == read


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"semantics":null}', '{"semantics":{"permissions":[1]}}'])
def test_a_marker_that_says_nothing_has_no_rules(content: str) -> None:
    assert rules_of("/d/.relayfile.acl", None, content.encode()) == ()


def test_only_a_marker_speaks_by_its_content() -> None:
    content = b'{"semantics":{"permissions":["public","just a remark"]}}'
    assert rules_of("/d/.relayfile.acl", None, content) == ("public",)
    assert rules_of("/d/x.relayfile.acl", None, content) == ()


def test_rules_are_joined_from_the_root_down() -> None:
    sight = Sight(
        {
            "/.relayfile.acl": ("agent:bob",),
            "/hers/.relayfile.acl": ("agent:alice",),
            "/hers/but/.relayfile.acl": ("deny:public",),
            "/his/one": ("agent:alice",),
        },
        ALICE,
    )
    paths = ["/", "/x", "/hers/x", "/hers/deep/x", "/hers/but", "/hers/but/x", "/his/x", "/his/one"]
    assert [path for path in paths if sight.allows(path)] == ["/", "/hers/x", "/hers/deep/x", "/hers/but", "/his/one"]


def test_a_path_may_be_very_deep() -> None:
    sight = Sight({"/.relayfile.acl": ("agent:bob",)}, ALICE)
    assert not sight.allows("/a" * 20_000)


def test_pages_of_what_is_visible(call: Caller) -> None:
    """Two of three files of each directory are hidden, and every third directory is hidden whole."""
    expected = []
    for number in range(30):
        for name in "abc":
            path = f"/{number:02}/{name}"
            hidden = name != "b" or number % 3 == 0
            call.put(path, semantics={"permissions": ["agent:bob"]} if hidden else {})
            if not hidden:
                expected += [f"/{number:02}", path]
    listed, after = [], None
    sight = call.store.guards.sight("local", "/", ALICE)
    while rows := call.store.listings.tree("local", "/", depth=9, after=after, limit=7, sight=sight):
        listed += [row.path for row in rows]
        after = rows[-1].path
    assert listed == expected
    assert call.store.listings.total("local", "/", sight) == 20
    assert call.store.guards.sight("local", "/01", ALICE) is not None
    assert call.store.guards.sight("elsewhere", "/", ALICE) is None


def test_rules_follow_what_becomes_of_their_file(call: Caller) -> None:
    def forbidden(path: str) -> bool:
        return call.store.guards.forbids("local", path, ALICE)

    call.put("/a", semantics={"permissions": ["agent:bob", "agent:local"]})
    assert forbidden("/a")
    with call.store.transaction():
        call.store.rename("local", "/a", "/d/b", object_id="1", correlation_id="")
    assert (forbidden("/a"), forbidden("/d/b")) == (False, True)
    call.put("/d/b", semantics={"permissions": ["only a remark"]})
    assert not forbidden("/d/b")
    call.put("/d/.relayfile.acl", '{"semantics":{"permissions":["agent:local"]}}')
    assert forbidden("/d/b")
    call.put("/d/.relayfile.acl", "no longer")
    assert not forbidden("/d/b")


@pytest.mark.parametrize("how", ["file", "bulk", "raw"])
def test_a_marker_speaks_however_its_bytes_came(call: Caller, how: str) -> None:
    content = base64.b64encode(KEEPS_OFF).decode()
    match how:
        case "file":
            made = call.put(MARKED, content, encoding="base64")
        case "bulk":
            made = call.bulk({"path": MARKED, "content": content, "encoding": "base64"})
        case _:
            made = call.raw(MARKED, KEEPS_OFF.replace(b"[", b'["\x7f makes it base64",'))
    assert made.status == 202
    assert call.get("/d/f").status == 403
    call.store.close()
    with closing(Store(call.folder / "store.db", lambda: call.now)) as again:
        assert again.guards.forbids("local", "/d/f", ALICE)


def test_a_draft_that_gets_the_name_of_a_marker_speaks(call: Caller) -> None:
    call.put_bytes("/d/draft", KEEPS_OFF)
    with call.store.transaction():
        call.store.rename("local", "/d/draft", MARKED, object_id="1", correlation_id="")
    assert call.get("/d/f").status == 403


@pytest.mark.parametrize("content", [b"small", b"x" * (INLINE + 9)], ids=["row", "file"])
def test_rules_that_come_in_mid_upload_hold_for_it(call: Caller, content: bytes) -> None:
    answer = call.raw("/d/f", content, lambda: call.put_bytes(MARKED, KEEPS_OFF))
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert call.store.file("local", "/d/f") is None
    assert list((call.folder / "bodies").iterdir()) == []


def test_a_token_that_expires_in_mid_upload_writes_nothing(call: Caller) -> None:
    expires = time.time() + 0.5
    call.token = call.issuer.sign({**call.issuer.default_claims("local"), "exp": expires})
    assert (
        call.raw(
            "/f", b"x" * (INLINE + 9), lambda: until(lambda: time.time() >= expires, "the token has expired")
        ).status
        == 401
    )
    assert call.store.file("local", "/f") is None
    assert list((call.folder / "bodies").iterdir()) == []


def test_a_draft_too_long_for_a_marker_does_not_get_its_name(call: Caller) -> None:
    op = call.raw("/crm/draft", b" " * (LONGEST_MARKER + 1)).json["opId"]
    said = {"success": True, "externalId": "17", "canonicalPath": "/crm/.relayfile.acl"}
    answer = call("POST", f"/v1/workspaces/local/writeback/{op}/ack", body=said)
    assert (answer.status, answer.json["draft"]["action"]) == (200, "none")
    assert call.listed("/crm") == [("/crm/draft", "file")]


def test_a_marker_too_long_to_be_looked_at_is_refused_on_every_route(call: Caller) -> None:
    call.put("/d/f")
    filled = KEEPS_OFF + b" " * (LONGEST_MARKER + 1 - len(KEEPS_OFF))
    text = filled.decode()
    assert call.put(MARKED, text).status == 413
    assert call.put_bytes(MARKED, filled).status == 413
    assert call.raw(MARKED, filled).status == 413
    one, other = {"path": MARKED, "content": text}, {"path": "/d/other", "content": "x"}
    bulk = call.bulk(one, other).json
    assert [(error["code"], error["status"]) for error in bulk["errors"]] == [("payload_too_large", 413)]
    assert call.listed("/d") == [("/d/f", "file"), ("/d/other", "file")]
    assert list((call.folder / "bodies").iterdir()) == []
    assert call.raw("/d/large", filled).status == 202, "only markers are looked at"
