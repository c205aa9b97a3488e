"""What the provider behind the remote fails with after the remote accepted it."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fsmount.app.providers import LOOK_EVERY, Providers
from fsmount.errors import Refusal, Unreachable, VerbRefused
from fsmount.journal import delivered as delivered_ops
from fsmount.model import (
    ABSENT,
    Change,
    Feed,
    OpKind,
    ProviderFailed,
    ProviderResults,
    Reason,
    Record,
    RemotePath,
    Revision,
    State,
    Told,
)
from tests.support.uploading import UploadRig

NOTE = "/github/a.json"


class ProviderRig(UploadRig):
    """An uploader whose remote has providers behind it, and who follows them."""

    def open(self) -> None:
        super().open()
        self.providers = Providers(self.remote, self.connection, self.journal, self.clock, self.log)
        self.connection.feed = Feed.POLLING

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().run)
            nursery.start_soon(self.providers.run)
            nursery.start_soon(self._follow)

    async def _follow(self) -> None:
        await self.remote.follow(self._told, lambda _: None)

    def _told(self, word: Told | None) -> None:
        if word is None:
            self.providers.missed()
        elif not isinstance(word, Change):
            self.providers.told(word)

    async def delivered(self, path: str = NOTE, content: bytes = b"1") -> str:
        """The remote's name for a save that it has accepted."""
        self.save(path, content)
        await self.settled()
        return list(self.remote.operations)[-1]

    async def failed(self, path: str = NOTE) -> tuple[str, Record]:
        remote_op = await self.delivered(path)
        self.remote.provider_fails(remote_op)
        await wait_all_tasks_blocked(0.005)
        return remote_op, self.the_dead()


@pytest.fixture
async def rig(tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery) -> AsyncIterator[ProviderRig]:
    made = ProviderRig(tmp_path)
    nursery.start_soon(made.run)
    yield made
    made.journal.close()


async def at_rest() -> None:
    await wait_all_tasks_blocked(0.005)


# what becomes a dead letter


async def test_a_failure_makes_a_dead_letter_of_the_accepted_op(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op = await rig.delivered()
    accepted = rig.overlay.acks[-1][0].op_id
    rig.remote.provider_fails(remote_op, "no such issue")
    await at_rest()
    dead = rig.the_dead()
    assert (dead.op.op_id, dead.reason, dead.remote_op_id) == (accepted, Reason.PROVIDER_FAILED, remote_op)
    assert "github failed with it: no such issue" in dead.message
    assert (dead.attempts, dead.history[-1].status) == (1, 202)
    assert dead.history[-1].body == '{"lastError":"no such issue"}'
    assert (rig.journal.totals().failed_writebacks, rig.journal.totals().failed_attempts) == (1, 0)
    assert any(note.event == "op.dead" and "provider-failed" in note.message for note in rig.log.all)


async def test_its_path_stays_clean(autojump_clock: MockClock, rig: ProviderRig) -> None:
    await rig.failed()
    assert rig.journal.shown(RemotePath(NOTE)) is None
    assert rig.journal.inherited(RemotePath(NOTE)) is None
    assert rig.journal.bodies() == ([], [])


async def test_a_delete_that_the_provider_refuses_is_one_too(autojump_clock: MockClock, rig: ProviderRig) -> None:
    await rig.delivered()
    rig.delete(NOTE)
    await rig.settled()
    rig.remote.provider_fails(list(rig.remote.operations)[-1])
    await at_rest()
    assert (rig.the_dead().op.kind, rig.the_dead().reason) == (OpKind.DELETE, Reason.PROVIDER_FAILED)


@pytest.mark.parametrize(("half", "kind", "path"), [(-2, OpKind.PUT, "/github/b"), (-1, OpKind.DELETE, "/github/a")])
async def test_either_half_of_a_move_may_fail(
    autojump_clock: MockClock, rig: ProviderRig, half: int, kind: OpKind, path: str
) -> None:
    await rig.delivered("/github/a")
    rig.rename("/github/a", "/github/b")
    await rig.settled()
    rig.remote.provider_fails(list(rig.remote.operations)[half])
    await at_rest()
    assert (rig.the_dead().op.kind, rig.the_dead().op.path) == (kind, path)


async def test_somebody_elses_failure_is_not_ours(autojump_clock: MockClock, rig: ProviderRig) -> None:
    await rig.delivered()
    rig.providers.told(ProviderFailed(path=RemotePath(NOTE), revision=Revision("rev_99")))
    rig.providers.told(ProviderFailed(path=RemotePath("/github/theirs"), revision=Revision("rev_1")))
    await at_rest()
    assert rig.dead() == []
    assert [note.level for note in rig.log.all if note.event == "provider"] == ["debug", "debug"]


async def test_what_is_overwritten_is_no_failure_any_more(autojump_clock: MockClock, rig: ProviderRig) -> None:
    first = await rig.delivered(content=b"1")
    await rig.delivered(content=b"2")
    rig.remote.provider_fails(first)
    await at_rest()
    assert rig.dead() == []


async def test_one_failure_told_twice_is_one_dead_letter(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op, _ = await rig.failed()
    rig.remote.provider_fails(remote_op)
    await at_rest()
    assert rig.the_dead().attempts == 1


async def test_what_the_remote_does_not_call_failed_any_more_is_not(
    autojump_clock: MockClock, rig: ProviderRig
) -> None:
    remote_op = await rig.delivered()
    rig.remote.provider_fails(remote_op, told=False)
    await rig.remote.replay(remote_op)
    rig.providers.told(ProviderFailed(path=RemotePath(NOTE), revision=rig.remote.base(NOTE).revision))
    await at_rest()
    assert rig.dead() == []


async def test_where_results_may_not_be_read_the_feeds_word_counts(autojump_clock: MockClock, rig: ProviderRig) -> None:
    for method in ("provider_result", "failed_at_provider"):
        rig.remote.fail(method, lambda: Refusal(403, code="forbidden"), times=99)
    rig.providers.missed()
    _, dead = await rig.failed()
    assert "does not say why" in dead.message
    assert rig.providers.results is ProviderResults.UNKNOWN


async def test_a_question_without_an_answer_is_asked_again(autojump_clock: MockClock, rig: ProviderRig) -> None:
    rig.remote.fail("provider_result", Unreachable("gone"), times=2)
    _ = await rig.delivered()
    rig.remote.provider_fails(list(rig.remote.operations)[-1])
    await trio.sleep(20)
    assert rig.the_dead().reason is Reason.PROVIDER_FAILED


async def test_a_failure_that_comes_before_the_answer_waits_for_it(autojump_clock: MockClock, rig: ProviderRig) -> None:
    rig.remote.lose_answer("put_many")
    gate = rig.remote.hold("put_many", nth=2)
    rig.save(NOTE, b"1")
    await trio.sleep(5)
    rig.remote.provider_fails(list(rig.remote.operations)[-1])
    await at_rest()
    assert rig.dead() == []
    gate.set()
    await rig.settled()
    await at_rest()
    assert rig.the_dead().reason is Reason.PROVIDER_FAILED


# what was missed


async def test_what_failed_while_no_daemon_ran_is_found_at_the_start(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = ProviderRig(tmp_path)
    for life in range(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.run)
            if life == 0:
                rig.remote.provider_fails(await rig.delivered(), told=False)
            await trio.sleep(1)
            assert len(rig.dead()) == life
            assert rig.providers.results is ProviderResults.KNOWN
            nursery.cancel_scope.cancel()
        rig.recover()
    rig.journal.close()


async def test_without_a_feed_the_failed_ones_are_asked_for_now_and_then(
    autojump_clock: MockClock, rig: ProviderRig
) -> None:
    rig.connection.feed = Feed.NONE
    remote_op = await rig.delivered()
    await at_rest()
    rig.remote.provider_fails(remote_op, told=False)
    await trio.sleep(2 * LOOK_EVERY)
    assert rig.the_dead().remote_op_id == remote_op


async def test_only_the_newest_are_remembered(
    autojump_clock: MockClock, rig: ProviderRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivered_ops, "REMEMBERED", 3)
    monkeypatch.setattr(delivered_ops, "TRIMMED_EVERY", 4)
    remote_ops = [await rig.delivered(f"/github/{number}") for number in range(8)]
    assert [rig.journal.delivered_as(name) is not None for name in remote_ops] == [False] * 5 + [True] * 3


# what a person does about it


async def test_retry_has_it_tried_again_there(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op, dead = await rig.failed()
    puts = rig.remote.calls["put"] + rig.remote.calls["put_many"]
    rig.journal.retry(dead.op.op_id)
    await rig.settled()
    assert rig.remote.operations[remote_op].said == "pending"
    assert rig.remote.calls["put"] + rig.remote.calls["put_many"] == puts
    assert rig.journal.counts().dead == 0
    rig.remote.provider_succeeds(remote_op)
    await at_rest()
    assert not rig.journal.awaits_results()


async def test_a_second_failure_goes_on_counting(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op, dead = await rig.failed()
    rig.journal.retry(dead.op.op_id)
    await rig.settled()
    rig.remote.provider_fails(remote_op, "still none")
    await at_rest()
    again = rig.the_dead()
    assert (again.op.op_id, again.attempts, len(again.history)) == (dead.op.op_id, 2, 2)
    assert "still none" in again.message


@pytest.mark.parametrize(("status", "said"), [(403, "ops:replay"), (404, "does not know"), (422, "does not try it")])
async def test_a_refused_replay_is_a_dead_letter_again(
    autojump_clock: MockClock, rig: ProviderRig, status: int, said: str
) -> None:
    _, dead = await rig.failed()
    rig.remote.fail("replay", Refusal(status))
    rig.journal.retry(dead.op.op_id)
    await rig.settled()
    again = rig.the_dead()
    assert (again.reason, again.attempts) == (Reason.PROVIDER_FAILED, 2)
    assert said in again.message


async def test_a_replay_survives_an_outage(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op, dead = await rig.failed()
    rig.remote.fail("replay", Refusal(503), times=2)
    rig.journal.retry(dead.op.op_id)
    await rig.settled()
    assert rig.remote.operations[remote_op].said == "pending"
    assert rig.dead() == []


async def test_what_has_succeeded_meanwhile_needs_no_replay(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op, dead = await rig.failed()
    rig.remote.provider_succeeds(remote_op, told=False)
    rig.journal.retry(dead.op.op_id)
    await rig.settled()
    assert (rig.dead(), rig.journal.awaits_results()) == ([], False)


async def test_a_success_clears_the_dead_letter(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op, _ = await rig.failed()
    rig.remote.provider_succeeds(remote_op)
    await at_rest()
    assert rig.dead() == []


async def test_a_success_of_which_nothing_tells_clears_it_within_a_while(
    autojump_clock: MockClock, rig: ProviderRig
) -> None:
    remote_op, _ = await rig.failed()
    rig.remote.provider_succeeds(remote_op, told=False)
    await trio.sleep(2 * LOOK_EVERY)
    assert rig.dead() == []


async def test_a_success_that_was_missed_clears_it_too(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op, _ = await rig.failed()
    rig.remote.provider_succeeds(remote_op, told=False)
    rig.remote.reset_feed()
    await at_rest()
    assert rig.dead() == []


async def test_a_later_save_supersedes_it(autojump_clock: MockClock, rig: ProviderRig) -> None:
    _, dead = await rig.failed()
    await rig.delivered(content=b"better")
    assert rig.dead() == []
    record = rig.journal.record(dead.op.op_id)
    assert record is not None
    assert (record.state, record.superseded_by is not None) == (State.DISCARDED, True)


async def test_it_does_not_go_after_a_newer_save(autojump_clock: MockClock, rig: ProviderRig) -> None:
    _, dead = await rig.failed()
    with rig.remote.offline():
        rig.save(NOTE, b"newer")
        with pytest.raises(VerbRefused) as refused:
            rig.journal.retry(dead.op.op_id)
    assert refused.value.errno == errno.EBUSY


async def test_what_was_given_up_stays_so(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op, dead = await rig.failed()
    rig.journal.discard(dead.op.op_id)
    rig.remote.provider_fails(remote_op)
    await at_rest()
    assert rig.dead() == []
    rig.journal.retry(dead.op.op_id)
    await rig.settled()
    assert rig.remote.operations[remote_op].said == "pending"


async def test_a_save_that_arrives_while_it_waits_to_be_replayed_replaces_it(
    autojump_clock: MockClock, rig: ProviderRig
) -> None:
    _, dead = await rig.failed()
    rig.remote.fail("replay", lambda: Refusal(500), times=99)
    rig.journal.retry(dead.op.op_id)
    await trio.sleep(0.5)
    rig.save(NOTE, b"newer", base=rig.remote.base(NOTE))
    await rig.settled()
    assert (rig.dead(), rig.remote.content(NOTE)) == ([], b"newer")


async def test_a_remote_of_its_own_begins_with_nothing(autojump_clock: MockClock, rig: ProviderRig) -> None:
    remote_op = await rig.delivered()
    rig.journal.forget_deliveries()
    rig.remote.provider_fails(remote_op)
    await at_rest()
    assert rig.dead() == []


async def test_an_op_of_an_unknown_name_cannot_be_replayed(autojump_clock: MockClock, rig: ProviderRig) -> None:
    rig.remote.lose_answer("put")
    rig.save(NOTE, b"x" * 300_000, base=ABSENT)
    await rig.settled()
    for method in ("provider_result", "failed_at_provider"):
        rig.remote.fail(method, lambda: Refusal(403), times=99)
    rig.remote.provider_fails(list(rig.remote.operations)[-1])
    await at_rest()
    with pytest.raises(VerbRefused, match=r"save /github/a.json again"):
        rig.journal.retry(rig.the_dead().op.op_id)
