"""The three-way merge, as a function."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.server.merging import Chunk, TooAlike, merge

texts = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n"]), max_size=8).map("".join)


@given(texts, texts)
def test_a_side_that_changed_nothing_leaves_the_other(base: str, changed: str) -> None:
    assert merge(base, changed, base) == merge(base, base, changed) == (changed, ())
    assert merge(base, changed, changed) == (changed, ())


@given(texts, texts, texts)
def test_the_sides_may_be_exchanged(base: str, mine: str, theirs: str) -> None:
    one, conflicts = merge(base, mine, theirs)
    other, exchanged = merge(base, theirs, mine)
    assert (conflicts == ()) == (exchanged == ())
    assert conflicts or one == other


places = st.sets(st.integers(0, 19))


@given(places, places)
def test_changes_that_keep_a_line_apart_all_go_in(mine: set[int], theirs: set[int]) -> None:
    theirs -= {place + step for place in mine for step in (-1, 0, 1)}
    base, ours, other, both = (
        "".join(f"{'new' if place in changed else 'old'} {place}\n" for place in range(20))
        for changed in (set[int](), mine, theirs, mine | theirs)
    )
    assert merge(base, ours, other) == (both, ())


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        ("1\n2\n3\n", "0\n1\n2\n3\n", "1\n2\n3\n4\n", "0\n1\n2\n3\n4\n"),
        ("1\n2\n3\n4\n5\n", "1\n3\n4\n5\n", "1\n2\n3\n4\n", "1\n3\n4\n"),
        ("1\n2\n3\n", "1\n3\n", "1\n3\n", "1\n3\n"),
        ("", "new\n", "", "new\n"),
        ("1\n2\n3", "1\nx\n3", "1\n2\n3", "1\nx\n3"),
        ("a\x0cb\nc\nd\n", "a\x0cB\nc\nd\n", "a\x0cb\nc\nD\n", "a\x0cB\nc\nD\n"),
        ("1\r\n2\r\n3\r\n", "X\r\n2\r\n3\r\n", "1\r\n2\r\nY\r\n", "X\r\n2\r\nY\r\n"),
    ],
)
def test_changes_in_different_places(base: str, mine: str, theirs: str, merged: str) -> None:
    assert merge(base, mine, theirs) == (merged, ())


def test_a_conflict_is_named_by_its_line_of_the_base() -> None:
    _, conflicts = merge("1\n2\n3\n4\n5\n", "1\nm\n3\n4\nM\n", "1\nt\n3\n4\nT\n")
    assert conflicts == (Chunk(2, "2\n", "m\n", "t\n"), Chunk(5, "5\n", "M\n", "T\n"))


def test_neighbouring_lines_are_one_conflict_as_git_has_it() -> None:
    assert merge("1\n2\n", "x\n2\n", "1\ny\n")[1] == (Chunk(1, "1\n2\n", "x\n2\n", "1\ny\n"),)


@pytest.mark.parametrize("line", ["x", "{number}"])
def test_the_longest_texts_merge_in_no_time(line: str) -> None:
    base = [line.format(number=number) for number in range(80_000)]
    mine, theirs = ["new", *base], [*base, "new"]
    merged, conflicts = merge(*("\n".join(lines) + "\n" for lines in (base, mine, theirs)))
    assert (merged.count("\n"), conflicts) == (80_002, ())


def test_what_would_hold_up_the_server_is_refused() -> None:
    base = "".join(f"{number % 120}\n" for number in range(80_000))
    with pytest.raises(TooAlike):
        merge(base, f"x\n{base}x\n", base)
