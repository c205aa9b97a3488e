"""The metrics hold to the text format 0.0.4, and say of the mount what the Snapshot says."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from fsmount.model import Reason
from fsmount.render.metrics import metrics
from fsmount.status import AtRest, Health, Snapshot, snapshot
from tests.support.facts import Mounted

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE = re.compile(rf"({_NAME})\{{({_LABEL}(?:,{_LABEL})*)\}} (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_PAIR = re.compile(r'([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"')
_UNQUOTED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Parsed = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path)


def parsed(text: str) -> Parsed:
    """Every sample by name and labels, ``mount`` left out; refuses what the format does not allow."""
    assert text.endswith("\n")
    samples: Parsed = {}
    ended: set[str] = set()
    family = ""
    lines = iter(text[:-1].split("\n"))
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert re.fullmatch(_NAME, family)
            assert family not in ended, f"{family} comes twice"
            ended.add(family)
            kind = next(lines)
            assert kind in (f"# TYPE {family} gauge", f"# TYPE {family} counter")
            assert family.endswith("_total") == kind.endswith("counter")
            continue
        found = _SAMPLE.fullmatch(line)
        assert found is not None, line
        assert found[1] == family, line
        labels = {
            name: re.sub(r"\\.", lambda match: _UNQUOTED[match[0]], value) for name, value in _PAIR.findall(found[2])
        }
        assert labels.pop("mount")
        key = (found[1].removeprefix("fsmount_"), frozenset(labels.items()))
        assert key not in samples, line
        samples[key] = float(found[3])
    return samples


def value(shown: Snapshot, name: str, **labels: str) -> float | None:
    return parsed(metrics(shown)).get((name, frozenset(labels.items())))


def test_the_queue_is_shown_by_state_and_the_dead_letters_by_reason(mounted: Mounted) -> None:
    mounted.dead("/a/x", reason=Reason.CONFLICT)
    mounted.save("/a/y")
    mounted.hold("/a/z")
    shown = snapshot(mounted)
    counts = {state: value(shown, "queue_ops", state=state) for state in ("pending", "held", "dead-letter", "sending")}
    assert counts == {"pending": 1, "held": 1, "dead-letter": 1, "sending": 0}
    assert value(shown, "dead_letters", reason="conflict") == 1
    assert value(shown, "dead_letters", reason="rejected") == 0
    assert value(shown, "queue_bytes") == 5
    assert value(shown, "failed_writebacks_total") == 1


def test_exactly_one_health_holds(mounted: Mounted) -> None:
    for wanted in (Health.OK, Health.PAUSED):
        mounted.pausing = wanted is Health.PAUSED
        shown = snapshot(mounted)
        found = {word: value(shown, "health", state=word) for word in Health}
        assert found == {word: float(word is wanted) for word in Health}
        assert value(shown, "uploads_paused") == float(mounted.pausing)


def test_cache_spool_traffic_and_times_are_there(mounted: Mounted) -> None:
    mounted.clock.advance(7)
    shown = snapshot(mounted)
    wanted = {
        "cache_bytes": 1536, "cache_limit_bytes": 10 << 30, "cache_hits_total": 5, "cache_misses_total": 2,
        "spool_bytes": 0, "spool_limit_bytes": 1 << 30, "requests_total": 3, "received_bytes_total": 10,
        "uptime_seconds": 7, "last_contact_timestamp_seconds": mounted.now() - 7,
    }  # fmt: skip
    assert {name: value(shown, name) for name in wanted} == wanted
    assert value(shown, "connection_state", state="online") == 1
    assert value(shown, "feed", feed="polling") == 1


def test_what_nobody_knows_is_left_out(mounted: Mounted) -> None:
    identity = replace(mounted.identity, pid=None, started_at=None, mountpoint=None)
    shown = snapshot(AtRest(identity, mounted.journal, mounted.clock))
    assert value(shown, "health", state="stopped") == 1
    for name in ("uptime_seconds", "cache_bytes", "spool_bytes", "last_contact_timestamp_seconds"):
        assert value(shown, name) is None


def test_a_name_breaks_no_line_and_comes_out_whole(mounted: Mounted) -> None:
    odd = 'a "b" \\ c\n# d'
    mounted.identity = replace(mounted.identity, mountpoint=odd + "\x1b[2J\udcff")
    text = metrics(snapshot(mounted))
    (labels,) = (dict(labels) for name, labels in parsed(text) if name == "info")
    assert labels["mountpoint"] == odd + "\\x1b[2J\\xff"
    text.encode("utf-8")
