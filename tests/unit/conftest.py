"""Folders of the unit tests: in memory, where the machine has that."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Thousands of small databases that each wait for a disk would be most of the time that these tests take."""
    with tempfile.TemporaryDirectory(prefix="fsmount-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)
