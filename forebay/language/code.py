"""The function of a view: a fingerprint of its code, and what the parameters of a batch view's must be.

The fingerprint is of the syntax tree of its parameters and body, without docstring, comments, layout, decorators and
name, so it changes when the code does and is the same in every version of Python. What the function calls is not in it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from forebay.errors import DefinitionError

CODE_LENGTH = 16
"""64 bits in hexadecimal."""
CONTEXT = "context"


def code_of(function: Callable[..., Any]) -> str:
    """The fingerprint of a function's code. Raises `DefinitionError` where it has none that can be read."""
    name = getattr(function, "__name__", repr(function))
    if hasattr(function, "__wrapped__"):
        raise DefinitionError(
            f"View {name!r}: its function is wrapped by another decorator, whose code no fingerprint would hold; do "
            "what that does in the function"
        )
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        tree = None
    if not isinstance(tree, ast.FunctionDef):
        raise DefinitionError(
            f"View {name!r}: its code cannot be read; declare it by a function in a file: def <name>(…)"
        )
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    text = "".join(part for node in (tree.args, *body) for part in _text(node))
    return hashlib.sha256(text.encode()).hexdigest()[:CODE_LENGTH]


def check_parameters(where: str, function: Callable[..., Any], sources: Sequence[str]) -> None:
    """Raise `DefinitionError` unless a function takes the context and then its sources by name."""
    names = list(inspect.signature(function).parameters)
    if names[:1] != [CONTEXT] or sorted(names[1:]) != sorted(sources):
        expected = ", ".join([CONTEXT, *sources])
        raise DefinitionError(
            f"{where}: its function takes ({', '.join(names)}); expected ({expected}): the context, then its sources"
        )


def _text(value: Any) -> Iterator[str]:
    """A syntax tree as text; empty fields are left out, since versions of Python differ in them alone."""
    if isinstance(value, ast.AST):
        yield f"{type(value).__name__}("
        for name, content in ast.iter_fields(value):
            if content is not None and content != [] and name not in ("ctx", "kind", "type_comment"):
                yield f"{name}="
                yield from _text(content)
        yield ")"
    elif isinstance(value, list):
        for one in value:
            yield from _text(one)
            yield ","
    else:
        yield repr(value)
