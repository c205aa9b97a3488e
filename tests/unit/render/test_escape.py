import pytest

from fsmount.render.escape import escape, rfc3339, size, span, when


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 漢字", "plain ünïcode 漢字"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\x1b[31mred\x00\x7f\x9b", "\\x1b[31mred\\x00\\x7f\\x9b"),
        (b"bad\xff.txt".decode("utf-8", "surrogateescape"), "bad\\xff.txt"),
        ("\ud800", "\\ud800"),
        ("exe\u202egpj.txt", "exe\\u202egpj.txt"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_nothing_that_moves_a_terminal_comes_through(text: str, shown: str) -> None:
    assert escape(text) == shown
    escape(text).encode()


def test_times_are_utc_with_milliseconds() -> None:
    assert rfc3339(1_700_000_000.12) == "2023-11-14T22:13:20.120Z"
    assert rfc3339(1_700_000_000.9996) == "2023-11-14T22:13:21.000Z"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (10 << 30, "10.0 GiB"),
        (None, "unknown"),
    ],
)
def test_sizes_are_for_people(count: int | None, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h"), (200_000, "2.3 d")]
)
def test_spans_are_for_people(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_a_time_says_how_long_ago() -> None:
    assert when(1_700_000_000, 1_700_000_007) == "2023-11-14 22:13:20 UTC (7 s ago)"
    assert when(1_700_000_060, 1_700_000_000) == "2023-11-14 22:14:20 UTC (in 60 s)"
    assert when(None, 0) == "never"
