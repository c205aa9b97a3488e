"""What the tests that live many lives share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: what a disk keeps is not the question here, and thousands of starts are
    quicker so.
    """
    place = "/dev/shm"  # a tmpfs; see shm_overview(7)
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else None) as folder:
        yield Path(folder)
