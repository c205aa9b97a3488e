"""Sections 1, 4 and 5: who may ask, and for what."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import jwt
import pytest

from fsmount.server.tokens import Issuer, issuer
from tests.conformance.conftest import Launch
from tests.conformance.target import Target

Sign = Callable[..., str]
transport = pytest.mark.section(1)
scopes = pytest.mark.section(4)
rules = pytest.mark.section(5)


@transport
def test_health_needs_no_token(relay: Target) -> None:
    answer = relay.http.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@transport
def test_no_token_is_401(relay: Target) -> None:
    relay.refuses(relay.call("GET", "fs/tree", token=""), 401, "unauthorized")


@transport
def test_the_scheme_is_case_sensitive(relay: Target) -> None:
    answer = relay.call("GET", "fs/tree", headers={"Authorization": f"bearer {relay.token}"})
    relay.refuses(answer, 401, "unauthorized")


@transport
@pytest.mark.parametrize("token", ["nonsense", "a.b.c"])
def test_what_is_no_token_is_401(relay: Target, token: str) -> None:
    relay.refuses(relay.call("GET", "fs/tree", token=token), 401, "unauthorized")


@transport
def test_a_token_of_another_algorithm_or_key_is_401(relay: Target, tmp_path: Path) -> None:
    stranger = issuer(tmp_path)
    claims = stranger.default_claims(relay.workspace)
    symmetric = jwt.encode(claims, "k" * 40, algorithm="HS256", headers={"kid": "k"})
    for token in (symmetric, stranger.sign(claims)):
        relay.refuses(relay.call("GET", "fs/tree", token=token), 401, "unauthorized")


@transport
def test_a_missing_correlation_id_is_400(relay: Target) -> None:
    answer = relay.call("GET", "fs/tree", headers={"X-Correlation-Id": ""})
    assert relay.refuses(answer, 400, "bad_request")["correlationId"] == ""


@transport
def test_the_token_is_looked_at_before_the_correlation_id(relay: Target) -> None:
    answer = relay.call("GET", "fs/tree", token="", headers={"X-Correlation-Id": ""})
    relay.refuses(answer, 401, "unauthorized")


@transport
def test_the_correlation_id_is_looked_at_before_the_query(relay: Target) -> None:
    answer = relay.call("PUT", "fs/file", headers={"X-Correlation-Id": ""})
    relay.refuses(answer, 400, "bad_request")


@transport
def test_an_unknown_route_comes_before_the_token(relay: Target) -> None:
    relay.refuses(relay.call("GET", "fs/nothing", token=""), 404, "not_found")


@transport
def test_another_workspace_is_403(relay: Target) -> None:
    answer = relay.http.get(
        "/v1/workspaces/somebody-elses/fs/tree",
        headers={"Authorization": f"Bearer {relay.token}", "X-Correlation-Id": "c"},
    )
    relay.refuses(answer, 403, "forbidden")


@transport
@pytest.mark.parametrize("prefix", ["relay_pa_", "relay_ws_", "relay_id_", "relay_ag_"])
def test_a_class_prefix_is_stripped(relay: Target, prefix: str) -> None:
    assert relay.call("GET", "fs/tree", token=prefix + relay.token).status_code == 200


@transport
@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1_000},
        {"exp": None},
        {"aud": "other"},
        {"aud": None},
        {"wks": None, "workspace_id": None},
        {"sub": None, "agent_name": None},
    ],
)
def test_claims_that_are_401(relay: Target, signing: Sign, claims: dict[str, Any]) -> None:
    relay.refuses(relay.call("GET", "fs/tree", token=signing(**claims)), 401, "unauthorized")


@transport
@pytest.mark.parametrize("claims", [{"wks": "other"}, {"scopes": []}, {"scopes": ""}])
def test_claims_that_are_403(relay: Target, signing: Sign, claims: dict[str, Any]) -> None:
    relay.refuses(relay.call("GET", "fs/tree", token=signing(**claims)), 403, "forbidden")


@transport
@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "relayfile"},
        {"aud": ["x", "relayfile"]},
        {"scopes": "ops:read fs:read"},
        {"wks": None},
        {"sub": None},
        {"nbf": 9_999_999_999, "iat": 9_999_999_999, "iss": "anyone"},
    ],
)
def test_claims_that_will_do(relay: Target, signing: Sign, claims: dict[str, Any]) -> None:
    assert relay.call("GET", "fs/tree", token=signing(**claims)).status_code == 200


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[Issuer, str, ThreadingHTTPServer]]:
    """Another issuer, the URL of its keys, and what serves them."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    other = issuer(folder)

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(other.jwks)))
            self.end_headers()
            self.wfile.write(other.jwks)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as serving:
        thread = Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield other, f"http://127.0.0.1:{serving.server_address[1]}/jwks.json", serving
        serving.shutdown()
        thread.join()


@transport
def test_keys_come_from_a_jwks(launch: Launch, elsewhere: tuple[Issuer, str, ThreadingHTTPServer]) -> None:
    other, url, _ = elsewhere
    relay = launch(jwks=url)
    token = other.sign(other.default_claims(relay.workspace))
    assert relay.call("GET", "fs/tree", token=token).status_code == 200
    assert relay.call("GET", "fs/tree").status_code == 200


@transport
def test_keys_that_cannot_be_fetched_are_503(
    launch: Launch, elsewhere: tuple[Issuer, str, ThreadingHTTPServer]
) -> None:
    other, url, serving = elsewhere
    serving.server_close()
    relay = launch(jwks=url)
    token = other.sign(other.default_claims(relay.workspace))
    relay.refuses(relay.call("GET", "fs/tree", token=token), 503, "unavailable")
    assert relay.call("GET", "fs/tree").status_code == 200


@scopes
@pytest.mark.parametrize(
    ("method", "route", "scope"),
    [
        ("GET", "fs/tree", "fs:read"),
        ("GET", "fs/file?path=/x", "fs:read"),
        ("GET", "fs/query", "fs:read"),
        ("GET", "fs/events", "fs:read"),
        ("GET", "fs/export?path=/x", "fs:read"),
        ("PUT", "fs/file?path=/x", "fs:write"),
        ("DELETE", "fs/file?path=/x", "fs:write"),
        ("POST", "fs/bulk", "fs:write"),
        ("POST", "fs/merge?path=/x", "fs:write"),
        ("GET", "sync/status", "sync:read"),
        ("GET", "sync/ingress", "sync:read"),
        ("GET", "sync/dead-letter", "sync:read"),
        ("GET", "writeback/pending", "sync:read"),
        ("POST", "sync/refresh", "sync:trigger"),
        ("POST", "writeback/op_0/ack", "sync:trigger"),
        ("POST", "writeback/sweep-drafts", "sync:trigger"),
        ("GET", "ops", "ops:read"),
        ("GET", "ops/op_0", "ops:read"),
        ("POST", "ops/op_0/replay", "ops:replay"),
    ],
)
def test_each_route_needs_its_scope(relay: Target, signing: Sign, method: str, route: str, scope: str) -> None:
    every = ["fs:read", "fs:write", "sync:read", "sync:trigger", "ops:read", "ops:replay"]
    base = f"{relay.origin}/v1/workspaces/{relay.workspace}/{route}"
    for granted, refused in ((scope, False), (" ".join(set(every) - {scope}), True)):
        headers = {"Authorization": f"Bearer {signing(scopes=granted)}", "X-Correlation-Id": "c"}
        answer = relay.http.request(method, base, headers=headers)
        assert (answer.status_code == 403) is refused, answer.text


def _reads(relay: Target, signing: Sign, grants: list[str], path: str) -> bool:
    status = relay.get(path, token=signing(scopes=grants)).status_code
    assert status in {403, 404}
    return status == 404


@scopes
@pytest.mark.parametrize(
    ("grant", "inside", "outside"),
    [
        ("relayfile:fs:read", ["/a", "/b/c"], []),
        ("*:fs:read", ["/a"], []),
        ("relayfile:fs:manage", ["/a"], []),
        ("relayfile:*:*", ["/a"], []),
        ("relayfile:fs:write", [], ["/a"]),
        ("relayfile:sync:read", [], ["/a"]),
        ("other:fs:read", [], ["/a"]),
        ("relayfile:fs:read:*", ["/a/b"], []),
        ("relayfile:fs:read:/a/b", ["/a/b"], ["/a", "/a/b/c", "/a/bc"]),
        ("relayfile:fs:read:/a/**", ["/a", "/a/b", "/a/b/c"], ["/", "/ab", "/b"]),
        ("relayfile:fs:read:/a/*", ["/a/b", "/a/b/c"], ["/a", "/ab"]),
        ("relayfile:fs:read:/a*", ["/a", "/ab", "/a/b"], ["/b"]),
        ("relayfile:fs:read:/a/*/c", [], ["/a/b/c", "/a/*/c"]),
        ("relayfile:fs:read:/", ["/"], ["/a"]),
        ("workspace:mine:read:/a/**", ["/a/b"], ["/b"]),
        ("workspace:mine:manage", ["/a/b"], []),
        ("workspace:mine:write", [], ["/a"]),
    ],
)
def test_the_grammar_of_grants(relay: Target, signing: Sign, grant: str, inside: list[str], outside: list[str]) -> None:
    assert [path for path in inside if not _reads(relay, signing, [grant], path)] == []
    assert [path for path in outside if _reads(relay, signing, [grant], path)] == []


@scopes
def test_a_narrow_grant_suppresses_the_literal(relay: Target, signing: Sign) -> None:
    grants = ["fs:read", "relayfile:fs:read:/github/**"]
    assert _reads(relay, signing, grants, "/github/a")
    assert not _reads(relay, signing, grants, "/linear/a")
    assert _reads(relay, signing, ["fs:read", "relayfile:fs:write:/github/**"], "/linear/a")
    assert _reads(relay, signing, [*grants, "relayfile:fs:read"], "/linear/a")


@scopes
def test_a_listing_is_judged_by_its_path_and_the_feed_by_the_root(relay: Target, signing: Sign) -> None:
    token = signing(scopes=["relayfile:fs:read:/a/**"])
    assert relay.call("GET", "fs/tree", path="/a", token=token).status_code == 200
    assert relay.call("GET", "fs/tree", path="a/", token=token).status_code == 200
    relay.refuses(relay.call("GET", "fs/tree", token=token), 403, "forbidden")
    relay.refuses(relay.call("GET", "fs/events", path="/a", token=token), 403, "forbidden")


@scopes
def test_a_file_is_judged_by_the_path_as_it_was_sent(relay: Target, signing: Sign) -> None:
    token = signing(scopes=["relayfile:fs:read:/a/**"])
    assert relay.get("/a/b", token=token).status_code == 404
    relay.refuses(relay.get("a/b", token=token), 403, "forbidden")


@scopes
def test_a_bulk_is_judged_file_by_file(relay: Target, signing: Sign) -> None:
    token = signing(scopes=["fs:write", f"relayfile:fs:write:{relay.place}/in/**"])
    files = [{"path": relay.at(name), "content": "x"} for name in ("in/a", "out/b")]
    body = relay.bulk(*files, token=token).json()
    assert [(error["path"], error["code"]) for error in body["errors"]] == [(relay.at("out/b"), "forbidden")]
    assert [result["path"] for result in body["results"]] == [relay.at("in/a")]
    assert relay.get(relay.at("out/b")).status_code == 404


@scopes
def test_a_bulk_needs_more_than_the_workspace_plane(relay: Target, signing: Sign) -> None:
    token = signing(scopes=[f"workspace:mine:write:{relay.place}/**"])
    relay.refuses(relay.bulk({"path": relay.at("a"), "content": "x"}, token=token), 403, "forbidden")
    assert relay.put(relay.at("a"), token=token).status_code == 202


@rules
@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        ([], True),
        (["owner of this file: nobody"], True),
        (["public"], True),
        (["allow:any"], True),
        (["deny:*"], False),
        (["scope:fs:read"], True),
        (["scope:fs"], False),
        (["agent:alice"], True),
        (["allow:agent:bob"], False),
        (["deny:agent:bob"], False),
        (["agent:bob", "agent:alice"], True),
        (["public", "deny:agent:alice"], False),
        (["workspace:somebody-elses"], False),
        (["workspace:{}"], True),
    ],
)
def test_rules_of_a_file(relay: Target, signing: Sign, permissions: list[str], *, allowed: bool) -> None:
    alice = signing(sub="alice")
    kept = [text.format(relay.workspace) for text in permissions]
    relay.written(relay.at("a"), semantics={"permissions": kept})
    relay.written(relay.at("b"))
    if allowed:
        assert relay.get(relay.at("a"), token=alice).status_code == 200
        assert relay.put(relay.at("a"), token=alice).status_code == 202
    else:
        relay.refuses(relay.get(relay.at("a"), token=alice), 403, "forbidden")
        relay.refuses(relay.put(relay.at("a"), token=alice), 403, "forbidden")
        relay.refuses(relay.delete(relay.at("a"), token=alice), 403, "forbidden")
    assert relay.listed(token=alice) == (["f a", "f b"] if allowed else ["f b"])


MARKERS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "semantics": lambda found: {"content": "{}", "semantics": {"permissions": found}},
    "content": lambda found: {"content": json.dumps({"semantics": {"permissions": found}})},
}


@rules
@pytest.mark.parametrize("where", MARKERS)
def test_a_marker_governs_all_below_it(relay: Target, signing: Sign, where: str) -> None:
    alice = signing(sub="alice")
    for name in ("open/a", "shut/b", "shut/deep/c"):
        relay.written(relay.at(name))
    relay.written(relay.at("shut/.relayfile.acl"), **MARKERS[where](["deny:agent:alice", "public"]))
    for name in ("shut/b", "shut/deep/c", "shut/.relayfile.acl"):
        relay.refuses(relay.get(relay.at(name), token=alice), 403, "forbidden")
    relay.refuses(relay.put(relay.at("shut/new"), token=alice), 403, "forbidden")
    body = relay.bulk({"path": relay.at("shut/new"), "content": ""}, token=alice).json()
    assert [error["code"] for error in body["errors"]] == ["forbidden"]
    assert relay.get(relay.at("open/a"), token=alice).status_code == 200
    assert relay.get(relay.at("shut/b")).status_code == 200


@rules
def test_what_is_not_visible_is_listed_nowhere(relay: Target, signing: Sign) -> None:
    alice = signing(sub="alice")
    for name in ("mixed/hers", "mixed/his", "shut/b"):
        relay.written(relay.at(name))
    relay.written(relay.at("mixed/his"), semantics={"permissions": ["agent:bob"]})
    relay.written(relay.at("shut/.relayfile.acl"), "{}", semantics={"permissions": ["agent:bob"]})
    assert relay.listed(token=alice, depth=9) == ["d mixed", "f mixed/hers"]
    answer = relay.call("GET", "fs/tree", path=relay.place, token=alice).json()
    assert answer["totalFiles"] == 1
    found = relay.call("GET", "fs/query", path=relay.place, token=alice).json()["items"]
    exported = relay.call("GET", "fs/export", path=relay.place, token=alice).json()
    assert [row["path"] for row in found] == [row["path"] for row in exported] == [relay.at("mixed/hers")]


@rules
def test_events_tell_of_everything(relay: Target, signing: Sign) -> None:
    head = relay.head()
    relay.written(relay.at("a"), semantics={"permissions": ["agent:bob"]})
    answer = relay.call("GET", "fs/events", cursor=head, token=signing(sub="alice"))
    assert relay.at("a") in [event["path"] for event in answer.json()["events"]]


@rules
def test_rules_go_with_their_file(relay: Target, signing: Sign) -> None:
    alice = signing(sub="alice")
    relay.written(relay.at("d/a"))
    relay.written(relay.at("d/.relayfile.acl"), "{}", semantics={"permissions": ["agent:bob"]})
    assert relay.get(relay.at("d/a"), token=alice).status_code == 403
    bob = signing(sub="bob")
    assert relay.delete(relay.at("d/.relayfile.acl"), token=bob).status_code == 202
    assert relay.get(relay.at("d/a"), token=alice).status_code == 200


@transport
def test_expiry_has_no_leeway(relay: Target, signing: Sign) -> None:
    assert relay.call("GET", "fs/tree", token=signing(exp=time.time() + 60)).status_code == 200
    relay.refuses(relay.call("GET", "fs/tree", token=signing(exp=time.time() - 0.01)), 401, "unauthorized")


@transport
def test_an_answer_is_json(relay: Target) -> None:
    answer: httpx.Response = relay.call("GET", "fs/tree", path=relay.place)
    assert answer.headers["content-type"].split(";")[0] == "application/json"
