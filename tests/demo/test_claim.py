"""The demo clears what it made itself, and nothing else; it touches no store that the user has configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.commands import Shell
from demo.feed import Files
from demo.run import embedded
from demo.steps import MARK, claim
from forebay.errors import ForebayError
from forebay.settings import Settings


def claimed(home: Path) -> Files:
    files = Files(home)
    claim(files, Shell(home, files.work / "logs"))
    return files


def test_an_empty_home_is_taken_and_one_of_the_demo_is_cleared(home: Path) -> None:
    files = claimed(home)
    (files.work / "left.txt").write_text("of the run before")
    claimed(home)
    assert (files.work / MARK).exists()
    assert not (files.work / "left.txt").exists()


def test_a_home_of_somebody_else_is_refused(home: Path) -> None:
    (home / "notes.txt").write_text("mine")
    with pytest.raises(ForebayError, match="something that the demo did not make"):
        claimed(home)
    assert (home / "notes.txt").exists()


def test_a_home_to_which_events_were_added_is_refused(home: Path) -> None:
    claimed(home)
    (home / "offline" / "events" / "clicks").mkdir(parents=True)
    with pytest.raises(ForebayError, match="holds events of clicks"):
        claimed(home)
    assert (home / "offline" / "events" / "clicks").exists()


def test_the_demo_uses_embedded_parts_whatever_is_configured(home: Path) -> None:
    configured = {"FOREBAY_ONLINE_URL": "redis://prod:6379", "FOREBAY_OFFLINE_URL": "s3://prod/features"}
    settings = Settings.from_env(configured | embedded(home))
    assert settings.online_url == "embedded"
    assert settings.offline_url == str(home / "offline")
