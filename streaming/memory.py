"""Freed memory stays with the process: a flow asks for the same megabytes thousands of times a minute.

glibc gives every block above 128 KB, and the top of its heap, back to the system when it is freed, and the next one
comes in page by page: rolling up cost up to four times as much that way. Lives here: telling glibc not to. Elsewhere
than on glibc nothing is told.
"""

from __future__ import annotations

import ctypes
import sys

KEPT_BYTES_MAX = 64 << 20
"""Free bytes at the top of a heap that are kept: a few times what one commit works with."""
MAPPED_BYTES_MIN = 32 << 20
"""Blocks from here on are still given back: glibc accepts no more."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed() -> None:
    """Let this process keep what it frees."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
