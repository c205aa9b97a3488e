"""What programs, the uploader and a person do to a journal, in a line each; paths are plain words."""

from __future__ import annotations

from fsmount.model import Claim, Op, OpId, OpKind, Reason, Record, RemotePath, State
from tests.model.world import World

Told = tuple[str, str, str | None, str | None, str | None]


def save(world: World, path: str, content: str) -> OpId:
    """A program wrote and closed a file."""
    name = RemotePath(path)
    draft = world.begin(name)
    op_id = world.flush(draft, name, content)
    world.journal.end_draft(draft)
    return op_id


def remove(world: World, path: str, *, brake: int | None = None) -> None:
    world.journal.delete(RemotePath(path), world.shown_base(RemotePath(path)), brake=brake)


def rename(world: World, old: str, new: str) -> None:
    a, b = RemotePath(old), RemotePath(new)
    world.journal.rename(a, b, world.shown_base(a), world.shown_base(b))


def queue(world: World) -> list[Told]:
    """The pending and sending ops in their order: kind, path, new name, content, base."""
    records = sorted(world.records(State.PENDING, State.SENDING), key=lambda record: record.op.seq)
    return [told(record.op) for record in records]


def told(op: Op) -> Told:
    return (op.kind.value, op.path, op.to_path, None if op.body is None else op.body.digest, op.base.revision)


def due(world: World, seconds: float = 20.0) -> list[Claim]:
    """What may be sent after a while."""
    world.clock.advance(seconds)
    return world.claim()


def deliver(world: World) -> None:
    """Sends everything that can be sent."""
    for _ in range(20):
        for claim in due(world):
            world.settle(claim)


def only(world: World, state: State) -> Record:
    (record,) = world.records(state)
    return record


def refuse(world: World, reason: Reason = Reason.REJECTED) -> OpId:
    """The one op that is due is refused."""
    (claim,) = due(world)
    world.claims.remove(claim)
    claim = world._sealed(claim)
    world.journal.bury(claim, reason, "no", world.answer(422), charged=True)
    return claim.op.op_id


def removal(world: World, path: str) -> bool:
    return any(kind == OpKind.DELETE and name == path for kind, name, *_ in queue(world))
