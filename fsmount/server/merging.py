"""A three-way merge of texts by lines; pure.

Lines that the base shares with both sides stand; what lies between two such runs is one chunk, which the
side that changed it decides. Invariant: every line of the result comes from a side that is entitled to
it; a chunk that both sides changed, each in its own way, is a conflict and never a guess.
"""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import Match, SequenceMatcher
from itertools import takewhile

import msgspec

MOST_PAIRS = 500_000
"""Pairs of equal lines that are looked at; seconds of work at the worst, and the whole server waits meanwhile."""


class TooAlike(Exception):
    """So many lines of the texts are the same that comparing them would take too long."""


class Chunk(msgspec.Struct, frozen=True):
    """A conflict; `line` counts from 1 in the base, the texts may be empty."""

    line: int
    base: str
    mine: str
    theirs: str


class _Run(msgspec.Struct, frozen=True):
    """`length` lines that stand in all three, from these positions on."""

    base: int
    mine: int
    theirs: int
    length: int


def merge(base: str, mine: str, theirs: str) -> tuple[str, tuple[Chunk, ...]]:
    """The merged text, and the conflicts; with conflicts the text is of no use. Raises TooAlike."""
    # Not splitlines: it breaks at form feeds and the like, which are no line ends to an editor.
    bases, mines, others = (list(io.StringIO(text, newline="\n")) for text in (base, mine, theirs))
    merged: list[str] = []
    conflicts: list[Chunk] = []
    at = _Run(0, 0, 0, 0)
    for run in _common(bases, mines, others):
        old, ours, their = bases[at.base : run.base], mines[at.mine : run.mine], others[at.theirs : run.theirs]
        chosen = _chosen(old, ours, their)
        if chosen is None:
            conflicts.append(Chunk(at.base + 1, "".join(old), "".join(ours), "".join(their)))
        merged += chosen or []
        merged += bases[run.base : run.base + run.length]
        at = _Run(run.base + run.length, run.mine + run.length, run.theirs + run.length, 0)
    return "".join(merged), tuple(conflicts)


def _chosen(base: list[str], mine: list[str], theirs: list[str]) -> list[str] | None:
    if mine in (base, theirs):
        return theirs
    return mine if theirs == base else None


def _common(base: Sequence[str], mine: Sequence[str], theirs: Sequence[str]) -> Iterator[_Run]:
    """The runs that stand in all three, in order; the last one is empty and at the end of each."""
    ours, others = _matches(base, mine), _matches(base, theirs)
    left = right = 0
    while left < len(ours) and right < len(others):
        one, two = ours[left], others[right]
        start, end = max(one.a, two.a), min(one.a + one.size, two.a + two.size)
        if start < end:
            yield _Run(start, one.b + start - one.a, two.b + start - two.a, end - start)
        if one.a + one.size < two.a + two.size:
            left += 1
        else:
            right += 1
    yield _Run(len(base), len(mine), len(theirs), 0)


def _matches(base: Sequence[str], side: Sequence[str]) -> list[Match]:
    """Runs of lines that stand in both, in order; what they begin and end with alike needs no comparison."""
    head = _alike(base, side)
    tail = _alike(base[head:][::-1], side[head:][::-1])
    inner, other = base[head : len(base) - tail], side[head : len(side) - tail]
    counts = Counter(other)
    if sum(counts[line] for line in inner) > MOST_PAIRS:
        raise TooAlike
    between = SequenceMatcher(None, inner, other, autojunk=False).get_matching_blocks()[:-1]
    return [
        Match(0, 0, head),
        *(Match(head + run.a, head + run.b, run.size) for run in between),
        Match(len(base) - tail, len(side) - tail, tail),
    ]


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines the two begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
