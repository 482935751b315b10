"""The manifest: its bytes, and that it comes back as what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from forebay import BatchView
from forebay.errors import FormatError
from forebay.language.definitions import Definitions
from forebay.language.fingerprint import fingerprint, signature
from forebay.language.manifest import from_manifest, to_manifest
from forebay.language.selection import Selection
from tests.language.shop import FRAUD, RATIO, SCORE, SPEND, USER, but
from tests.language.strategies import definitions

GOLDEN = Path(__file__).parent / "golden" / "manifest-1.json"
ON_DEMAND = GOLDEN.with_name("on-demand-1.json")


def without_functions(value: Definitions) -> Definitions:
    """The same definitions as a manifest can hold them."""
    views = {k: but(v, compute=None) if isinstance(v, BatchView) else v for k, v in value.views.items()}
    on_demand = {
        key: but(view, compute=None, inputs=[Selection(views[one.view.key], one.names) for one in view.inputs])
        for key, view in value.on_demand.items()
    }
    served = {**views, **on_demand}
    services = {
        key: but(service, features=[served[one.view.key][tuple(one.names)] for one in service.features])
        for key, service in value.services.items()
    }
    return replace(value, views=views, on_demand=on_demand, services=services)


def ordered(value: Any) -> Any:
    """A definition as nested lists: equality of dictionaries forgets their order, and that of keys is stored data."""
    if isinstance(value, msgspec.Struct):
        return [type(value).__name__, *(ordered(getattr(value, name)) for name in value.__struct_fields__)]
    if isinstance(value, dict):
        return [[name, ordered(inner)] for name, inner in value.items()]
    return [ordered(inner) for inner in value] if isinstance(value, list | tuple) else value


@given(definitions())
def test_a_manifest_comes_back_as_what_it_was(code: Definitions) -> None:
    back = from_manifest(to_manifest(code))
    assert back == without_functions(code)
    assert to_manifest(back) == to_manifest(code)
    for group in ("entities", "sources", "views", "on_demand"):
        for key, value in getattr(code, group).items():
            twin = getattr(back, group)[key]
            assert fingerprint(twin) == fingerprint(value)
            assert signature(twin) == signature(value)
            schema = getattr(value, "schema", getattr(value, "keys", None))
            assert ordered(getattr(twin, "schema", getattr(twin, "keys", None))) == ordered(schema)


def test_the_bytes_of_a_manifest_are_these() -> None:
    code = Definitions.of(FRAUD)
    deployed = Definitions(
        code.entities, code.sources, code.views, code.services, {"view:spend@0": "0123456789abcdef"}, number=7
    )
    assert to_manifest(deployed) == GOLDEN.read_bytes().rstrip(b"\n")
    assert from_manifest(GOLDEN.read_bytes()) == deployed


def test_the_bytes_of_on_demand_views_are_these() -> None:
    code = Definitions.of(but(FRAUD, features=[*FRAUD.features, RATIO]))
    manifest = msgspec.json.decode(to_manifest(code))
    assert msgspec.json.encode(manifest["on_demand"], order="sorted") == ON_DEMAND.read_bytes().rstrip(b"\n")
    assert manifest["services"]["fraud@1"]["features"][-1] == {"view": "ratio@1", "names": ["ratio"]}


def test_fingerprints_are_these() -> None:
    """Those of retired versions are kept in manifests: they would not be known again."""
    assert {value.key: fingerprint(value) for value in (SPEND, SCORE, RATIO, FRAUD)} == {
        "spend@1": "a97505f41f99e99d",
        "score@1": "a26986f8e110bbbe",
        "ratio@1": "aa8a97df76829689",
        "fraud@1": "33962f8ae11be65d",
    }


def test_a_manifest_is_canonical() -> None:
    one, two = Definitions.of(SPEND, USER, SCORE), Definitions.of(SCORE, SPEND)
    assert to_manifest(one) == to_manifest(two)
    text = to_manifest(Definitions.of(but(USER, description="Käufer"))).decode()
    assert "Käufer" in text
    assert ": " not in text


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "These 0 bytes are not a manifest. Where they are in Redis, remove the key"),
        (b"[]", "These 2 bytes are not a manifest. Where they are in Redis, remove the key"),
        (b'{"a":1}', "These 7 bytes are not a manifest. Where they are in Redis, remove the key"),
        (
            b'{"forebay_manifest":2}',
            "The manifest has format 2, and this Forebay reads 1; use the version that applied it",
        ),
        (
            b'{"forebay_manifest":1}',
            "The manifest cannot be read (KeyError('entities')); use the version of Forebay that applied it",
        ),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(FormatError) as caught:
        from_manifest(data)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("group", ["entities", "sources", "views", "services"])
def test_a_field_that_this_version_does_not_know_is_refused(group: str) -> None:
    content = msgspec.json.decode(to_manifest(Definitions.of(FRAUD)))
    next(iter(content[group].values()))["invented_later"] = 1
    with pytest.raises(FormatError, match="use the version of Forebay that applied it"):
        from_manifest(msgspec.json.encode(content))
