"""What a process asks of the C library, in processes of their own."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FREED = """
import re
from fsmount.app.process import return_memory, settle_memory
def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])
settle_memory()
before = resident()
blocks = [b"x" * (1024 * 1024 + n) for n in range(64)]
last = bytearray(100_000)  # above the blocks: what is below is not the end of the heap
full = resident()
del blocks
return_memory()
print(full - before, resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_what_large_blocks_took_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True, timeout=30)
    full, left = map(int, done.stdout.split())
    assert full > 60_000
    assert left < full / 4
