"""Deadline and errors of every request, in one place.

Invariant: a handler ends within its deadline, and no exception but FUSEError leaves it, because any other would end the
daemon.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio

from fsmount.vfs.patience import serving

P = ParamSpec("P")
T = TypeVar("T")


class Answering(Protocol):
    """Whose methods are handlers; ``timeout`` in seconds, ``locked`` as KernelNotifier has it."""

    timeout: float

    def locked(self, directory: int) -> AbstractContextManager[None]: ...

    def errno_for(self, error: Exception, request: str) -> int: ...


A = TypeVar("A", bound=Answering)
Handler = Callable[Concatenate[A, P], Coroutine[Any, Any, T]]


def within(timeouts: float) -> Callable[[Handler[A, P, T]], Handler[A, P, T]]:
    """A handler that is answered with ETIMEDOUT after so many timeouts without progress."""

    def bounded(method: Handler[A, P, T]) -> Handler[A, P, T]:
        @functools.wraps(method)
        async def answer(self: A, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with trio.move_on_after(self.timeout * timeouts) as scope:
                serving(scope, self.timeout * timeouts)
                try:
                    return await method(self, *args, **kwargs)
                except pyfuse3.FUSEError:
                    raise
                except Exception as error:
                    raise pyfuse3.FUSEError(self.errno_for(error, method.__name__)) from error
            raise pyfuse3.FUSEError(errno.ETIMEDOUT)

        return answer

    return bounded


def handler(method: Handler[A, P, T]) -> Handler[A, P, T]:
    """A handler that waits as long as a system call may."""
    return within(1)(method)


def in_directory(method: Handler[A, Concatenate[int, P], T]) -> Handler[A, Concatenate[int, P], T]:
    """A handler of a request during which the kernel holds the lock of the directory that the first argument names."""

    @handler
    @functools.wraps(method)
    async def locking(self: A, directory: int, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.locked(directory):
            return await method(self, directory, *args, **kwargs)

    return locking
