"""What schemas of Avro let a message do beyond what its bytes say."""

from __future__ import annotations

from typing import Any

import pytest

from streaming.avro_schemas import contains_itself, counts_nothings


def record(name: str, *types: object) -> dict[str, Any]:
    """A record of fields of some types."""
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": one} for n, one in enumerate(types)]}


def array(items: object) -> dict[str, Any]:
    return {"type": "array", "items": items}


def test_which_schemas_contain_themselves() -> None:
    leaf = record("Leaf", "int", ["null", "string"], {"type": "bytes", "logicalType": "decimal"})
    flat = record("Flat", leaf, "Leaf", {"type": "array", "items": "Leaf"}, {"type": "map", "values": ["null", "Leaf"]})
    assert not contains_itself(flat, {"Leaf": leaf})
    for inner in (
        ["null", "Top"],
        {"type": "array", "items": "Top"},
        record("Other", {"type": "map", "values": "Top"}),
    ):
        assert contains_itself(record("Top", "int", inner), {})
    one, other = record("One", "Other"), record("Other", "One")
    assert contains_itself(record("Top", "One"), {"One": one, "Other": other})
    deep = {f"L{n}": record(f"L{n}", f"L{n + 1}", f"L{n + 1}") for n in range(200)} | {"L200": record("L200", "int")}
    assert not contains_itself(deep["L0"], deep)


NOTHING = record("Nothing", "null", record("None", {"type": "fixed", "name": "Empty", "size": 0}))
LOOP = record("Loop", ["null", "Loop"], array("int"))


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("null", True),
        ({"type": "null"}, True),
        (NOTHING, True),
        ("Nothing", True),
        (record("Bare"), True),
        (["null", "int"], False),
        ("int", False),
        (array("int"), False),
        (array("null"), True),
        ({"type": "map", "values": "null"}, False),
        ({"type": "enum", "name": "One", "symbols": ["A"]}, False),
        (record("Some", "null", "int"), False),
        (LOOP, False),
        (record("Self", "Self"), False),
    ],
)
def test_which_schemas_count_nothings(items: object, expected: bool) -> None:
    named = {"Nothing": NOTHING, "Loop": LOOP, "Self": record("Self", "Self")}
    inside = record("Outer", "int", {"type": "map", "values": ["null", record("Inner", array(items))]})
    assert counts_nothings(inside, named) == expected
    assert counts_nothings(record("Whole", ["null", "Outer"]), named | {"Outer": inside}) == expected
