"""Half a minute of ``scripts/torture``, and that its audit finds a daemon that promises more than it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.torture import tortured

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]


def test_nothing_is_lost(tmp_path: Path) -> None:
    lost, seen = tortured(tmp_path, 20, seed=1)
    assert not lost, "\n".join(lost)
    assert seen["kills"] >= 3
    assert seen["acknowledged writes"] >= 50


def test_a_journal_that_is_not_committed_before_close_is_found_out(tmp_path: Path) -> None:
    lost, seen = tortured(tmp_path, 8, seed=2, plant="skip-journal")
    assert seen["kills"] > 0
    assert lost
