"""The stream for programs: one JSON object a line, numbers that only grow, and readers that are woken."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fsmount.errors import MachineLacks
from fsmount.eventlog import EVENTS, FileEventLog
from fsmount.model import OpId, OpKind, Reason, RemotePath, Revision
from fsmount.ports import Details
from tests.support.clock import ManualClock

MEMBERS = [
    "seq", "at", "event", "opId", "path", "mountPath", "kind", "reason", "status", "attempt", "revision", "state",
]  # fmt: skip
MOUNTED = Details(state="mounted")


def opened(folder: Path, **more: Any) -> FileEventLog:
    return FileEventLog(folder / "log", ManualClock(), **more)


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events").read_bytes().splitlines()]


def numbers(folder: Path) -> list[int]:
    return [event["seq"] for event in written(folder)]


def test_an_event_has_its_members_in_order(tmp_path: Path) -> None:
    details = Details(
        kind=OpKind.PUT, reason=Reason.REJECTED, status=422, attempt=3, revision=Revision("rev_1"), state="dead-letter"
    )
    log = opened(tmp_path, root=RemotePath("/github"))
    log.note("op.dead", "422: no", op=OpId("op_1"), path=RemotePath("/github/a b"), level="warning", details=details)
    (event,) = written(tmp_path)
    assert list(event) == MEMBERS
    assert list(event.values()) == [
        1, "2023-11-14T22:13:20.000Z", "op.dead", "op_1", "/github/a b", "a b", "put", "rejected", 422, 3, "rev_1",
        "dead-letter",
    ]  # fmt: skip


def test_what_does_not_apply_is_left_out(tmp_path: Path) -> None:
    opened(tmp_path).note("connection", "online", details=Details(state="online"))
    assert list(written(tmp_path)[0]) == ["seq", "at", "event", "state"]


def test_the_events_are_those_of_the_documentation_and_no_other(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for event in (*sorted(EVENTS), "request.refused", "verb.refused", "op.purged"):
        log.note(event, path=RemotePath("/a"))
    assert [event["event"] for event in written(tmp_path)] == sorted(EVENTS)
    assert len((tmp_path / "log").read_text().splitlines()) == 16


def test_an_event_is_there_whatever_the_level(tmp_path: Path) -> None:
    opened(tmp_path).note("op.sending", op=OpId("op_1"), level="debug")
    assert numbers(tmp_path) == [1]
    assert (tmp_path / "log").read_text() == ""


def test_what_names_nothing_is_for_people_only(tmp_path: Path) -> None:
    opened(tmp_path).note("connection", "no change feed")
    assert numbers(tmp_path) == []
    assert "no change feed" in (tmp_path / "log").read_text()


def test_any_name_makes_a_line_that_parsers_take(tmp_path: Path) -> None:
    odd = b'/a\xff\n\x1b"\\ \xe2\x80\xa8\xc2\x9b'.decode("utf-8", "surrogateescape")
    opened(tmp_path).note("op.dead", path=RemotePath(odd))
    raw = (tmp_path / "events").read_bytes()
    assert raw.count(b"\n") == 1
    assert not [byte for byte in raw[:-1] if byte < 32]
    raw.decode("utf-8")
    assert written(tmp_path)[0]["path"] == odd.replace("\udcff", "\\xff")


def test_the_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(3):
        log = opened(tmp_path)
        log.note("mount", details=MOUNTED)
        log.note("mount", details=MOUNTED)
        log.close()
    assert numbers(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_line_that_a_crash_cut_off_goes_and_its_number_is_not_given_again(tmp_path: Path) -> None:
    opened(tmp_path).note("mount", details=MOUNTED)
    with (tmp_path / "events").open("ab") as file:
        file.write(b'{"seq":2,"at":"20')
    opened(tmp_path).note("mount", details=MOUNTED)
    assert numbers(tmp_path) == [1, 3]


def test_damaged_lines_do_not_make_the_numbers_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(b'{"seq":41}\nnonsense\n[]\n{"seq":"7"}\n')
    opened(tmp_path).note("mount", details=MOUNTED)
    assert json.loads((tmp_path / "events").read_bytes().splitlines()[-1])["seq"] == 42


def test_past_its_limit_a_new_file_goes_on_with_the_numbers(tmp_path: Path) -> None:
    log = opened(tmp_path, limit=4000)
    reader = log.events.open()
    for _ in range(100):
        log.note("mount", details=MOUNTED)
    assert log.events.current.generation > reader.generation
    found = numbers(tmp_path)
    assert found == list(range(found[0], 101))
    assert found[0] > 1
    assert (tmp_path / "events").stat().st_size <= 4000
    assert json.loads(reader.read(0, 4000).splitlines()[0])["seq"] == 1
    log.close()
    opened(tmp_path, limit=4000).note("mount", details=MOUNTED)
    assert numbers(tmp_path)[-1] == 101


def test_whoever_watches_is_called_once_the_line_can_be_read(tmp_path: Path) -> None:
    log = opened(tmp_path)
    seen: list[tuple[str, int]] = []
    log.watch(lambda: seen.append(("log", log.current.size)))
    log.events.watch(lambda: seen.append(("events", log.events.current.size)))
    log.note("mount", details=MOUNTED)
    assert seen == [("events", log.events.current.size), ("log", log.current.size)]
    log.note("op.queued", path=RemotePath("/a"), level="debug")
    log.note("traceback")
    assert [which for which, _ in seen[2:]] == ["events", "log"]


def test_a_full_disk_costs_the_line_and_leaves_every_other_whole(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    log = opened(tmp_path)
    log.note("mount", details=MOUNTED)
    former, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "events").stat().st_size + 20, limits[1]))
        log.note("mount", details=MOUNTED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    log.note("mount", details=MOUNTED)
    assert numbers(tmp_path) == [1, 3]


def test_the_events_may_stand_elsewhere_than_the_log(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    opened(tmp_path, events=tmp_path / "state" / "events").note("mount", details=MOUNTED)
    assert sorted(os.listdir(tmp_path)) == ["log", "state"]
    assert len(written(tmp_path / "state")) == 1
    assert (tmp_path / "state" / "events").stat().st_mode & 0o777 == 0o600


def test_events_that_cannot_be_written_are_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    with pytest.raises(MachineLacks, match="events") as raised:
        opened(tmp_path)
    assert "--state-dir" in str(raised.value.hint)


def test_lines_of_many_threads_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    log = opened(tmp_path)

    def chatter() -> None:
        for _ in range(200):
            log.note("mount", details=MOUNTED)

    threads = [threading.Thread(target=chatter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(tmp_path) == list(range(1, 801))
