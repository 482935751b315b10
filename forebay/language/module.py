"""The module of declarations: imported with its submodules, its mistakes told in one sentence.

The one place in the language that runs the user's code. An exception in it becomes a `DefinitionError` that names the
file and line of the user's code where it happened, with the exception itself as its cause.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType

from forebay.errors import DefinitionError


def import_modules(name: str) -> list[ModuleType]:
    """A module and all its submodules, in the order of their names; found in the working folder too."""
    modules = [_import(name, name)]
    for path in getattr(modules[0], "__path__", ()):
        modules += _submodules(name, name, path)
    return modules


def _submodules(root: str, package: str, path: str) -> list[ModuleType]:
    modules = []
    for info in sorted(pkgutil.iter_modules([path]), key=lambda info: info.name):
        if info.name == "__main__":
            continue
        module = _import(f"{package}.{info.name}", root)
        modules.append(module)
        for inner in getattr(module, "__path__", ()):
            modules += _submodules(root, module.__name__, inner)
    return modules


def _import(name: str, root: str) -> ModuleType:
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and _is_or_holds(error.name, name):
            raise DefinitionError(
                f"There is no module {name!r} to take definitions from (searched from {here}); "
                "run from the folder that holds it, or set FOREBAY_DEFINITIONS to its name"
            ) from error
        raise DefinitionError(f"{_place(error, root)}: {_sentence(error)}") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _is_or_holds(missing: str, name: str) -> bool:
    return name == missing or name.startswith(f"{missing}.")


def _place(error: Exception, root: str) -> str:
    """`file:line` of the user's code: the innermost frame in the module's own files."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _belongs(frame.filename, root)]
    return f"{_short(own[-1].filename)}:{own[-1].lineno}" if own else f"module {root!r}"


def _belongs(filename: str, root: str) -> bool:
    spec = importlib.util.find_spec(root.partition(".")[0])
    if spec is None:
        return False
    folders = spec.submodule_search_locations
    return any(Path(filename).is_relative_to(f) for f in folders) if folders else filename == spec.origin


def _short(filename: str) -> str:
    """A path from the working folder, where it lies in it."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _sentence(error: Exception) -> str:
    """What went wrong; our own errors already say it in a sentence."""
    if isinstance(error, DefinitionError):
        return str(error)
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
