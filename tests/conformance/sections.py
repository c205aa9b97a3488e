"""The table at the end of a run: what of relayfile-api.md held, section by section.

A test names its section with ``@pytest.mark.section(13)``, or its module does with ``pytestmark``. The number
travels in the test's properties, so that it arrives from the processes that run tests side by side too.
"""

from collections import Counter

import pytest

TITLES = {
    1: "Transport, base path, auth",
    2: "Error body",
    3: "Paths",
    4: "Scopes per route",
    5: "ACL",
    6: "GET /fs/tree",
    7: "GET /fs/file",
    8: "PUT /fs/file",
    9: "DELETE /fs/file",
    10: "POST /fs/bulk",
    11: "POST /fs/merge",
    12: "GET /fs/query",
    13: "GET /fs/events",
    14: "WebSocket /fs/ws",
    15: "GET /fs/export",
    16: "Operations",
    17: "Sync status & dead letters",
    18: "Writeback queue",
    21: "Limits",
    22: "Idempotency & correlation",
    23: "Side effects",
    25: "Extensions of fsmount's server",
}
_OUTCOMES = ("passed", "failed", "skipped")
_NAME = "relayfile-section"


def note(test: pytest.Item) -> None:
    """Let the test's reports say of which section it is, if it is of one."""
    marker = test.get_closest_marker("section")
    if marker is not None:
        test.user_properties.append((_NAME, marker.args[0]))


def table(terminal: pytest.TerminalReporter) -> list[str]:
    """A line for each section that was tested; nothing where none was."""
    counts: dict[int, Counter[str]] = {}
    for outcome, reports in terminal.stats.items():
        for report in reports:
            section = dict(getattr(report, "user_properties", ())).get(_NAME)
            if isinstance(section, int):
                shown = "failed" if outcome == "error" else outcome
                counts.setdefault(section, Counter())[shown] += 1
    if not counts:
        return []
    rows = [
        f"{section:>7}  {TITLES[section]:<32}" + "".join(f"{counts[section][outcome]:>8}" for outcome in _OUTCOMES)
        for section in sorted(counts)
    ]
    return [f"section  {'title':<32}" + "".join(f"{outcome:>8}" for outcome in _OUTCOMES), *rows]
