"""Every error that Forebay raises on purpose.

    ForebayError
    ├── DefinitionError          a declaration contradicts itself or another one
    │   └── PlanRefusedError     a declaration contradicts what is deployed
    ├── UnknownNameError         a name that no declaration has
    ├── RequestError             a call with a missing key, a wrong type, a naive datetime …
    │   └── InstantTooEarlyError an online read at an instant that only history can answer
    ├── ConfigError              an environment variable or URL that cannot be used
    │   └── NotDeployedError     nothing is deployed where the settings point: all answers were defaults
    └── StoreError               a store said no
        ├── StoreUnavailableError  it cannot be reached
        │   └── StoreMovingError   what is asked for is on its way from one of its nodes to another
        ├── FencedError            another writer owns the slot: stop
        └── FormatError            bytes that this version cannot read

The rule of this file: an error says what was wrong, where, what was expected and what to do. No logic but the wording.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ForebayError(Exception):
    """The root: catching it catches all that Forebay raises on purpose."""


class DefinitionError(ForebayError):
    """A declaration that contradicts itself or another one."""


class PlanRefusedError(DefinitionError):
    """A declaration that contradicts what is deployed, for example changed code under an unchanged version."""


class UnknownNameError(ForebayError):
    """A name that no declaration has."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """The error for an unknown `name` of a `kind`, with the nearest of the `known` names as a suggestion."""
        return cls(f"There is no {kind} {name!r}. {suggestion(name, known)}")


class RequestError(ForebayError):
    """A request that cannot be answered as it was asked."""


class InstantTooEarlyError(RequestError):
    """An online read at an instant that lies before what the online store can answer exactly."""


class ConfigError(ForebayError):
    """A setting that cannot be used."""


class NotDeployedError(ConfigError):
    """Settings that point to where nothing is deployed."""


class StoreError(ForebayError):
    """A store refused or failed."""


class StoreUnavailableError(StoreError):
    """A store that cannot be reached."""


class StoreMovingError(StoreUnavailableError):
    """What is asked for is on its way from one node of a cluster to another, and on neither as a whole."""


class FencedError(StoreError):
    """This writer was replaced by another: it must stop, and nothing of its last commit was written."""


class FormatError(StoreError):
    """Bytes that this version of Forebay cannot read."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The sentence that points from a wrong name to the nearest known one, or lists what there is."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    if not names:
        return "There is none yet."
    shown = ", ".join(repr(n) for n in names[:8])
    return f"Known: {shown}{', …' if len(names) > 8 else ''}."
