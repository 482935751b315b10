"""A world for each test of sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.settings import Settings
from tests.sessions.world import World


@pytest.fixture
def world(home: Path, online_url: str, namespace: str, place: str) -> World:
    """A site with nothing in its stores."""
    return World(Settings(home, online_url, place, namespace=namespace))
