"""What the pages list is what the code has: arguments with their defaults, types, statuses, settings, commands, assets.

A table that drifts fails here, beside the rows that the code says.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.main import get_command

import forebay
from assets import keys as assets_keys
from forebay import (
    Bool,
    Count,
    DecayedCount,
    Decimal,
    Entity,
    EventSource,
    Feature,
    FeatureService,
    FileStream,
    Float64,
    Int64,
    KafkaTopic,
    List,
    RedisStream,
    SecondsSince,
    Sessionize,
    String,
    TableSource,
    Timestamp,
    Vector,
    WindowedView,
    batch_view,
    on_demand,
)
from forebay.backfill.batch_view import compute_batch_view
from forebay.cli.app import app
from forebay.core.values import FeatureColumn, Status, arrow_type
from forebay.ingest.batch import REASONS
from forebay.ingest.convert import convert
from forebay.ingest.select import check_expressions
from forebay.instants import day_us, duration_text, duration_us
from forebay.language.aggregations import AGGREGATIONS, Aggregation
from forebay.language.definitions import Definitions
from forebay.language.statistics import AnyStatistic, Statistic
from forebay.language.types import AnyType
from forebay.language.windows import default_hop_us
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings
from streaming import run as stream
from tests.docs.pages import ROOT, blocks, table, tables
from tests.own_arguments import own_arguments

LANGUAGE, OPERATIONS = ROOT / "docs/language.md", ROOT / "docs/operations.md"
COLUMNS: tuple[AnyType, ...] = (Int64, Float64, Decimal(2), Timestamp, Bool, String, String(max_bytes=16))
REFUSED = "–"
DECLARATIONS = {
    "Entity": Entity,
    "EventSource": EventSource,
    "FileStream": FileStream,
    "RedisStream": RedisStream,
    "KafkaTopic": KafkaTopic,
    "TableSource": TableSource,
    "Sessionize": Sessionize,
    "WindowedView": WindowedView,
    "Aggregations": Aggregation,
    "Feature": Feature,
    "FeatureService": FeatureService,
}


def shown(default: Any) -> str:
    """A default as a page writes it."""
    if default in (inspect.Parameter.empty, msgspec.NODEFAULT, msgspec.UNSET, ()):
        return "required"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


def arguments(struct: type[msgspec.Struct]) -> list[tuple[str, str]]:
    """The arguments of a declaration and their defaults."""
    fields = msgspec.structs.fields(struct)
    made = [f.default_factory() if f.default_factory is not msgspec.NODEFAULT else f.default for f in fields]
    return [(f"`{f.name}`", shown(default)) for f, default in zip(fields, made, strict=True)]


def named(rows: Iterable[list[str]]) -> list[tuple[str, str]]:
    return [(row[0], row[2]) for row in rows]


@pytest.mark.parametrize("heading", DECLARATIONS)
def test_arguments(heading: str) -> None:
    assert named(table(LANGUAGE, heading, "argument")) == arguments(DECLARATIONS[heading])


def test_arguments_of_batch_views() -> None:
    parameters = inspect.signature(batch_view).parameters
    expected = [(f"`{name}`", shown(parameter.default)) for name, parameter in parameters.items()]
    assert named(table(LANGUAGE, "Batch views", "argument")) == expected


def test_arguments_of_on_demand_views() -> None:
    parameters = inspect.signature(on_demand).parameters
    expected = [(f"`{name}`", shown(parameter.default)) for name, parameter in parameters.items()]
    assert named(table(LANGUAGE, "On-demand views", "argument")) == [
        (name, "`()`" if name == "`inputs`" else default) for name, default in expected
    ]


def test_arrays_of_on_demand_functions() -> None:
    """What a function gets of each type is what the page says."""
    kinds = {"Int64": Int64, "Float64": Float64, "Decimal(n)": Decimal(2), "Bool": Bool, "Timestamp": Timestamp}
    kinds |= {"String": String, "Vector(n)": Vector(3), "List(T)": List(Int64)}
    rows = {
        name: row[1] for row in table(LANGUAGE, "On-demand views", "type") for name in re.findall(r"`(.+?)`", row[0])
    }
    assert set(rows) == {*kinds, "event_timestamp"}
    for name, kind in kinds.items():
        value = {"Vector(n)": [1.0, 2.0, 3.0], "List(T)": [1]}.get(name, 1)
        default = {"String": "a", "Bool": True, "Timestamp": 0}.get(name, value)
        array = FeatureColumn.of_defaults(Feature("f", kind, default=default), 2).to_numpy()
        assert rows[name].startswith("objects" if array.dtype.hasobject else str(array.dtype)), name
        assert array.shape == ((2, 3) if name == "Vector(n)" else (2,))


def test_every_declaration_is_documented() -> None:
    """What `forebay` exports is on the page, and what has arguments has a table of them."""
    page = LANGUAGE.read_text()
    exported = {name for name in forebay.__all__ if name not in ("BatchView", "FeatureStore", "ForebayError")}
    assert not {name for name in exported if f"`{name}" not in page and f"# {name}" not in page}
    structs = {name for name in exported if isinstance(getattr(forebay, name), type(msgspec.Struct))}
    described = {
        *DECLARATIONS,
        *(kind.__name__ for kind in AGGREGATIONS),
        "Decimal",
        "Derived",
        "List",
        "OnDemandView",
        "Vector",
    }

    described |= {kind.__name__ for kind in get_args(AnyStatistic)}
    assert structs <= described


def test_statistics() -> None:
    """Each statistic, its arguments and the types that it is taken of."""
    kinds: tuple[type[Statistic], ...] = get_args(AnyStatistic)
    rows = table(LANGUAGE, "Statistical defaults", "statistic")
    assert [row[0].strip("`").partition("(")[0] for row in rows] == [kind.__name__ for kind in kinds]
    for row, kind in zip(rows, kinds, strict=True):
        own = [f.name for f in msgspec.structs.fields(kind) if f.name != "learned"]
        assert set(re.findall(r"(\w+)=", row[0])) == set(own), kind
        assert {name.strip("` ").partition("(")[0] for name in row[1].split(",")} == {
            str(kind.__struct_config__.tag) for kind in kind.takes
        }


def test_aggregations() -> None:
    def cell(kind: type[Aggregation], column: AnyType | None) -> str:
        of = None if column is None else "c"
        try:
            aggregation = kind("a", of=of, windows=("1h",), default=None, **own_arguments(kind))
        except Exception:  # noqa: BLE001  whatever refuses the column is a dash in the table
            return REFUSED
        return str(aggregation.output(column)) if column is None or aggregation.accepts(column) else REFUSED

    rows = next(rows for _, rows in tables(LANGUAGE) if rows[0][0] == "aggregation")
    assert rows[0] == ["aggregation", *map(str, COLUMNS), "no column"]
    assert rows[1:] == [[f"`{kind.__name__}`", *(cell(kind, c) for c in (*COLUMNS, None))] for kind in AGGREGATIONS]


def test_types() -> None:
    rows = table(LANGUAGE, "Types", "type")
    kinds = {"String": String, "Bool": Bool, "Int64": Int64, "Float64": Float64, "Timestamp": Timestamp}
    kinds |= {"Decimal(2)": Decimal(2), "List(Int64)": List(Int64), "Vector(3)": Vector(3)}
    assert {row[0].strip("`"): row[3].strip("`") for row in rows} == {k: str(arrow_type(t)) for k, t in kinds.items()}


def test_rules_for_values() -> None:
    assert {row[0].strip("`") for row in table(LANGUAGE, "What an event must be", "type")} == {
        str(kind).partition("(")[0] for kind in COLUMNS
    }
    assert convert(Int64, pa.array([5.0])).array.to_pylist() == [5]


def test_hops() -> None:
    rows = [[cell.strip("`") for cell in row] for row in table(LANGUAGE, "Windows and hops", "window")]
    assert rows == [[window, duration_text(default_hop_us(duration_us(window)))] for window, _ in rows]


def test_statuses_and_reasons() -> None:
    statuses = table(LANGUAGE, "Nulls, defaults, TTL, statuses", "status")
    assert [row[0].strip("`") for row in statuses] == [status.name for status in Status]
    reasons = table(LANGUAGE, "What an event must be", "reason")
    assert [row[0].strip("`") for row in reasons] == list(REASONS)


def test_the_module_of_the_language_page_computes(
    home: Path, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its expressions are SQL, and its batch view yields the rows that it declares."""
    (module,) = [block for block in blocks(LANGUAGE) if block.file]
    (tmp_path / f"{namespace}.py").write_text(module.text)
    monkeypatch.syspath_prepend(str(tmp_path))
    definitions = Definitions.load(namespace)
    check_expressions(definitions.view("user_payments@1"))
    rows = "SELECT 'ada' AS user_id, 'GB' AS country, 0.5 AS score, TIMESTAMPTZ '2024-02-01 00:00:00Z' AS changed_at"
    (home / "accounts").mkdir()
    pq.write_table(duckdb.sql(rows).to_arrow_table(), home / "accounts/a.parquet")
    store, view = OfflineStore(Settings.from_env()), definitions.view("user_account@1")
    start_us, end_us = day_us("2024-02-01"), day_us("2024-02-03")
    done = compute_batch_view(store, view, start_us, end_us, home=home, now_us=end_us)
    assert (done.partitions, done.rows) == (2, 2)


def test_settings() -> None:
    """Every variable that the code reads is documented, with its default."""
    code = [path for folder in ("forebay", "serving", "streaming", "assets") for path in (ROOT / folder).rglob("*.py")]
    read = {name for path in code for name in re.findall(r"FOREBAY_[A-Z_]+\b", path.read_text())}
    rows = {row[0].strip("`"): row[1].strip("`") for row in table(OPERATIONS, "Settings", "variable")}
    passed_on = tuple(name.removesuffix("*") for name in rows if name.endswith("*"))
    assert {name for name in rows if not name.endswith("*")} == {n for n in read if not n.startswith(passed_on)}
    settings = Settings.from_env({})
    assert (rows["FOREBAY_ONLINE_URL"], rows["FOREBAY_NAMESPACE"]) == (settings.online_url, settings.namespace)
    assert rows["FOREBAY_DEFINITIONS"] == settings.definitions
    assert settings.home == Path(rows["FOREBAY_HOME"]).absolute()
    assert settings.offline_url == rows["FOREBAY_OFFLINE_URL"].replace("$FOREBAY_HOME", str(settings.home))


def test_commands() -> None:
    """Every command is documented, with its arguments and options."""
    documented = {}
    for text, _, options in table(OPERATIONS, "Commands", "command"):
        words = text.strip("`").split()
        documented[words[1]] = (len(words) - 2, set(re.findall(r"--[\w-]+", options)))
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a typer app is a group of them
    assert documented == {
        name: (
            sum(parameter.param_type_name == "argument" for parameter in command.params),
            {option for p in command.params for option in p.opts if p.param_type_name == "option"} - {"--help"},
        )
        for name, command in commands.items()
    }


def test_options_of_the_stream() -> None:
    rows = table(ROOT / "docs/stream.md", "The stream", "option")
    options = {option for row in rows for option in re.findall(r"--[\w-]+", row[0])}
    assert options == set(re.findall(r'"(--[\w-]+)"', inspect.getsource(stream.parse)))


def test_the_command_of_the_stream_takes_what_its_module_takes() -> None:
    """`forebay stream` passes on every option of `python -m streaming`, with the same default."""
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a typer app is a group of them
    params = {p.opts[0]: p.default for p in commands["stream"].params if p.opts[0] != "--help"}
    module = vars(stream.parse([]))
    named = {f"--{name.replace('_', '-')}": default for name, default in module.items()}
    assert {name: default or None for name, default in params.items()} == {n: d or None for n, d in named.items()}


def test_assets() -> None:
    folders = {row[0].strip("`").partition("/")[0] for row in table(OPERATIONS, "Dagster", "asset")}
    code = inspect.getsource(assets_keys)
    assert folders == set(re.findall(r'"(\w+)"', code.partition('"""')[2].partition('"""')[2]))


def test_arguments_of_their_own() -> None:
    shared = {field.name for field in msgspec.structs.fields(Aggregation)}
    expected = [
        (f"`{kind.__name__}`", f"`{field.name}`", "required" if not field.default else f"`{field.default}`")
        for kind in AGGREGATIONS
        for field in msgspec.structs.fields(kind)
        if field.name not in shared
    ]
    rows = next(rows for _, rows in tables(LANGUAGE) if rows[0][:2] == ["of", "argument"])
    assert [(row[0], row[1], row[3]) for row in rows[1:]] == expected


def test_some_aggregations_need_no_column() -> None:
    free = {Count.__name__, SecondsSince.__name__, DecayedCount.__name__}
    assert {k.__name__ for k in AGGREGATIONS if not k.of_required} == free
