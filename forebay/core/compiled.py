"""Whether loops can be compiled here. May live here: that question, so that whoever asks it loads no compiler."""

from __future__ import annotations

import functools
import importlib.util


@functools.cache
def can_compile() -> bool:
    """Whether numba is installed (the extra `fast`)."""
    return importlib.util.find_spec("numba") is not None
