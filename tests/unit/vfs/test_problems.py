"""What is not shown as it is."""

from __future__ import annotations

from fsmount.model import Problem, RemotePath
from fsmount.vfs.problems import Problems

D, E = RemotePath("/d"), RemotePath("/e")


def problem(path: str) -> Problem:
    return Problem(path=path, why="because")


def test_a_listing_replaces_what_was_told_of_its_directory() -> None:
    problems = Problems(list)
    problems.listed(E, [problem("/e/1")])
    problems.listed(D, [problem("/d/1"), problem("/d/2")])
    assert problems.all() == [problem("/d/1"), problem("/d/2"), problem("/e/1")]
    problems.listed(D, [problem("/d/2")])
    assert problems.all() == [problem("/d/2"), problem("/e/1")]
    problems.listed(D, [])
    assert problems.all() == [problem("/e/1")]


def test_what_lies_beneath_and_what_clashes_now() -> None:
    clashes = [problem("/link")]
    problems = Problems(lambda: clashes)
    problems.beneath([problem("stray")])
    problems.listed(D, [problem("/d/1")])
    assert problems.all() == [problem("stray"), problem("/d/1"), problem("/link")]
    clashes.clear()
    assert problems.all() == [problem("stray"), problem("/d/1")]
