"""poll(2) on `log` and `events`, and an fsync of `.relay`."""

from __future__ import annotations

import errno
import select

import pytest
import trio
import trio.testing

from fsmount.model import Receipt, RemotePath, Revision
from fsmount.ports import Details
from tests.support.relay import Relay, refused

MORE = select.POLLIN | select.POLLRDNORM


class Waiter:
    def __init__(self) -> None:
        self.woken = 0

    def __call__(self) -> None:
        self.woken += 1


@pytest.mark.parametrize("name", ["log", "events"])
def test_a_waiter_is_woken_once_by_the_next_line(relay: Relay, name: str) -> None:
    relay.log.note("mount", details=Details(state="one"))
    handle, waiter = relay.tree.open(relay.ino(name)), Waiter()
    assert relay.tree.poll(handle, waiter) == MORE
    size = relay.tree.getattr(relay.ino(name)).size
    relay.tree.read(handle, 0, size)
    assert (relay.tree.poll(handle, waiter), waiter.woken) == (0, 0)
    relay.log.note("mount", details=Details(state="two"))
    relay.log.note("mount", details=Details(state="three"))
    assert (relay.tree.poll(handle, None), waiter.woken) == (MORE, 1)


def test_who_has_all_of_an_old_log_is_told_that_it_ended(relay: Relay) -> None:
    relay.log.note("mount")
    ino = relay.ino("log")
    handle, waiter = relay.tree.open(ino), Waiter()
    relay.tree.read(handle, 0, 1 << 20)
    assert relay.tree.poll(handle, waiter) == 0
    while relay.ino("log") == ino:
        relay.log.note("mount", "x" * 500)
    assert waiter.woken == 1
    assert relay.tree.poll(handle, waiter) == MORE
    relay.tree.read(handle, 0, 1 << 20)
    assert relay.tree.poll(handle, waiter) == MORE | select.POLLHUP


def test_who_has_closed_is_not_woken(relay: Relay) -> None:
    handle, waiter = relay.tree.open(relay.ino("log")), Waiter()
    relay.tree.poll(handle, waiter)
    relay.tree.release(handle)
    relay.log.note("mount")
    assert waiter.woken == 0


def test_the_last_of_one_readers_wakers_counts(relay: Relay) -> None:
    handle, first, last = relay.tree.open(relay.ino("log")), Waiter(), Waiter()
    relay.tree.poll(handle, first)
    relay.tree.poll(handle, last)
    relay.log.note("mount")
    assert (first.woken, last.woken) == (0, 1)


def test_everything_else_is_always_ready(relay: Relay) -> None:
    assert relay.tree.poll(relay.tree.open(relay.ino("status")), Waiter()) is None


async def test_sync_waits_for_what_is_queued_and_not_for_more(relay: Relay) -> None:
    mounted, done = relay.mounted, trio.Event()
    mounted.dead("/a/older")
    op_id = mounted.save("/a/x")

    async def sync() -> None:
        await relay.tree.sync()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sync)
        await trio.testing.wait_all_tasks_blocked()
        mounted.save("/a/later")
        assert not done.is_set()
        receipt = Receipt(path=RemotePath("/a/x"), revision=Revision("r1"))
        mounted.journal.acknowledge(mounted.claim(op_id), receipt, mounted.answered())
        await done.wait()


async def test_sync_fails_when_one_gives_up(relay: Relay) -> None:
    op_id = relay.mounted.save("/a/x")
    async with trio.open_nursery() as nursery:

        async def sync() -> None:
            with refused(errno.EIO):
                await relay.tree.sync()

        nursery.start_soon(sync)
        await trio.testing.wait_all_tasks_blocked()
        relay.mounted.refuse(op_id)
