"""Commands that ask for values: `get`, `history`, `training-set`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from forebay.calls.texts import value_of
from forebay.errors import RequestError, suggestion

if TYPE_CHECKING:
    import pyarrow as pa

    from forebay.calls.responses import OnlineResponse
    from forebay.client.clock import Clock
    from forebay.language.types import AnyType

ROWS_SHOWN, FEATURES_BESIDE, INSTANTS_BESIDE = 40, 6, 5
"""What of a history fits a screen; `--json` prints all."""
ENGINES = ("local", "spark")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ClockOption = Annotated[
    str, typer.Option(help="as_of: by all events there are now; as_known: by what had arrived or been computed then.")
]
Keys = Annotated[list[str], typer.Argument(metavar="KEY=VALUE…", help="The entity's keys; `key=` is a null key.")]
Row = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY=VALUE…",
        help="The entity's keys, and what on-demand features need of the request; `key=` is null.",
    ),
]


def get(
    service: Annotated[str, typer.Argument(help="name@version, or view@version:feature[,view@version:feature…].")],
    row: Row,
    at: Annotated[str | None, typer.Option(help="An instant (ISO 8601 with offset) in place of now.")] = None,
    as_json: Json = False,
) -> None:
    """Print the features of one entity as a model gets them now, with their statuses and ages."""
    from forebay.client.feature_store import FeatureStore

    features = service.split(",") if ":" in service else service
    with FeatureStore.connect() as store:
        entity = parse_row(row, {**store.keys_of(features), **store.request_of(features)})
        response = store.get_online_features(features, entity_rows=[entity], at=at)
    if as_json:
        _print_response_json(response, entity)
    else:
        _print_response(response, service, entity)


def history(
    view: Annotated[str, typer.Argument(help="name@version.")],
    keys: Keys,
    start: Annotated[
        str | None, typer.Option(help="The first instant; default: where the view's history starts.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Where to stop (excluded); default: now.")] = None,
    every: Annotated[str | None, typer.Option(help="A grid such as 1h, in place of each change.")] = None,
    at: Annotated[str | None, typer.Option(help="One instant only.")] = None,
    clock: ClockOption = "as_of",
    as_json: Json = False,
) -> None:
    """Print what a view's features were, over time or at one instant, from the offline store."""
    from forebay.client.feature_store import FeatureStore
    from forebay.instants import instant_us

    if at is not None and (start, end, every) != (None, None, None):
        raise RequestError("--at names one instant; leave out --start, --end and --every, or leave out --at")
    with FeatureStore.connect() as store:
        declared = store.find(lambda known: known.view(view))
        entity = parse_row(keys, declared.entity.keys)
        if at is not None:
            found = store.feature_history(view, entity, start=at, end=instant_us(at) + 1, clock=cast("Clock", clock))
        else:
            found = store.feature_history(view, entity, start=start, end=end, every=every, clock=cast("Clock", clock))
    table = found.to_arrow()
    if as_json:
        _json(table.to_pylist())
    else:
        _print_history(table.select(["instant", *found.feature_names]), f"{view} of {_entity_text(entity)}")


def training_set(
    service: Annotated[str, typer.Argument(help="name@version, or view@version:feature[,view@version:feature…].")],
    spine: Annotated[
        Path, typer.Option(help="Parquet, CSV or NDJSON: keys, event_timestamp, request columns; others are kept.")
    ],
    out: Annotated[
        str,
        typer.Option(help="Where to write it: .parquet, .csv or .ndjson, or a folder (or s3://…) for a Delta table."),
    ],
    memory: Annotated[
        str | None, typer.Option(help="What the process may hold, such as 2GB: entities are answered bucket by bucket.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or spark: buckets are answered by its tasks.")] = "local",
    master: Annotated[str, typer.Option(help="The master of Spark.")] = "local[2]",
    scratch: Annotated[
        Path | None, typer.Option(help="A folder for what is spilled, which Spark's workers share.")
    ] = None,
    clock: ClockOption = "as_of",
    with_statuses: Annotated[bool, typer.Option("--with-statuses", help="Add <feature>__status columns.")] = False,
    as_json: Json = False,
) -> None:
    """Write the training set of a spine: each row with the features as they were at its event_timestamp."""
    from forebay.cli.printing import say
    from forebay.client.feature_store import FeatureStore
    from forebay.history.outputs import check_out, write_out

    check_out(out, "--out")
    if engine not in ENGINES:
        raise RequestError(f"--engine {engine!r}; expected one of {', '.join(ENGINES)}. {suggestion(engine, ENGINES)}")
    spark = master if engine == "spark" else None
    started = time.monotonic()
    features = service.split(",") if ":" in service else service
    how: dict[str, Any] = {"features": features, "clock": clock, "with_statuses": with_statuses}
    with FeatureStore.connect() as store:
        if memory is None and spark is None:
            training = store.get_historical_features(spine, **how)
            rows, names = len(training), training.feature_names
            write_out(training.to_arrow().schema, [training.to_arrow()], out)
        else:
            written = store.write_historical_features(
                spine, out=out, memory=memory or "2GB", spark=spark, scratch=scratch, **how
            )
            rows, names = written.rows, written.feature_names
    seconds = time.monotonic() - started
    if as_json:
        _json({"rows": rows, "features": list(names), "out": out, "seconds": round(seconds, 3)})
    else:
        say(f"{rows} rows with {len(names)} features of {service} in {seconds:.1f} s: {out}")


def parse_row(pairs: Sequence[str], keys: Mapping[str, AnyType]) -> dict[str, Any]:
    """The row that `key=value` arguments name. Raises `RequestError`.

    >>> from forebay import Int64, String
    >>> parse_row(["user_id=17", "shop=a=b"], {"user_id": Int64, "shop": String})
    {'user_id': 17, 'shop': 'a=b'}
    """
    entity: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RequestError(f"{pair!r} is not key=value; write e.g. {next(iter(keys))}=…")
        if name not in keys:
            raise RequestError(f"There is no key {name!r} here. {suggestion(name, keys)}")
        entity[name] = value_of(name, value, keys[name])
    missing = [name for name in keys if name not in entity]
    if missing:
        raise RequestError(f"{missing[0]!r} is missing; add {missing[0]}=…")
    return entity


def _print_response(response: OnlineResponse, service: str, entity: Mapping[str, Any]) -> None:
    from forebay.cli.printing import age_text, print_table, status_text, text

    values, statuses = response.to_dict(), response.statuses
    instants, ages = response.event_timestamps, response.ages
    print_table(
        f"{service} of {_entity_text(entity)} at {text(response.instant)}",
        ["feature", "#value", "status", "event time", "#age"],
        (
            (name, values[name][0], status_text(statuses[name][0]), instants[name][0], age_text(ages[name][0]))
            for name in response.features
        ),
    )


def _print_history(table: pa.Table, title: str) -> None:
    """Instants below each other; of a view with many features, the newest few beside each other."""
    from forebay.cli.printing import print_table, text

    wide = table.num_columns - 1 > FEATURES_BESIDE
    shown = table.slice(max(0, table.num_rows - (INSTANTS_BESIDE if wide else ROWS_SHOWN)))
    hidden = table.num_rows - shown.num_rows
    caption = f"{hidden} earlier instants are not shown; --json prints all" if hidden else None
    columns = [column.to_pylist() for column in shown.columns]
    if wide:
        rows = ((name, *values) for name, values in zip(shown.column_names[1:], columns[1:], strict=True))
        print_table(title, ["feature", *(f"#{text(instant)}" for instant in columns[0])], rows, caption)
    else:
        headers = ["instant", *(f"#{name}" for name in shown.column_names[1:])]
        print_table(title, headers, zip(*columns, strict=True), caption)


def _print_response_json(response: OnlineResponse, entity: Mapping[str, Any]) -> None:
    values, statuses = response.to_dict(), response.statuses
    instants, ages = response.event_timestamps, response.ages
    features = {
        name: {
            "value": values[name][0],
            "status": statuses[name][0],
            "event_timestamp": instants[name][0],
            "age_s": ages[name][0],
        }
        for name in response.features
    }
    behind = response.metadata["views"]
    views = {key: {name.removesuffix("s"): rows[0] for name, rows in found.items()} for key, found in behind.items()}
    _json({"instant": response.instant, "entity": entity, "features": features, "views": views})


def _entity_text(entity: Mapping[str, Any]) -> str:
    from forebay.cli.printing import text

    return ", ".join(f"{name}={text(value)}" for name, value in entity.items())


def _json(value: Any) -> None:
    from forebay.cli.printing import print_json

    print_json(value)
