"""What a flow asks of the process that it runs in: memory that stays, short turns, and rest for who has nothing to do.

Freed memory stays with the process. A flow asks for the same megabytes thousands of times a minute; glibc gives every
block above 128 KB, and the top of its heap, back to the system when it is freed, and the next one comes in page by
page: rolling up cost up to four times as much that way. Elsewhere than on glibc nothing is told.

Threads take short turns. The background writer of the offline store computes for some tens of milliseconds a second; a
commit online lets go of Python's lock at each send and waits for the writer's turn to end, by default 5 ms each time.

A worker's first thread does nothing but look for signals, which Bytewax has it do a thousand times a second, and each
time it takes Python's lock from the thread that works. Its sleeps are made coarse: Linux may prolong them by what is
called timer slack. Threads begin with the slack of the one that started them, so the one that works sets it back.

A process ends without taking its interpreter apart. A thread that waits for a store may come back meanwhile, and within
a library in Rust that aborts the process: a flow that had ended well would have died.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
from typing import NoReturn

KEPT_BYTES_MAX = 64 << 20
"""Free bytes at the top of a heap that are kept: a few times what one commit works with."""
MAPPED_BYTES_MIN = 32 << 20
"""Blocks from here on are still given back: glibc accepts no more."""
TURN_S = 0.0005
"""How long a thread computes while another waits; a commit of a hundred events takes some six of them."""
COARSE_S = 0.05
"""How much longer a first thread may sleep: so much later a signal is seen."""
FINE_S = 0.00005
"""Linux' own."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PR_SET_TIMERSLACK = 29


def prepare_process() -> None:
    """Make this process one for a flow."""
    sys.setswitchinterval(TURN_S)
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)


def sleep_within(slack_s: float) -> None:
    """Let sleeps of this thread, and of those that it starts from now on, be longer by up to so many seconds."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(round(slack_s * 1e9)))


def end_process(code: int) -> NoReturn:
    """End this process with an exit code, and with it whatever its threads wait for."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more, or it is closed
            stream.flush()
    os._exit(code)
