"""Which Java Spark is started with, and what is said where it can't run on it. The `java`s here only say a version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forebay.errors import ConfigError
from forebay.history.java import check_java
from forebay.history.spark import spark_session


def java_that_says(folder: Path, text: str) -> Path:
    """A home with a `java` that prints a text where a JVM prints its version."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\n[ \"$*\" = -version ] && printf '%s\\n' '{text}' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.mark.parametrize("version", ["17", "17.0.9", "21.0.8", "22-ea"])
def test_spark_may_run_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    said = f'NOTE: Picked up JDK_JAVA_OPTIONS: -Xmx1g\nopenjdk version "{version}" 2023-10-17'
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path, said)))
    check_java()


@pytest.mark.parametrize(
    ("version", "major"), [("1.8.0_392", 8), ("11.0.2", 11), ("16", 16), ("23", 23), ("25.0.2", 25)]
)
def test_a_java_that_spark_cannot_run_on_is_refused_by_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, major: int
) -> None:
    home = java_that_says(tmp_path, f'java version "{version}"')
    monkeypatch.setenv("JAVA_HOME", str(home))
    where = re.escape(str(home / "bin" / "java"))
    with pytest.raises(ConfigError, match=rf"needs Java 17 or 21, and {where} is Java {major}: install one of them"):
        spark_session("local[2]")


def test_java_home_goes_before_the_path_as_with_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = java_that_says(tmp_path / "old", 'openjdk version "11.0.2"')
    fit = java_that_says(tmp_path / "fit", 'openjdk version "17.0.9"')
    monkeypatch.setenv("PATH", str(old / "bin"))
    monkeypatch.setenv("JAVA_HOME", str(fit))
    check_java()
    monkeypatch.delenv("JAVA_HOME")
    with pytest.raises(ConfigError, match="is Java 11"):
        check_java()
    monkeypatch.setenv("PATH", str(fit / "bin"))
    check_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=f"JAVA_HOME={tmp_path} has no bin/java: install one of them"):
        check_java()


def test_without_java_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(
        ConfigError, match="needs Java 17 or 21, and there is none on the PATH, nor a JAVA_HOME: install"
    ):
        spark_session("local[2]")


def test_a_java_that_only_says_where_to_get_one_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Unable to locate a Java Runtime."  # as `java` does on a new Mac
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path, said)))
    with pytest.raises(ConfigError, match=f"does not say which it is, but '{said}': install one of them"):
        check_java()
