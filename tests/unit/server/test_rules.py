"""The language of the rules, and which rule speaks when."""

import os
from pathlib import Path

import pytest

from fsmount.server.rules import BadRule, Ending, Manner, Rule, Rules, parse, pattern
from tests.unit.server.conftest import Caller


def manner(actions: str) -> Manner:
    rule = parse(f"PUT /a {actions}", 1)
    assert rule is not None
    return rule.manner


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ("422", Manner(status=422)),
        (
            '422 {"code":"a # b", "n": [1, 2]} delay=1s',
            Manner(status=422, body=b'{"code":"a # b", "n": [1, 2]}', delay=1),
        ),
        ('422 {"code":"x"}# why', Manner(status=422, body=b'{"code":"x"}')),
        ("503 retry-after=10 # why", Manner(status=503, retry_after=10)),
        ("retry-after=0", Manner(retry_after=0)),
        ("delay=2s", Manner(delay=2)),
        ("delay=0.5", Manner(delay=0.5)),
        ("delay=250ms hang", Manner(delay=0.25, ending=Ending.HANG)),
        ("refuse", Manner(ending=Ending.REFUSE)),
        ("drop", Manner(ending=Ending.DROP)),
        ("truncate", Manner(truncate=True)),
        ("slow=100/s", Manner(rate=100)),
        ("slow=100", Manner(rate=100)),
        ("200 []", Manner(status=200, body=b"[]")),
    ],
)
def test_actions(actions: str, expected: Manner) -> None:
    assert manner(actions) == expected


@pytest.mark.parametrize("line", ["", "   ", "# PUT /a 422", "   # x", "\t"])
def test_lines_without_a_rule(line: str) -> None:
    assert parse(line, 1) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("PUT", "a rule is METHOD GLOB ACTION"),
        ("PUT /a", "a rule is METHOD GLOB ACTION"),
        ("PUT /a # 422", "a rule is METHOD GLOB ACTION"),
        ("put /a 422", "'put' is none of"),
        ("POST /a 422", "'POST' is none of"),
        ("PUT a 422", "a glob starts with /"),
        ("PUT * 422", "a glob starts with /"),
        ("PUT /a 99", "not a status"),
        ("PUT /a 600", "not a status"),
        ("PUT /a 422 {oops", "the body is not JSON"),
        ('PUT /a {"code":"x"} 422', "a body follows its status"),
        ("PUT /a explode", "unknown action 'explode'"),
        ("PUT /a times=3", "there is no action"),
        ("PUT /a 422 times=0", "whole number, 1 or more"),
        ("PUT /a 422 times=x", "whole number"),
        ("PUT /a slow=0", "whole number, 1 or more"),
        ("PUT /a retry-after=soon", "whole number, 0 or more"),
        ("PUT /a delay=2h", "is no time"),
        ("PUT /a delay", "unknown action"),
        ("PUT /a 422 423", "says status twice"),
        ("PUT /a hang drop", "says ending twice"),
        ("PUT /a 422 drop", "cannot stand beside"),
    ],
)
def test_lines_that_are_no_rule(line: str, why: str) -> None:
    with pytest.raises(BadRule, match=why):
        parse(line, 1)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("/a", ["/a"], ["/a/b", "/ab", "/"]),
        ("/a/*", ["/a/b", "/a/"], ["/a", "/a/b/c"]),
        ("/a/**", ["/a", "/a/b", "/a/b/c"], ["/ab", "/"]),
        ("/**", ["/", "/a", "/a/b"], []),
        ("**", ["/", "/a", "/a/b"], []),
        ("/a/**/z", ["/a/z", "/a/b/z", "/a/b/c/z"], ["/az", "/a/bz", "/a/z/b"]),
        ("**/*.json", ["/a.json", "/b/a.json"], ["/a.jsonx"]),
        ("/a?c.[x]", ["/abc.[x]"], ["/a/c.[x]", "/abc.x"]),
        ("/*a*", ["/a", "/xax"], ["/x/a"]),
        ("/new*line", ["/new\nline"], []),
        ("/É", ["/É"], ["/é", "/E\u0301"]),
    ],
)
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes + no if pattern(glob).fullmatch(path)] == yes


def rules(folder: Path, text: str) -> Rules:
    (folder / "rules").write_text(text)
    return Rules(folder / "rules", pytest.fail)


def test_the_first_that_matches_wins(tmp_path: Path) -> None:
    found = rules(tmp_path, "GET /a/b 401\n* /a/** 402\nPUT /a/b 403")
    assert [found.manner(method, "/a/b").status for method in ("GET", "PUT", "LIST")] == [401, 402, 402]
    assert found.manner("GET", "/b") == Manner()


def test_times_are_counted_by_rule(tmp_path: Path) -> None:
    found = rules(tmp_path, "GET /** 401 times=2\n* /a 402 times=1\n* /** 403")
    assert [found.manner("GET", "/a").status for _ in range(5)] == [401, 401, 402, 403, 403]


def test_the_file_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    said: list[str] = []
    found = Rules(path, said.append)

    def status() -> int | None:
        found.refresh()
        return found.manner("GET", "/a").status

    assert status() is None
    path.write_text("GET /a 401 times=1")
    assert [status(), status()] == [401, None]
    os.utime(path, ns=(1, 1))
    assert [status(), status()] == [401, None]
    path.write_text("GET /a 402\nnonsense\n\n GET /a")
    assert [status(), status()] == [402, 402]
    assert said == [
        f"rule in {path}, line 2, skipped: a rule is METHOD GLOB ACTION... [times=N]",
        f"rule in {path}, line 4, skipped: a rule is METHOD GLOB ACTION... [times=N]",
    ]
    path.unlink()
    assert status() is None


def test_a_file_that_cannot_be_read_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    found = Rules(tmp_path, said.append)
    found.refresh()
    found.refresh()
    assert len(said) == 1
    assert "cannot read the rules" in said[0]


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "rules").write_bytes(b"\xff\xfe\x00\nGET /a 401\r\n")
    said: list[str] = []
    assert Rules(tmp_path / "rules", said.append).manner("GET", "/a").status == 401
    assert len(said) == 1


def test_a_bulk_is_a_put_of_each_file(tmp_path: Path) -> None:
    found = rules(tmp_path, "GET /g 401\nPUT /no 422 delay=1s\nPUT /slow/** delay=2s truncate times=1\n* /** slow=9")
    bulk = found.bulk_manner(["/g", "/slow/1", "/no", "/slow/2"])
    assert bulk.refused == {2: Manner(status=422, delay=1)}
    assert bulk.whole == Manner(rate=9, delay=2, truncate=True)
    assert found.bulk_manner(["/slow/1"]).whole == Manner(rate=9), "the rule was in force for one request"


@pytest.mark.parametrize("action", ["hang", "refuse", "500"])
def test_what_leaves_nothing_to_do_uses_up_nothing_else(tmp_path: Path, action: str) -> None:
    found = rules(tmp_path, f"PUT /no 422 times=1\nPUT /end {action} times=1")
    assert found.bulk_manner(["/no", "/end", "/end"]).refused == {}
    bulk = found.bulk_manner(["/no", "/end"])
    assert (bulk.whole, list(bulk.refused)) == (Manner(), [0])


def test_a_drop_is_done_first(tmp_path: Path) -> None:
    bulk = rules(tmp_path, "PUT /no 422\nPUT /lost drop").bulk_manner(["/no", "/lost"])
    assert (bulk.whole.ending, list(bulk.refused)) == (Ending.DROP, [0])


def test_a_rule_takes_the_place_of_the_route(call: Caller) -> None:
    call.put("/a", "before")
    call.rules_file.write_text(
        'PUT /a 422 {"code":"mine"}\nDELETE /a 503\nGET /a 200\nLIST / 500\nEVENTS / 429 retry-after=4'
    )
    assert (call.put("/a", "after").json, call.put("/a", "after").status) == ({"code": "mine"}, 422)
    assert (call.delete("/a").status, call.get("/a").json) == (503, {})
    assert call("GET", "tree").json["correlationId"] == "c1"
    reply = call("GET", "events")
    assert (reply.json["code"], reply.headers["Retry-After"]) == ("rate_limited", "4")
    call.rules_file.unlink()
    assert call.get("/a").json["content"] == "before"


def test_a_rule_sees_the_normal_path_and_only_checked_requests(call: Caller) -> None:
    call.rules_file.write_text("PUT /a 422 times=1\n")
    assert call("PUT", "file", path="/a", headers={"authorization": ""}).status == 401
    assert call("PUT", "file", path="/a", headers={"x-correlation-id": ""}).status == 400
    assert call.put("a/").status == 422
    assert call.put("/a").status == 202


def test_rules_are_compared_whole() -> None:
    assert parse("* /a drop times=2", 7) == Rule(
        line=7, method="*", pattern=pattern("/a"), manner=Manner(ending=Ending.DROP), times=2
    )
