"""The queue of a mount whose daemon runs: its ``.relay``, touched by children only.

Invariant: a person's gesture is the same rename(2) that ``mv`` would make, so there is one way to steer and not two.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import msgspec

from fsmount.cli.child import DEADLINE, in_child
from fsmount.cli.queue import DEAD, DISCARDED, PENDING, RETRY, unknown
from fsmount.cli.target import Target
from fsmount.errors import VerbRefused

_TAIL = 16 * 1024
_SUFFIX = ".json"


class LiveQueue:
    """See ``Queue``. Holds no descriptor: each question is a child of its own."""

    served = True

    def __init__(self, target: Target) -> None:
        self._target = target
        self._relay = f"{target.mountpoint}/.relay"

    @classmethod
    def of(cls, target: Target) -> LiveQueue | None:
        """The queue if the mount answers, None where no daemon serves it; raises TimedOut where one is silent."""
        if target.mounted() is None:
            return None
        queue = cls(target)
        try:
            queue.status_json()
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.ENOENT, errno.ECONNABORTED, errno.ENOTDIR):
                return None
            raise
        return queue

    def status_json(self) -> bytes:
        """``.relay/status.json``."""
        return self._read("status.json")

    def status_text(self) -> str:
        """``.relay/status``."""
        return self._read("status").decode(errors="replace")

    def ids(self, directory: str) -> list[str]:
        """The names in one directory; ids sort by age."""
        names = self._touch(lambda: os.fsencode("\n".join(os.listdir(f"{self._relay}/{directory}"))))
        return sorted(name.removesuffix(_SUFFIX) for name in os.fsdecode(names).split("\n") if name.endswith(_SUFFIX))

    def show(self, op_id: str) -> tuple[str, bytes] | None:
        """The op's file, from whichever directory it is in."""
        if "/" in op_id:
            return None
        reply = self._touch(lambda: self._find(op_id))
        directory, _, text = reply.partition(b"\n")
        return (directory.decode(), text) if directory else None

    def move(self, op_id: str, source: str, verb: str) -> None:
        """``mv .relay/SOURCE/OP.json .relay/VERB/``."""
        reply = self._touch(lambda: self._rename(op_id, source, verb))
        if not reply:
            return
        code, reason = msgspec.json.decode(reply, type=tuple[int, str])
        if code == errno.ENOENT:
            raise unknown(op_id)
        raise VerbRefused(
            code, f"{op_id} cannot be {'retried' if verb == RETRY else 'discarded'}: {reason or _default_reason(code)}"
        )

    def _find(self, op_id: str) -> bytes:
        """In the child. Twice, because an op may move on while it is looked for."""
        for directory in (PENDING, DEAD, DISCARDED) * 2:
            try:
                with open(f"{self._relay}/{directory}/{op_id}{_SUFFIX}", "rb") as file:
                    return directory.encode() + b"\n" + file.read()
            except FileNotFoundError:
                continue
        return b""

    def _rename(self, op_id: str, source: str, verb: str) -> bytes:
        """In the child: nothing when it was done, else errno and what the log says."""
        name = f"{op_id}{_SUFFIX}"
        try:
            os.rename(f"{self._relay}/{source}/{name}", f"{self._relay}/{verb}/{name}")
        except OSError as error:
            return msgspec.json.encode((error.errno or 0, self._last_word(op_id)))
        return b""

    def _last_word(self, op_id: str) -> str:
        """The message of the log's last line about the op: ``AT LEVEL EVENT OP PATH message``."""
        with open(f"{self._relay}/log", "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL))
            lines = [line for line in log.read().decode(errors="replace").splitlines() if f" {op_id} " in line]
        fields = lines[-1].split(" ", 5) if lines else []
        return fields[5] if len(fields) == 6 else ""

    def _read(self, name: str) -> bytes:
        def read() -> bytes:
            with open(f"{self._relay}/{name}", "rb") as file:
                return file.read()

        return self._touch(read)

    def _touch(self, action: Callable[[], bytes]) -> bytes:
        hint = self._target.whom_to_look_at()
        return in_child(action, what=f"the mount at {self._target}", hint=hint, deadline=DEADLINE)


def _default_reason(code: int) -> str:
    reasons = {
        errno.EBUSY: "it is being sent, has a newer change on its path, or its record is damaged",
        errno.EINVAL: "a newer change of the same path came after it; save the file again instead",
        errno.EPERM: "not in the state that it is in",
        errno.EROFS: "the mount is read-only",
    }
    return reasons.get(code, os.strerror(code))
