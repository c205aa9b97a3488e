"""Bytes to a client that may stop taking them.

Invariant: a send ends, however slow the client is: each slice has its deadline.
"""

import trio

STALLED = 30.0
"""Seconds that a client may take for one slice."""
SLICE = 65_536
CLOSED = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What trio raises on a stream whose other side is gone."""


class Gone(Exception):
    """The client ended the connection, or stopped taking part in it."""


async def send_all(stream: trio.abc.SendStream, content: bytes) -> None:
    """Send all of `content`. Raises Gone where the client takes nothing for STALLED seconds. A checkpoint."""
    for start in range(0, len(content), SLICE):
        with trio.move_on_after(STALLED):
            await stream.send_all(content[start : start + SLICE])
            continue
        raise Gone
