"""How much memory a call may take: `memory="2GB"` bounds the whole process, of which some is taken already.

May live here: sizes as text, and what is left of them. Nothing is measured on the way: whoever is given a budget plans
for it.
"""

from __future__ import annotations

import importlib
import re
import resource
import sys
from pathlib import Path

from forebay.core.compiled import can_compile
from forebay.errors import RequestError

MB = 1_000_000
_UNITS = {"MB": MB, "GB": 1_000 * MB, "TB": 1_000_000 * MB}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(MB|GB|TB)", re.IGNORECASE)
LEAST = 130 * MB
"""Less cannot be planned with: reading row groups takes some tens of megabytes, however few rows are wanted."""
SLACK = 50 * MB
"""What allocators keep for themselves."""
_STATM = Path("/proc/self/statm")


def size_bytes(text: str) -> int:
    """Bytes of a size such as `"500MB"` or `"2GB"`.

    >>> size_bytes("1.5GB")
    1500000000
    """
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise RequestError(f"memory={text!r} is not a size; write a number and MB, GB or TB, such as '2GB'")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def left_of(memory: str) -> int:
    """The bytes that a call may take so that the process stays within `memory`. Raises `RequestError`.

    What the call will need anyhow, the compiled code where numba is installed, is loaded before it is measured.
    """
    if can_compile():
        importlib.import_module("forebay.core.sweep")
    held = resident_bytes()
    left = size_bytes(memory) - held
    if left < LEAST:
        raise RequestError(
            f"memory={memory!r} leaves nothing to work with: this process holds {held // MB} MB already; "
            f"give at least {(held + LEAST) // MB + 1}MB"
        )
    return left - SLACK


def resident_bytes() -> int:
    """The memory that this process holds now, or, where the system doesn't tell, the most that it has held."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
