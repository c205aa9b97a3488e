"""A trio run that lives from one rule of a state machine to the next, on a clock that moves only when it is told to.

Invariant: between two calls every task waits for time, for a gate or for a call; nothing moves by itself. What would be
done in a thread is done in the loop, so that a run can be repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

T = TypeVar("T")


class Loop:
    """``call`` runs an async function in it and waits for what it gives."""

    def __init__(self) -> None:
        self.clock = MockClock()
        self._threads = without_threads()
        self._threads.__enter__()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), kwargs={"clock": self.clock}, daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        async with trio.open_nursery() as self.nursery:
            self._ready.set()
            await self._stop.wait()
            self.nursery.cancel_scope.cancel()

    def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()
        self._threads.__exit__(None, None, None)

    async def advance(self, seconds: float) -> None:
        """Lets time pass, from one deadline to the next."""
        until = trio.current_time() + seconds
        await wait_all_tasks_blocked()
        while (left := until - trio.current_time()) > 0:
            self.clock.jump(min(left, max(0.001, trio.lowlevel.current_statistics().seconds_to_next_deadline)))
            await wait_all_tasks_blocked()

    async def until(self, true: Callable[[], bool], within: float) -> bool:
        """Lets time pass until something is true, or for so long; whether it is."""
        ends = trio.current_time() + within
        await wait_all_tasks_blocked()
        while not true() and trio.current_time() < ends:
            self.clock.jump(min(1.0, max(0.001, trio.lowlevel.current_statistics().seconds_to_next_deadline)))
            await wait_all_tasks_blocked()
        return true()


@contextmanager
def without_threads() -> Iterator[None]:
    """What would be done in a thread is done at once, so that a run goes the same way every time."""

    async def at_once(work: Callable[..., T], *args: object, **_: object) -> T:
        await trio.lowlevel.checkpoint()
        return work(*args)

    threaded = trio.to_thread.run_sync
    trio.to_thread.run_sync = at_once  # type: ignore[assignment]
    try:
        yield
    finally:
        trio.to_thread.run_sync = threaded
