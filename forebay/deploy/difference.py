"""Differences between two definitions, fact by fact: what `plan` shows below a changed or refused definition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Facts = Mapping[str, Any]
FEATURES = "features."


@dataclass(frozen=True)
class Difference:
    """One fact that differs: its path, its value as deployed and in the code; `None` where there is none."""

    path: str
    deployed: Any
    declared: Any

    def __str__(self) -> str:
        return f"{self.path}: {_text(self.deployed)} → {_text(self.declared)}"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"path": self.path, "deployed": self.deployed, "declared": self.declared}


def compare(deployed: Facts, declared: Facts) -> list[Difference]:
    """The facts that differ, by path; a missing fact and a null one are the same.

    A feature that is in one of them alone is one fact.
    """
    here, there = _parts(deployed), _parts(declared)
    deployed, declared = _gathered(deployed, here - there), _gathered(declared, there - here)
    paths = sorted({*deployed, *declared})
    pairs = [Difference(path, deployed.get(path), declared.get(path)) for path in paths]
    return [pair for pair in pairs if pair.deployed != pair.declared]


def _parts(facts: Facts) -> set[str]:
    """The features that facts are about, each as the beginning of its paths."""
    return {".".join(path.split(".")[:2]) for path in facts if path.startswith(FEATURES) and path.count(".") > 1}


def _gathered(facts: Facts, wholes: set[str]) -> dict[str, Any]:
    """Facts in which some features are one fact each."""
    gathered: dict[str, Any] = {}
    for path, fact in facts.items():
        whole = ".".join(path.split(".")[:2])
        if whole not in wholes:
            gathered[path] = fact
        elif fact is not None:
            said = f"{path.removeprefix(whole)[1:]}={fact}"
            gathered[whole] = f"{gathered[whole]}, {said}" if whole in gathered else said
    return gathered


def flatten(description: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a description from the manifest, by path; elements of a list go by their names, not their places."""
    return dict(_flatten("", description))


def _flatten(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    dot = f"{path}." if path else ""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(f"{dot}{name}", inner)
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) and "name" in one for one in value):
        seen: Counter[str] = Counter()
        for one in value:
            seen[one["name"]] += 1
            twin = f"#{seen[one['name']]}" if seen[one["name"]] > 1 else ""
            yield from _flatten(f"{dot}{one['name']}{twin}", {k: v for k, v in one.items() if k != "name"})
    else:
        yield path, value


def _text(value: Any) -> str:
    return "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)
