"""Style rules that are tests: what the linter, the type checker and the import contracts cannot say.

Lives here: rules about files as text and syntax trees, each naming all that break it. A rule that ruff, mypy or
import-linter has belongs in pyproject.toml.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
HOMELESS_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc", "shared", "tools"}
MARKS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
SILENCERS = re.compile(r"type:\s*ignore|\bnoqa\b|pragma:|pyright:|pylint:")
REASONED_SILENCER = re.compile(r"(type: ignore\[[\w, -]+\]  #|noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)* ) *\w+\W+\w+\W+\w+")
ADDRESSES_OF_A_MACHINE = re.compile(
    r"(?<![\w.])/(work|root|home)/\w|(py" + r"pi\.org|python" + r"hosted|npm" + r"js\.)"
)


def files(*patterns: str) -> list[Path]:
    """The repository's files: what git has and what it would take."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted(path for name in set(names) if name and (path := ROOT / name).is_file())


def place(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in files("*.py"):
        yield path, ast.parse(path.read_text(), filename=str(path))


def pyproject() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def declared_requirements() -> set[str]:
    """Every package that pyproject.toml names, in any extra or group."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [content["project"]["dependencies"], *content["project"]["optional-dependencies"].values()]
    lists += content["dependency-groups"].values()
    return {line for lines in lists for line in lines if isinstance(line, str)}


def test_there_is_something_to_measure() -> None:
    assert len(files("*.py")) > 10


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = [(path, len(path.read_text().splitlines())) for path in files("*.py")]
    assert not [f"{place(path)} has {n} lines" for path, n in lengths if n > FILE_LINES_MAX]


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{place(path, node.lineno)} {node.name} has {lines} lines"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long


def test_every_module_says_what_it_is_for() -> None:
    assert not [place(path) for path, tree in trees() if not ast.get_docstring(tree)]


def test_every_file_is_a_noun() -> None:
    parts = [(path, {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}) for path in files("*.py")]
    homeless = [
        place(path) for path, names in parts if any(HOMELESS_NAMES & {name, name.split("_")[-1]} for name in names)
    ]
    assert not homeless


def test_every_folder_of_code_is_a_package_outside_the_tests() -> None:
    folders = {path.parent for path in files("*.py") if path.relative_to(ROOT).parts[0] != "tests"} - {ROOT}
    assert not [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()]


def test_every_top_folder_of_code_is_under_the_import_contracts() -> None:
    tops = {path.relative_to(ROOT).parts[0] for path in files("*.py") if path.parent != ROOT}
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert tops - {"tests", "benchmarks"} == set(content["tool"]["importlinter"]["root_packages"])


def test_no_work_is_left_as_a_mark() -> None:
    marked = [
        f"{place(path, number)} {line.strip()}"
        for path in files("*.py", "*.md", "*.toml", "*.yaml", "Makefile", ".ci/*")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if MARKS.search(line)
    ]
    assert not marked


def test_every_silenced_check_names_the_rule_and_the_reason() -> None:
    silenced = [
        f"{place(path, token.start[0])} {token.string}"
        for path in files("*.py")
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.COMMENT
        and SILENCERS.search(token.string)
        and not REASONED_SILENCER.search(token.string)
    ]
    assert not silenced


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    named = [
        f"{place(path, number)} {line.strip()[:80]}"
        for path in files("*.py", "*.md", "*.toml", "*.yaml", "*.lock", "*.json", "Makefile", ".ci/*")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if ADDRESSES_OF_A_MACHINE.search(line)
    ]
    assert not named


def test_every_imported_package_is_declared() -> None:
    """A package that another one happens to bring is not ours to import."""
    ours = {path.relative_to(ROOT).parts[0] for path in files("*.py")}
    declared = {canonicalize_name(Requirement(line).name) for line in declared_requirements()}
    providers = packages_distributions()
    undeclared = [
        f"{place(path, node.lineno)} imports {name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        for name in imported_packages(node)
        if name not in ours
        and name not in sys.stdlib_module_names
        and not declared & {canonicalize_name(provider) for provider in providers.get(name, [])}
    ]
    assert not undeclared


def imported_packages(node: ast.AST) -> set[str]:
    """The top-level packages that this statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.split(".")[0]}
    return set()


def test_the_lock_holds_all_that_pyproject_declares() -> None:
    """`make lock` was not forgotten: every declared package is locked, at a version that its declaration allows."""
    text, locked = (ROOT / "requirements.lock").read_text(), defaultdict[str, list[str]](list)
    for name, version in re.findall(r"^([\w.-]+)(?:\[[\w, -]+\])?==([^\s;]+)", text, re.M):
        locked[name].append(version)  # one, or one for each kind of machine
    wanted = [Requirement(line) for line in declared_requirements()]
    missing = [
        str(requirement)
        for requirement in wanted
        if not any(requirement.specifier.contains(one, True) for one in locked[canonicalize_name(requirement.name)])
    ]
    assert not missing, "Run `make lock`."


def test_the_lock_names_no_index_and_hashes_everything() -> None:
    for name in ("requirements.lock", "requirements-build.lock"):
        lines = (ROOT / name).read_text().splitlines()
        assert not [line for line in lines if "://" in line or line.startswith("-")]
        pins = [number for number, line in enumerate(lines) if re.match(r"[\w.-]+(\[[\w,-]+\])?==", line)]
        assert pins
        assert all(lines[number + 1].strip().startswith("--hash=sha256:") for number in pins)
