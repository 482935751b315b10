"""A dictionary that cannot be changed: what definitions hold in place of the one that was declared.

`types.MappingProxyType` would be a view of a dictionary that somebody else may still hold, and can neither be hashed,
pickled nor encoded. Invariant: equal contents are equal and have one hash, in whatever order they were written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Frozen(dict[Key, Value]):
    """A dictionary whose content is fixed when it is made; hashable where its values are.

    >>> Frozen({"domain": "shop"})["domain"] = "risk"
    Traceback (most recent call last):
    TypeError: A definition cannot be changed after it is made; make another one, with another version
    """

    def _refuse(self, *arguments: Any, **named: Any) -> NoReturn:
        raise TypeError("A definition cannot be changed after it is made; make another one, with another version")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # dict says that it has none
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[Frozen[Key, Value]], tuple[Mapping[Key, Value]]]:
        return type(self), (dict(self),)
