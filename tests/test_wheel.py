"""What a user gets from `pip install forebay`: the SDK alone, and light to import.

Lives here: what is in the wheel, what it promises to pip, and what `import forebay` loads. Weight is counted in
modules, not in seconds, which a busy machine would falsify.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINES = {
    "bytewax",
    "confluent_kafka",
    "dagster",
    "deltalake",
    "duckdb",
    "numba",
    "pandas",
    "s3fs",
    "starlette",
    "uvicorn",
}
COMMAND_LINE = {"rich", "typer"}
IMPORTED_MODULES_MAX = 500  # numpy, msgspec, redis and pyarrow make 400 of them


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as a release would build it, by the build backend that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_forebay_and_its_licence_only(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    info = next(name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
    assert {name.split("/")[0] for name in names} == {"forebay", info}
    assert f"{info}/licenses/LICENSE" in names
    assert "forebay/py.typed" in names
    inside = {name for name in names if name.startswith("forebay/")}
    assert not [name for name in inside if not name.endswith((".py", "py.typed"))]


def test_the_wheel_holds_every_module(wheel: zipfile.ZipFile) -> None:
    source = {str(path.relative_to(ROOT)) for path in (ROOT / "forebay").rglob("*.py")}
    assert source == {name for name in wheel.namelist() if name.endswith(".py")}


def test_the_wheel_asks_pip_for_little(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    base = {line.split(">")[0] for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert base == {"hiredis", "msgspec", "numpy", "pyarrow", "redis", "rich", "typer"}
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "assets",
        "embedded",
        "fast",
        "offline",
        "serving",
        "spark",
        "streaming",
    }


def test_importing_forebay_loads_no_engine(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """An inference service pays for what it uses: run on the unpacked wheel, away from the checkout."""
    wheel.extractall(tmp_path)
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import forebay
for name in forebay.__all__:
    getattr(forebay, name)
assert forebay.__file__.startswith({str(tmp_path)!r}), forebay.__file__
print(*sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    modules = run.stdout.split()
    loaded = {name.split(".")[0] for name in modules}
    assert not loaded & (ENGINES | COMMAND_LINE)
    assert len(modules) <= IMPORTED_MODULES_MAX
