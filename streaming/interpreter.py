"""What a flow asks of the process that it runs in: memory that stays, and short turns.

Freed memory stays with the process. A flow asks for the same megabytes thousands of times a minute; glibc gives every
block above 128 KB, and the top of its heap, back to the system when it is freed, and the next one comes in page by
page: rolling up cost up to four times as much that way. Elsewhere than on glibc nothing is told.

Threads take short turns. The background writer of the offline store computes for some tens of milliseconds a second; a
commit online lets go of Python's lock at each send and waits for the writer's turn to end, by default 5 ms each time.
"""

from __future__ import annotations

import ctypes
import sys

KEPT_BYTES_MAX = 64 << 20
"""Free bytes at the top of a heap that are kept: a few times what one commit works with."""
MAPPED_BYTES_MIN = 32 << 20
"""Blocks from here on are still given back: glibc accepts no more."""
TURN_S = 0.0005
"""How long a thread computes while another waits; a commit of a hundred events takes some six of them."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def prepare_process() -> None:
    """Make this process one for a flow."""
    sys.setswitchinterval(TURN_S)
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
