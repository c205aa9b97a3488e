"""``fsmount writeback diff``: what saving my version would change in theirs.

Invariant: what is printed is the difference between two versions that are both known; one that is not known is never
taken for an empty one.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from msgspec import Struct

from fsmount.cli.queue import COMPARED, Queue, ShownOp, Version, opened, read_op, unknown
from fsmount.cli.target import Target, known, state_dir_option
from fsmount.errors import FsmountError
from fsmount.render.escape import escape, size

_LOOKED_AT = 8000
"""Bytes at the start of a file in which a NUL makes it a binary one, as for git."""
_WITHOUT_NEWLINE = "\n\\ No newline at end of file\n"


class Side(Struct, frozen=True, kw_only=True):
    """One of the two that are compared; ``version`` None: there is nothing."""

    label: str
    version: Version | None

    @property
    def content(self) -> bytes | None:
        """None where it is too long to be compared here."""
        return b"" if self.version is None else self.version.content

    def __str__(self) -> str:
        if self.version is None:
            return f"{self.label}: nothing"
        return f"{self.label}: {size(self.version.size)}, sha256 {self.version.sha256}"


@click.command()
@click.argument("op")
@click.argument("mount", required=False)
@click.option("--base", is_flag=True, help="Compare with the version that mine was made from instead of theirs.")
@state_dir_option
def diff(op: str, mount: str | None, state_dir: Path | None, *, base: bool) -> int:
    """Show my version of a conflict against theirs.

    A unified diff of what the remote has and what OP would save; of binary or very long files lengths and digests.
    Exits 0 whether they differ or not, 1 where the other version is not known.
    """
    target = known(mount, state_dir)
    with opened(target) as queue:
        found = queue.show(op)
        if found is None:
            raise unknown(op)
        shown = read_op(found[1])
        mine, other = _mine(queue, shown, target), (_base if base else _theirs)(queue, shown, target)
    _print(mine, other)
    return 0


def _mine(queue: Queue, op: ShownOp, target: Target) -> Side:
    version = queue.version(op.op_id, "mine")
    if version is None and op.size is not None:
        raise FsmountError(
            f"the bytes of {op.op_id} cannot be read", hint=f"fsmount writeback show {op.op_id}{target.argument}"
        )
    return Side(label=f"mine {escape(op.target)} {op.op_id}", version=version)


def _theirs(queue: Queue, op: ShownOp, target: Target) -> Side:
    label, version = f"theirs {escape(op.target)}", queue.version(op.op_id, "theirs")
    if version is not None:
        return Side(label=f"{label} {escape(version.revision)}" if version.revision else label, version=version)
    if op.reason == "remote-deleted":
        return Side(label=label, version=None)
    if op.reason == "conflict":
        raise FsmountError(
            f"their version of {escape(op.target)} is not known here",
            hint=f"fsmount writeback retry --opId {op.op_id} --wait{target.argument} asks for it again",
        )
    raise FsmountError(
        f"{op.op_id} is {op.reason or op.state}, no conflict: no other version of {escape(op.target)} is known",
        hint=f"fsmount writeback show {op.op_id}{target.argument}",
    )


def _base(queue: Queue, op: ShownOp, target: Target) -> Side:
    label, version = f"base {escape(op.target)}", queue.version(op.op_id, "base")
    if version is not None:
        return Side(label=f"{label} {escape(op.base_revision)}" if op.base_revision else label, version=version)
    if op.base_revision is None and op.to_path is None:
        return Side(label=label, version=None)
    raise FsmountError(
        f"the version that {op.op_id} was made from is not kept here",
        hint=f"to compare with theirs: fsmount writeback diff {op.op_id}{target.argument}",
    )


def _print(mine: Side, other: Side) -> None:
    old, new = other.content, mine.content
    if _same(mine.version, other.version):
        click.echo(f"{mine.label.partition(' ')[0]} and {other.label.partition(' ')[0]} are the same", err=True)
    elif old is None or new is None:
        click.echo(f"longer than {size(COMPARED)}:\n  {other}\n  {mine}")
    elif _binary(old) or _binary(new):
        click.echo(f"binary files differ:\n  {other}\n  {mine}")
    else:
        for line in _unified(old, new, other.label, mine.label):
            click.echo(_shown(line), nl=False)


def _same(mine: Version | None, other: Version | None) -> bool:
    if mine is None or other is None:
        return mine is other
    return mine.sha256 == other.sha256


def _binary(content: bytes) -> bool:
    return b"\0" in content[:_LOOKED_AT]


def _unified(old: bytes, new: bytes, old_label: str, new_label: str) -> Iterator[str]:
    for line in difflib.unified_diff(_lines(old), _lines(new), old_label, new_label):
        yield line if line.endswith("\n") else line + _WITHOUT_NEWLINE


def _lines(content: bytes) -> list[str]:
    """At newlines only, as diff(1) does; each with its newline. Bytes that are no UTF-8 become surrogates (PEP 383)."""
    return re.findall(r"[^\n]*\n|[^\n]+", content.decode(errors="surrogateescape"))


def _shown(line: str) -> bytes:
    """As it is for patch(1); on a terminal, without what a terminal would act on."""
    if sys.stdout is not None and sys.stdout.isatty():
        line = "\t".join(escape(part) for part in line.rstrip("\n").split("\t")) + "\n"
    return line.encode(errors="surrogateescape")
