"""What a header says, and how much of a body is shown."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from fsmount.remote.http import cut, retry_after


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("0", "", 0.0),
        (" 120 ", "", 120.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "", 0.0),
        ("", "", None),
        ("-5", "", None),
        ("1e9", "", None),
        ("9" * 400, "", None),
        ("soon", "", None),
    ],
)
def test_retry_after(value: str, date: str, seconds: float | None) -> None:
    assert retry_after(value, date) == seconds


def test_retry_after_counts_from_now_without_a_date() -> None:
    found = retry_after(formatdate(time.time() + 100, usegmt=True), "")
    assert found is not None
    assert 95 < found <= 100


def test_a_text_is_cut_at_a_character() -> None:
    assert cut("ääää", 5) == "ää"
    assert cut("abc", 3) == "abc"
