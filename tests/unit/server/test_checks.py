"""What stands before the routes: which requests exist, who may make them, in which order that is found out."""

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fsmount.server.bearers import Bearers
from fsmount.server.messages import Rejected
from tests.unit.server.conftest import Caller


def test_health_and_keys_need_no_token(call: Caller, plain_call: Caller) -> None:
    no_token = {"authorization": "", "x-correlation-id": ""}
    features = ["byte-size", "bulk-status", "raw"]
    assert call("GET", "/health", headers=no_token).json == {"status": "ok", "features": features}
    assert plain_call("GET", "/health", headers=no_token).json == {"status": "ok", "features": []}
    (key,) = call("GET", "/.well-known/jwks.json", headers=no_token).json["keys"]
    assert jwt.PyJWK(key).key_id == call.issuer.kid
    assert jwt.decode(call.token, jwt.PyJWK(key).key, algorithms=["RS256"], audience="relayfile")["wks"] == "local"


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("GET", "/"),
        ("GET", "/v1/workspaces/local/fs"),
        ("GET", "/v1/workspaces/local/fs/tree/"),
        ("GET", "/v1/workspaces//fs/tree"),
        ("PATCH", "raw"),
        ("POST", "file"),
        ("HEAD", "file"),
        ("GET", "bulk"),
        ("POST", "/health"),
        ("GET", "/v1/workspaces/local/forks"),
        ("GET", "/v1/workspaces/local/ops/"),
        ("GET", "/v1/workspaces/local/ops/op_1/replay"),
        ("POST", "/v1/workspaces/local/webhooks/ingest"),
    ],
)
def test_other_routes_are_unknown(call: Caller, method: str, route: str) -> None:
    reply = call(method, route, path="/a", headers={"authorization": ""})
    assert (reply.status, reply.json["code"], reply.json["correlationId"]) == (404, "not_found", "c1")


def test_the_token_is_looked_at_before_the_correlation_id(call: Caller) -> None:
    reply = call("GET", "tree", headers={"authorization": "", "x-correlation-id": ""})
    assert (reply.status, reply.json["code"], reply.json["correlationId"]) == (401, "unauthorized", "")


def test_a_missing_correlation_id_comes_before_the_query_and_the_body(call: Caller) -> None:
    reply = call("PUT", "file", headers={"x-correlation-id": ""}, oversized=True)
    assert (reply.status, reply.json["code"], reply.json["correlationId"]) == (400, "bad_request", "")
    assert "X-Correlation-Id" in reply.json["message"]


def test_the_query_comes_before_if_match_before_the_size_before_the_json(call: Caller) -> None:
    assert call("PUT", "file", oversized=True).json["message"] == "missing path"
    assert call("PUT", "file", path="/a", oversized=True).status == 412
    assert call("PUT", "file", path="/a", oversized=True, headers={"if-match": "*"}).status == 413
    assert call("PUT", "file", path="/a", body=b"{", headers={"if-match": "*"}).status == 400


def claims(call: Caller, **changed: Any) -> str:
    merged = {**call.issuer.default_claims("local"), **changed}
    return call.issuer.sign({name: value for name, value in merged.items() if value is not None})


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"exp": 1_000}, 401, "token expired"),
        ({"exp": None}, 401, "token has no exp claim"),
        ({"exp": "tomorrow"}, 401, "invalid jwt claims"),
        ({"exp": True}, 401, "invalid jwt claims"),
        ({"aud": "other"}, 401, "invalid aud claim"),
        ({"aud": None}, 401, "invalid aud claim"),
        ({"aud": "relayfile2"}, 401, "invalid aud claim"),
        ({"wks": None, "workspace_id": None}, 401, "token names no workspace"),
        ({"sub": None, "agent_name": None}, 401, "token names no subject"),
        ({"wks": "other"}, 403, "workspace mismatch"),
        ({"scopes": []}, 403, "no scopes granted"),
        ({"scopes": " "}, 403, "no scopes granted"),
        ({"scopes": ["fs:write"]}, 403, "missing required scope: fs:read"),
    ],
)
def test_a_claim_that_will_not_do(call: Caller, changed: dict[str, Any], status: int, message: str) -> None:
    reply = call("GET", "tree", headers={"authorization": f"Bearer {claims(call, **changed)}"})
    assert (reply.status, reply.json["message"]) == (status, message)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "relayfile"},
        {"aud": ["x", "relayfile"]},
        {"scopes": "fs:write fs:read"},
        {"wks": None},
        {"sub": None},
        {"nbf": 9_999_999_999, "iat": 9_999_999_999, "iss": "anyone"},
    ],
)
def test_a_claim_that_will_do(call: Caller, changed: dict[str, Any]) -> None:
    assert call("GET", "tree", headers={"authorization": f"Bearer {claims(call, **changed)}"}).status == 200


def test_reading_does_not_grant_writing(call: Caller) -> None:
    call.token = claims(call, scopes=["fs:read"])
    assert call.put("/a").json["message"] == "missing required scope: fs:write"
    assert call.bulk({"path": "/a", "content": ""}).status == 403
    assert call.get("/a").status == 404


def test_a_token_expires_without_leeway(call: Caller) -> None:
    now = time.time()
    bearers = Bearers(call.issuer, now=lambda: now)
    with pytest.raises(Rejected, match="token expired"):
        bearers.principal(claims(call, exp=now), "local")
    assert bearers.principal(claims(call, exp=now + 0.01), "local").subject == "local"


@pytest.mark.parametrize("prefix", ["relay_pa_", "relay_ws_", "relay_id_", "relay_ag_"])
def test_a_class_prefix_is_stripped(call: Caller, prefix: str) -> None:
    assert call("GET", "tree", headers={"authorization": f"Bearer {prefix}{call.token}"}).status == 200


def test_what_is_no_token_of_ours(call: Caller) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    payload, kid = call.issuer.default_claims("local"), {"kid": call.issuer.kid}
    body, other = call.token.rpartition(".")[0], claims(call, sub="other").rpartition(".")[2]
    tokens = {
        f"bearer {call.token}": "missing or malformed Authorization header: it must be 'Bearer TOKEN'",
        "Bearer nonsense": "token is not a JWS",
        "Bearer a.b.c": "token is not a JWS",
        "Bearer " + jwt.encode(payload, "k" * 40, algorithm="HS256", headers=kid): "unsupported jwt algorithm",
        "Bearer " + jwt.encode(payload, "", algorithm="none", headers=kid): "unsupported jwt algorithm",
        "Bearer " + jwt.encode(payload, stranger, algorithm="RS256"): "missing jwt kid",
        "Bearer " + jwt.encode(payload, stranger, algorithm="RS256", headers={"kid": "x"}): "unknown jwt kid",
        "Bearer " + jwt.encode(payload, stranger, algorithm="RS256", headers=kid): "jwt signature mismatch",
        f"Bearer {body}.{other}": "jwt signature mismatch",
    }
    for authorization, message in tokens.items():
        reply = call("GET", "tree", headers={"authorization": authorization})
        assert (reply.status, reply.json["message"]) == (401, message)
        assert "." not in message or call.token not in str(reply.json)


def test_another_workspace_is_made_by_its_first_write(call: Caller) -> None:
    call.put("/a")
    call.token = claims(call, wks="über den/Wolken")
    route = "/v1/workspaces/%C3%BCber%20den%2FWolken/fs/"
    assert call("GET", route + "tree").json["entries"] == []
    assert call("PUT", route + "file", path="/b", headers={"if-match": "0"}, body={"content": "x"}).status == 202
    assert [row["path"] for row in call("GET", route + "tree").json["entries"]] == ["/b"]
    assert [event["path"] for event in call("GET", route + "events").json["events"]] == ["/b"]
