"""The command about dead letters: listing them, and replaying those that are events by now."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay.errors import ConfigError, RequestError, suggestion

if TYPE_CHECKING:
    from forebay.client.deployed import Deployed
    from forebay.ingest.rows import Codec
    from forebay.language.source import EventSource

LETTER = ("recorded_at", "source", "source_partition", "source_offset", "reason", "detail")
AS_IT_CAME = ("source_partition", "source_offset", "raw", "size")
"""What of a letter says where and how it came, whenever it was refused."""
RAW_SHOWN = 120
"""Bytes of a refused event that a table shows; `--json` prints all."""
CUT_SHOWN = 5
"""Letters that cannot be replayed, and are said to be where; `--json` prints all."""


def dead_letters(
    source: Annotated[str | None, typer.Argument(help="Only of this source.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only those with this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    replay: Annotated[
        bool, typer.Option("--replay", help="Judge those of SOURCE again; what is an event now goes into the stream.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the events that were refused, with their reasons; or replay those that are events by now."""
    from forebay.client.deployed import Deployed
    from forebay.ingest.batch import REASONS
    from forebay.settings import Settings

    if reason is not None and reason not in REASONS:
        raise RequestError(f"There is no reason {reason!r}. {suggestion(reason, REASONS)}")
    deployed = Deployed(Settings.from_env())
    if replay:
        _replay(deployed, _event_source(deployed, source), reason, as_json)
    else:
        if source is not None:
            _event_source(deployed, source)
        _list(deployed, source, reason, limit, as_json)
    deployed.close()


def _event_source(deployed: Deployed, name: str | None) -> EventSource:
    from forebay.language.source import EventSource

    if name is None:
        raise RequestError("--replay judges the letters of one source: forebay dead-letters SOURCE --replay")
    declared = deployed.definitions.source(name)
    if not isinstance(declared, EventSource):
        raise RequestError(f"{name!r} is a TableSource, which is read where it lies; only events become dead letters")
    return declared


def _list(deployed: Deployed, source: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """What is a dead letter still; what was refused again after a replay is shown as what it was first."""
    import pyarrow as pa

    from forebay.cli.printing import print_json, print_table
    from forebay.offline.revived import first_places

    letters, revived = deployed.offline.dead_letters().scan(source), deployed.offline.revived().places(source)
    places = [*zip(*(letters[name].to_pylist() for name in LETTER[1:4]), strict=True)]
    firsts, settled = first_places(revived), set(revived.values())
    still = [n for n, place in enumerate(places) if place not in settled]
    reasons = letters["reason"].to_pylist()
    counts = Counter(reasons[n] for n in still)
    mine = [n for n in still if reason in (None, reasons[n])]
    row_of = {place: n for n, place in enumerate(places)}
    shown, first = (
        letters.take(pa.array(rows, pa.int64()))
        for rows in (mine[:limit], [row_of.get(firsts.get(places[n], places[n]), n) for n in mine[:limit]])
    )
    for name in AS_IT_CAME:
        shown = shown.set_column(shown.schema.get_field_index(name), name, first[name])
    replayed = max(0, len(places) - len(still) - sum(place in firsts for place in places))
    if as_json:
        print_json(
            {
                "counts": dict(sorted(counts.items())),
                "replayed": replayed,
                "letters": [row | _raw(row["raw"]) for row in shown.to_pylist()],
            }
        )
        return
    said = [f"{count:,} {name}" for name, count in sorted(counts.items())] or ["none"]
    said += [f"{replayed:,} were replayed"] if replayed else []
    said += [f"{len(mine) - len(shown):,} earlier ones are not shown"] if len(mine) > len(shown) else []
    print_table(
        "Dead letters",
        ["recorded", "source", "partition", "#offset", "reason", "detail", "event"],
        ([*(row[name] for name in LETTER), _short(row["raw"])] for row in shown.to_pylist()),
        "; ".join(said),
    )


def _replay(deployed: Deployed, source: EventSource, reason: str | None, as_json: bool) -> None:
    from forebay.cli.printing import counted, print_json, say
    from forebay.deploy.outdated import is_outdated
    from forebay.offline.revived import Judge
    from forebay.online.lane import wall_clock_us
    from forebay.online.signs import Signs

    if source.stream is None:
        raise RequestError(
            f"Source {source.name!r} has no stream, and the stream is what replays; mend the letters and load them as "
            f"a file: forebay load {source.name} FILE"
        )
    signs = Signs(deployed.redis, deployed.settings.namespace).read(source.name)
    if is_outdated(deployed.definitions, source, signs, wall_clock_us()):
        raise ConfigError(
            f"The running flow of {source.name!r} began with other definitions of it, and may refuse by those what is "
            "replayed: start it again, then replay"
        )
    offline, limits = deployed.offline, deployed.definitions.limits(source)
    judge = Judge(source, wall_clock_us(), limits, _codec(deployed, source))
    done = offline.revived().revive(judge, offline.dead_letters(), offline.archive(source), reason)
    if as_json:
        left = dict(sorted(done.left.items()))
        names = ("source_partition", "source_offset", "size")
        said = {"source": source.name, "replayed": done.revived, "duplicates": done.duplicates, "left": left}
        print_json(said | {"cut": [dict(zip(names, one, strict=True)) for one in done.cut]})
        return
    twice = f", {counted(done.duplicates, 'duplicate')} of archived events dropped" if done.duplicates else ""
    say(f"{counted(done.revived, 'event')} replayed{twice}: the stream applies them, or will once it runs")
    still = ", ".join(f"{count:,} {name}" for name, count in sorted(done.left.items()))
    say(f"Still dead: {still or 'none'}")
    if done.cut:
        say(_cut_text(source, done.cut))


def _cut_text(source: EventSource, cut: Sequence[tuple[str, int, int | None]]) -> str:
    """Why some letters can not be replayed, and what is to be done with them."""
    from forebay.cli.printing import counted

    where = ", ".join(f"{partition} at {offset}" for partition, offset, _ in cut[:CUT_SHOWN])
    more = f" and {len(cut) - CUT_SHOWN:,} more" if len(cut) > CUT_SHOWN else ""
    return (
        f"{counted(len(cut), 'letter')} cannot be replayed, for some of the bytes are gone ({where}{more}). Read them "
        f"from the log at that place, if it still has them, and send them again in events of at most 64 KiB, or load "
        f"them as a file: forebay load {source.name} FILE"
    )


def _codec(deployed: Deployed, source: EventSource) -> Codec | None:
    """What reads the messages of a source that are not JSON. It lies beside the SDK, as the stream does."""
    from forebay.language.source import KafkaTopic

    if not isinstance(source.stream, KafkaTopic) or source.stream.format == "json":
        return None
    from forebay.cli.running import module_of

    codecs, patience = module_of("streaming", "kafka_codec"), module_of("streaming", "retry").Patience()
    codec: Codec = codecs.codecs_of([source], deployed.settings.registry, patience)[source.name]
    return codec


def _raw(raw: bytes) -> dict[str, Any]:
    """The bytes of a letter: as text, and exactly where they are none."""
    try:
        return {"raw": raw.decode()}
    except UnicodeDecodeError:
        return {"raw": raw.decode(errors="replace"), "raw_base64": base64.b64encode(raw).decode()}


def _short(raw: bytes) -> str:
    text = raw[:RAW_SHOWN].decode(errors="replace")
    return text + "…" if len(raw) > RAW_SHOWN else text
