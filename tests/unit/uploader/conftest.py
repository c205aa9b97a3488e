from collections.abc import Iterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.support.uploading import UploadRig


@pytest.fixture
async def rig(tmp_path: Path, autojump_clock: MockClock) -> Iterator[UploadRig]:  # type: ignore[misc]
    # Large bodies and the credential are looked at in threads: the clock must give them time.
    autojump_clock.autojump_threshold = 0.01
    made = UploadRig(tmp_path)
    yield made
    made.journal.close()
