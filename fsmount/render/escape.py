"""How a name, a time or a number of bytes is written for a person.

Invariant: nothing that came from the remote or from a program reaches a terminal or a log line unescaped.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def escape(text: str) -> str:
    r"""``text`` on one line: control, invisible and direction-changing characters as ``\n``, ``\x1b`` or ``\u202e``.

    Bytes that were no UTF-8 (surrogates, PEP 383) come out as ``\xff``.
    """
    return _UNPRINTABLE.sub(lambda match: _SHORT.get(match[0]) or _coded(ord(match[0])), text)


def _coded(number: int) -> str:
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def rfc3339(at: float) -> str:
    """``2026-05-05T19:17:03.120Z``: UTC with milliseconds (RFC 3339)."""
    whole, part = divmod(round(at * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{part:03d}Z"


def size(count: int | None) -> str:
    """``312 B``, ``1.5 MiB``; ``unknown`` for None."""
    if count is None:
        return "unknown"
    number, unit = float(count), 0
    while number >= 1023.95 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"


def span(seconds: float) -> str:
    """``7 s``, ``12 min``, ``3.5 h``, ``4.0 d``."""
    if seconds < 120:
        return f"{max(0, int(seconds))} s"
    if seconds < 7200:
        return f"{int(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86400:.1f} d"


def when(at: float | None, now: float) -> str:
    """``2026-05-05 19:17:03 UTC (7 s ago)``; ``never`` for None."""
    if at is None:
        return "never"
    distance = f"in {span(at - now)}" if at > now + 1 else f"{span(now - at)} ago"
    return f"{datetime.fromtimestamp(int(at), UTC):%Y-%m-%d %H:%M:%S} UTC ({distance})"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 op``, ``3 ops``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
