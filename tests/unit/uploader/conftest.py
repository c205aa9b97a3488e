from collections.abc import Iterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.support.uploading import UploadRig


@pytest.fixture
async def rig(tmp_path: Path, autojump_clock: MockClock) -> Iterator[UploadRig]:  # type: ignore[misc]
    made = UploadRig(tmp_path)
    yield made
    made.journal.close()
