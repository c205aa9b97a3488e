"""The threads that tell the kernel: who waits for whom."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Iterator

import pyfuse3
import pytest

from fsmount.fuse.notifier import THREADS, KernelNotifier

SOON = 5.0
"""Seconds within which a thread must have got on."""


class FakeKernel:
    """``told`` is what reached it, in order; a directory in ``held`` keeps the thread until its event is set."""

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[object, ...]] = queue.Queue()
        self.held: dict[int, threading.Event] = {}

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        if parent in self.held:
            self.held[parent].wait(SOON)
        self.told.put((parent, name))
        raise OSError(errno.ENOENT, "the kernel does not know it")

    def invalidate_inode(self, ino: int, *, attr_only: bool) -> None:
        assert attr_only, "pages are dropped by open alone"
        self.told.put((ino,))

    def next(self) -> tuple[object, ...]:
        return self.told.get(timeout=SOON)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    fake = FakeKernel()
    monkeypatch.setattr(pyfuse3, "invalidate_entry", fake.invalidate_entry)
    monkeypatch.setattr(pyfuse3, "invalidate_inode", fake.invalidate_inode)
    return fake


@pytest.fixture
def notifier(kernel: FakeKernel) -> Iterator[KernelNotifier]:
    made = KernelNotifier()
    yield made
    for held in kernel.held.values():
        held.set()
    made.close()


def test_the_attributes_go_once_more_after_the_name(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    notifier.entry_changed(7, "ä", 8)
    assert [kernel.next(), kernel.next()] == [(7, "ä".encode()), (8,)]
    assert notifier.count == 1


def test_a_name_waits_for_the_requests_that_were_under_way_and_no_other(
    kernel: FakeKernel, notifier: KernelNotifier
) -> None:
    with notifier.locked(7), notifier.locked(7):
        notifier.entry_changed(7, "late")
        notifier.attributes_changed(8)
        notifier.entry_changed(9, "other")
        assert {kernel.next(), kernel.next()} == {(8,), (9, b"other")}
        newer = notifier.locked(7)
        newer.__enter__()
        assert kernel.told.empty()
    assert kernel.next() == (7, b"late")
    newer.__exit__(None, None, None)


def test_a_directory_that_holds_a_thread_up_keeps_no_other_waiting(
    kernel: FakeKernel, notifier: KernelNotifier
) -> None:
    kernel.held[7] = threading.Event()
    for name in ("a", "b", "a", "a"):
        notifier.entry_changed(7, name)
    notifier.entry_changed(9, "x")
    notifier.attributes_changed(5)
    notifier.wake(lambda: kernel.told.put(("woken",)))
    assert {kernel.next() for _ in range(3)} == {(9, b"x"), (5,), ("woken",)}
    kernel.held[7].set()
    told = [kernel.next(), kernel.next()]
    # "a" may have been begun when it was asked for again; it is told once more then, and no oftener.
    assert told == [(7, b"a"), (7, b"b")]
    while not kernel.told.empty():
        told.append(kernel.next())
    assert told.count((7, b"a")) <= 2


def test_attributes_and_polls_wait_for_no_directory(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    for directory in range(10, 10 + 2 * THREADS):
        kernel.held[directory] = threading.Event()
        notifier.entry_changed(directory, "x")
    notifier.attributes_changed(5)
    notifier.wake(lambda: kernel.told.put(("woken",)))
    assert [kernel.next(), kernel.next()] == [(5,), ("woken",)]


def test_what_is_queued_already_is_not_queued_again(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    with notifier.locked(7):
        for _ in range(1000):
            notifier.entry_changed(7, "a")
            notifier.entry_changed(7, "b")
    assert [kernel.next(), kernel.next()] == [(7, b"a"), (7, b"b")]
    notifier.close()
    assert kernel.told.empty()


def test_many_names_go_once_their_directory_is_free(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    with notifier.locked(7):
        notifier.entries_changed(7, [("f", 8), (None, 9)])
        notifier.attributes_changed(5)
        assert kernel.next() == (5,)
    # no directory has the name "/": that waits for the lock where nothing else does
    assert [kernel.next() for _ in range(4)] == [(7, b"/"), (7, b"f"), (8,), (9,)]
