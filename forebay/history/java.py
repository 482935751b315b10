"""The Java that Spark is started with.

May live here: which one that is, by the rule of Spark's own scripts (`JAVA_HOME`, else the `java` on the PATH), and
whether Spark 4.0 can run on it. Invariant: where it can't, that is said in a sentence before anything is read; a JVM
says it in terms of class files, or of its boot layer.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from forebay.errors import ConfigError

FIRST, LAST = 17, 22
"""The classes of Spark 4.0 are of Java 17; from Java 23 on the login of its Hadoop is refused (HADOOP-19212)."""
SECONDS_MAX = 60
"""How long a Java may take to say its version: a disk that is asleep, not a program that hangs."""


def check_java() -> None:
    """Raise `ConfigError` where Spark would find no Java, or one that it can't run on."""
    java = _java()
    version = _version(java)
    if not FIRST <= version <= LAST:
        raise _refused(f"{java} is Java {version}")


def _java() -> str:
    """What Spark's scripts start."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home) / "bin" / "java") if home else "java")
    if found is None:
        raise _refused(f"JAVA_HOME={home} has no bin/java" if home else "there is none on the PATH, nor a JAVA_HOME")
    return found


def _version(java: str) -> int:
    """The version of a Java, as it says it: `version "17.0.9"`, and of Java 8 `version "1.8.0_392"`."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=SECONDS_MAX)
        said = done.stderr + done.stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None:
        raise _refused(f"{java} does not say which it is, but {said.strip()[:200]!r}")
    return int(version[1])


def _refused(found: str) -> ConfigError:
    return ConfigError(
        f"engine='spark' needs Java 17 or 21, and {found}: install one of them, and set JAVA_HOME to its folder"
    )
