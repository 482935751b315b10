"""A world for each backfill test."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.settings import Settings
from tests.backfill.world import World


@pytest.fixture
def world(home: Path, online_url: str, namespace: str, place: str) -> World:
    """A shop."""
    settings = Settings(home, online_url, place, namespace=namespace)
    return World(OfflineStore(settings), connect_online(settings), namespace)


@pytest.fixture
def any_world(home: Path, online_url: str, namespace: str, offline_url: str) -> World:
    """A shop on a folder, and on S3."""
    settings = Settings(home, online_url, offline_url, namespace=namespace)
    return World(OfflineStore(settings), connect_online(settings), namespace)
