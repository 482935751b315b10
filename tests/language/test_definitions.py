"""Definitions: collected from modules and objects, looked up by name with a hint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from forebay import FeatureService, RedisStream, String
from forebay.errors import DefinitionError, ForebayError, RequestError, UnknownNameError
from forebay.language.definitions import Definitions
from tests.language.shop import FRAUD, PEOPLE, SCORE, SHOP, SPEND, but

Write = Callable[[dict[str, str]], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a package of the given files in the working folder, and says its name."""
    monkeypatch.chdir(tmp_path)

    def write_files(files: dict[str, str]) -> str:
        name = f"defs_{abs(hash(str(tmp_path)))}"
        for path, text in {"__init__.py": "", **files}.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text).lstrip())
        return name

    yield write_files
    for module in [module for module in sys.modules if module.startswith("defs_")]:
        del sys.modules[module]


def test_all_submodules_are_collected_with_what_they_refer_to(write: Write) -> None:
    module = write(
        {
            "users.py": "from tests.language.shop import FRAUD",
            "inner/__init__.py": "",
            "inner/deep.py": """
                from forebay import Entity, Int64
                entities = [Entity(f"e{n}", keys={"id": Int64}) for n in range(2)]
                """,
            "__main__.py": "raise SystemExit('never run')",
        }
    )
    definitions = Definitions.load(module)
    assert list(definitions.entities) == ["e0", "e1", "user"]
    assert definitions.sources == {"people": PEOPLE, "shop": SHOP}
    assert definitions.views == {"score@1": SCORE, "spend@1": SPEND}
    assert definitions.services == {"fraud@1": FRAUD}


def test_the_working_folder_is_searched_and_left_out_of_the_path_again(write: Write) -> None:
    before = list(sys.path)
    Definitions.load(write({}))
    assert sys.path == before


def test_the_same_definition_in_two_places_is_one() -> None:
    assert Definitions.of(SPEND, but(SPEND)).views == {"spend@1": SPEND}


def test_two_definitions_of_one_name_are_refused_and_both_are_named(write: Write) -> None:
    module = write(
        {
            "a.py": "from forebay import Entity, String\nuser = Entity('user', keys={'user_id': String})",
            "b.py": "from forebay import Entity, Int64\nperson = Entity('user', keys={'user_id': Int64})",
        }
    )
    with pytest.raises(DefinitionError) as caught:
        Definitions.load(module)
    assert str(caught.value) == (
        f"Two different definitions are called entity 'user': {module}.a.user and {module}.b.person. "
        "Give one another name"
    )


def test_a_definition_that_is_only_referred_to_is_named_by_who_refers_to_it() -> None:
    other = but(SPEND, name="other", source=but(SHOP, lateness="1h"))
    with pytest.raises(DefinitionError) as caught:
        Definitions.of(SPEND, other)
    assert str(caught.value) == (
        "Two different definitions are called source 'shop': view 'spend@1' in argument 1 "
        "and view 'other@1' in argument 2. Give one another name"
    )
    with pytest.raises(DefinitionError, match=r"view 'spend@1': .* Give one another name or version$"):
        Definitions.of(SPEND, but(SPEND, ttl=None))


def test_a_stream_that_is_trimmed_for_one_source_is_not_read_by_another() -> None:
    first, second = (but(SHOP, name=name, stream=RedisStream("k", trim=name == "a")) for name in "ab")
    with pytest.raises(DefinitionError) as caught:
        Definitions.of(first, second)
    assert str(caught.value) == (
        "RedisStream 'k' has trim=True and is read by several sources: 'a', 'b'. "
        "What one has archived another may still need; trim it yourself, behind all of them"
    )
    assert len(Definitions.of(first, but(second, stream=RedisStream("other", trim=True))).sources) == 2
    assert len(Definitions.of(but(first, stream=RedisStream("k")), second).sources) == 2


BROKEN = {
    "a wrong declaration": (
        "x = 1\nfrom forebay import Entity, String\nuser = Entity('1', keys={'a': String})",
        (
            "a.py:3: Entity '1' cannot be a name; "
            "expected a letter, then letters, digits or single underscores, at most 64"
        ),
    ),
    "an exception": ("def f():\n    return 1 / 0\n\n\nf()", "a.py:2: ZeroDivisionError: division by zero"),
    "a syntax error": ("x = 1\nx = (", "a.py:2: SyntaxError: '(' was never closed"),
    "a missing package": (
        "import nowhere_to_be_found",
        "a.py:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'",
    ),
    "a missing neighbour": ("from . import b", "a.py:1: ImportError: cannot import name 'b' from '{module}'"),
    "elsewhere": ("import json\njson.loads('{{')", "a.py:2: JSONDecodeError: Expecting property name"),
}


@pytest.mark.parametrize(("code", "sentence"), BROKEN.values(), ids=BROKEN.keys())
def test_a_mistake_in_the_module_is_told_by_file_and_line(write: Write, code: str, sentence: str) -> None:
    module = write({"a.py": code.replace("{{", "{")})
    with pytest.raises(DefinitionError) as caught:
        Definitions.load(module)
    assert str(caught.value).startswith(f"{module}/{sentence.replace('{module}', module)}")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["no_such_module", "no_such_module.inner", "tests.no_such_module"])
def test_a_module_that_is_not_there_says_where_it_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        Definitions.load(name)
    assert str(caught.value) == (
        f"There is no module {name!r} to take definitions from (searched from {Path.cwd()}); "
        "run from the folder that holds it, or set FOREBAY_DEFINITIONS to its name"
    )


def test_no_definition_is_refused() -> None:
    with pytest.raises(DefinitionError, match="'spend@1' is not an entity, source, view or service"):
        Definitions.of("spend@1")  # type: ignore[arg-type]  # on purpose: a caller without types


DEFINITIONS = Definitions.of(FRAUD, but(SPEND, version=2, ttl="1d"))


def test_a_service_is_its_features_in_order() -> None:
    expected = [(SPEND, "paid_24h"), (SPEND, "purchases_1h"), (SCORE, "score"), (SCORE, "since")]
    assert DEFINITIONS.resolve("fraud@1") == expected
    assert DEFINITIONS.resolve(FRAUD) == expected


def test_a_list_of_features_is_taken_in_its_order() -> None:
    assert DEFINITIONS.resolve(["score@1:since", "spend@2:paid_24h"]) == [
        (SCORE, "since"),
        (DEFINITIONS.view("spend@2"), "paid_24h"),
    ]


UNKNOWN = {
    "service": ("frad@1", "There is no service 'frad@1'. Did you mean 'fraud@1'?"),
    "version of a service": ("fraud@2", "There is no service 'fraud@2'. There is 'fraud@1'."),
    "unknown service without version": ("fraut", "There is no service 'fraut'. Did you mean 'fraud@1'?"),
    "view for a service": (
        "spend@1",
        "features='spend@1' is a view, not a service; list its features, e.g. ['spend@1:purchases_1h']",
    ),
    "one feature": (
        "spend@1:paid_24h",
        "features='spend@1:paid_24h' names a single feature; write a list: features=['spend@1:paid_24h']",
    ),
    "version of a view": (["spend@3:x"], "There is no view 'spend@3'. There are 'spend@1', 'spend@2'."),
    "view": (["spent@1:x"], "There is no view 'spent@1'. Did you mean 'spend@1'?"),
    "feature": (["spend@1:paid_1h"], "View 'spend@1' has no feature 'paid_1h'. Did you mean 'paid_24h'?"),
    "no feature": (["spend@1"], "'spend@1' does not name a feature; write 'view@version:feature'"),
    "a number": ([7], "7 does not name a feature; write 'view@version:feature'"),
    "nothing": (
        [],
        "features=[]; expected a service such as 'fraud@1' or a list such as ['user_spend@1:spend_24h']",
    ),
}


@pytest.mark.parametrize(("features", "sentence"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_cannot_be_resolved_says_what_to_write(features: object, sentence: str) -> None:
    with pytest.raises((UnknownNameError, RequestError)) as caught:
        DEFINITIONS.resolve(features)  # type: ignore[arg-type]  # on purpose: a caller without types
    assert str(caught.value) == sentence


@pytest.mark.parametrize("kind", ["entity", "source", "view", "service"])
def test_an_unknown_name_of_nothing(kind: str) -> None:
    with pytest.raises(ForebayError, match=rf"There is no {kind} 'x'\. There is none yet\."):
        getattr(Definitions(), kind)("x")


def test_windowed_views_of_a_source() -> None:
    assert [view.key for view in DEFINITIONS.windowed_views("shop")] == ["spend@1", "spend@2"]
    assert DEFINITIONS.windowed_views(SHOP) == DEFINITIONS.windowed_views()
    with pytest.raises(UnknownNameError, match=r"no source 'shopp'\. Did you mean 'shop'\?"):
        DEFINITIONS.windowed_views("shopp")


def test_views_that_only_a_service_names_are_collected() -> None:
    service = FeatureService("s", version=1, features=[SPEND["paid_24h"]])
    assert list(Definitions.of(service).views) == ["spend@1"]
    assert isinstance(Definitions.of(service).entity("user").keys["user_id"], type(String))
