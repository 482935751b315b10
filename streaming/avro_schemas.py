"""What a schema of Avro lets a message do that is read by it: be nested, or be long, beyond what its bytes say.

Lives here: judging schemas, as fastavro parses them (records by name, those of other schemas in `named`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECORDS = ("record", "error")


def contains_itself(schema: Any, named: Mapping[str, Any]) -> bool:
    """Whether a record is reached from within itself: a message may be nested as deeply as it is long."""
    return _reaches_itself(schema, named, set(), set())


def counts_nothings(schema: Any, named: Mapping[str, Any]) -> bool:
    """Whether there is an array of items that take no bytes: a message of some bytes may hold any number of them."""
    return _has_array_of_nothings(schema, named, set())


def _reaches_itself(schema: Any, named: Mapping[str, Any], within: set[str], known: set[str]) -> bool:
    """Whether a record is reached from within itself; `known` are names of which that is not so."""
    if isinstance(schema, list):
        return any(_reaches_itself(one, named, within, known) for one in schema)
    if isinstance(schema, str):
        return schema in within or (
            schema in named and schema not in known and _reaches_itself(named[schema], named, within, known)
        )
    if schema["type"] not in RECORDS:
        return _reaches_itself(_inner(schema), named, within, known)
    name = schema["name"]
    if name in within or name in known:
        return name in within
    within.add(name)
    found = any(_reaches_itself(field["type"], named, within, known) for field in schema["fields"])
    within.remove(name)
    known.add(name)
    return found


def _has_array_of_nothings(schema: Any, named: Mapping[str, Any], seen: set[str]) -> bool:
    if isinstance(schema, list):
        return any(_has_array_of_nothings(one, named, seen) for one in schema)
    if isinstance(schema, str):
        return schema in named and schema not in seen and _has_array_of_nothings(named[schema], named, seen)
    if schema["type"] in RECORDS:
        if schema["name"] in seen:
            return False
        seen.add(schema["name"])
        return any(_has_array_of_nothings(field["type"], named, seen) for field in schema["fields"])
    if schema["type"] == "array" and _takes_no_bytes(schema["items"], named, frozenset()):
        return True
    return _has_array_of_nothings(_inner(schema), named, seen)


def _takes_no_bytes(schema: Any, named: Mapping[str, Any], within: frozenset[str]) -> bool:
    """Whether every value of a type is written as nothing; what would have to contain itself is none."""
    if isinstance(schema, list):
        return False
    if isinstance(schema, str):
        return schema == "null" or (schema in named and _takes_no_bytes(named[schema], named, within))
    if schema["type"] in RECORDS:
        name = schema["name"]
        return name not in within and all(
            _takes_no_bytes(field["type"], named, within | {name}) for field in schema["fields"]
        )
    if schema["type"] == "fixed":
        return bool(schema["size"] == 0)
    return schema["type"] not in ("array", "map") and _takes_no_bytes(schema["type"], named, within)


def _inner(schema: Mapping[str, Any]) -> Any:
    """What an array or a map is of; of anything else, its type."""
    return schema.get("items", schema.get("values", schema["type"]))
