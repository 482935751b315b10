"""The pages do what they say: every block of code is run, in order, on real parts, from an empty folder.

A failure names page and line, and shows what was printed beside what the page shows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from tests.docs.pages import ROOT
from tests.docs.walk import Walk


@pytest.fixture
def checkout() -> Iterator[Path]:
    """An empty folder with a short path: a unix socket's holds some hundred bytes."""
    folder = Path(tempfile.mkdtemp(prefix="docs-"))
    yield folder
    rmtree(folder, ignore_errors=True)


def test_the_readme(checkout: Path) -> None:
    with Walk(checkout) as walk:
        walk.through(ROOT / "README.md")


def test_the_quickstart(checkout: Path) -> None:
    with Walk(checkout) as walk:
        walk.through(ROOT / "docs/quickstart.md")


def test_the_language(checkout: Path) -> None:
    with Walk(checkout) as walk:
        walk.through(ROOT / "docs/language.md")


def test_history(checkout: Path) -> None:
    with Walk(checkout) as walk:
        walk.through(ROOT / "docs/history.md")


def test_sessions(checkout: Path) -> None:
    with Walk(checkout) as walk:
        walk.through(ROOT / "docs/sessions.md")


def test_on_demand(checkout: Path) -> None:
    with Walk(checkout) as walk:
        walk.through(ROOT / "docs/on_demand.md")


def test_operations(checkout: Path, online_url: str, s3_url: str) -> None:
    """On a Redis and an S3 of the tests' own, whatever their addresses."""
    with Walk(checkout, {"redis://redis.example.com:6379/0": online_url, "s3://features/shop": s3_url}) as walk:
        walk.through(ROOT / "docs/operations.md")


def test_versions(checkout: Path) -> None:
    with Walk(checkout) as walk:
        walk.through(ROOT / "docs/versions.md")
