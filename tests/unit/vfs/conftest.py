"""The control tree for the tests of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.relay import Relay


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    return Relay(tmp_path)
