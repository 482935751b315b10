"""`forebay dead-letters`: what was refused can be read, counted, and replayed after a fix."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest

from forebay.client.deployed import Deployed
from forebay.deploy.outdated import digest
from forebay.ingest.batch import BEFORE_HISTORY, DeadLetter
from forebay.offline.archive import REVIVED
from forebay.online.lane import wall_clock_us
from forebay.online.signs import Sign, Signs
from forebay.settings import Settings
from tests.cli.test_cli import DEFINITIONS, Cli, cli, project
from tests.conftest import Deployment

__all__ = ["cli", "project"]
BAD = [
    b'{"event_id": "old", "user_id": 7, "shop": "a", "ts": "2012-06-01T12:00:00Z", "pages": 3}',
    b'{"event_id": "e\xff"}',
    b'{"event_id": "e3", "user_id": "x", "ts": "2013-06-01T12:00:00Z"}',
]


def test_letters_are_listed_counted_and_replayed_after_a_fix(
    cli: Cli, project: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("apply")
    assert json.loads(cli("dead-letters", "clicks", "--json").out) == {"counts": {}, "replayed": 0, "letters": []}
    assert cli("dead-letters").out.rstrip().endswith("none")
    (project / "bad.ndjson").write_bytes(b"\n".join(BAD))
    cli("load", "clicks", "bad.ndjson")
    said = json.loads(cli("dead-letters", "clicks", "--json").out)
    assert said["counts"] == {"before_history": 1, "malformed": 1, "wrong_type": 1}
    by_reason = {letter["reason"]: letter for letter in said["letters"]}
    assert by_reason["before_history"]["raw"].encode() == BAD[0]
    assert base64.b64decode(by_reason["malformed"]["raw_base64"]) == BAD[1]
    assert [letter["source_offset"] for letter in said["letters"]] == [2, 1, 0]
    one = json.loads(cli("dead-letters", "--reason", "wrong_type", "--json").out)
    assert [letter["reason"] for letter in one["letters"]] == ["wrong_type"]
    shown = cli("dead-letters", "--limit", "1").out
    assert "1 before_history; 1 malformed; 1 wrong_type; 2 earlier ones are not shown" in shown

    mend(cli, project, deployment, monkeypatch)
    done = json.loads(cli("dead-letters", "clicks", "--replay", "--reason", "before_history", "--json").out)
    assert done == {"source": "clicks", "replayed": 1, "duplicates": 0, "left": {}, "cut": []}
    again = cli("dead-letters", "clicks", "--replay").out
    assert "0 events replayed" in again
    assert "Still dead: 1 malformed, 1 wrong_type" in again
    after = json.loads(cli("dead-letters", "--json").out)
    assert (after["counts"], after["replayed"]) == ({"malformed": 1, "wrong_type": 1}, 1)


def mend(cli: Cli, project: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """History starts before all events from now on."""
    module = project / f"defs_{deployment.namespace}.py"
    module.write_text(DEFINITIONS.replace("2013-06-01", "2012-01-01"))
    monkeypatch.delitem(sys.modules, module.stem)
    assert cli("apply").code == 0


def refuse_one(cli: Cli, project: Path) -> None:
    """One dead letter, of before history starts."""
    cli("apply")
    (project / "bad.ndjson").write_bytes(BAD[0])
    cli("load", "clicks", "bad.ndjson")


def test_a_letter_that_is_refused_again_is_listed_as_what_it_was(
    cli: Cli, project: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as a flow refuses it, whose definitions went back, it is one letter, at its place, with its bytes."""
    refuse_one(cli, project)
    (first,) = json.loads(cli("dead-letters", "clicks", "--json").out)["letters"]
    mend(cli, project, deployment, monkeypatch)
    deployed = Deployed(Settings.from_env())
    for turn in range(2):
        assert json.loads(cli("dead-letters", "clicks", "--replay", "--json").out)["replayed"] == 1
        (raw,) = deployed.offline.revived().read("clicks", turn)["event"].to_pylist()
        again = DeadLetter("clicks", REVIVED, turn, BEFORE_HISTORY, f"turn {turn}", raw, len(raw))
        deployed.offline.dead_letters().append([again], wall_clock_us())
        said = json.loads(cli("dead-letters", "--json").out)
        (letter,) = said["letters"]
        assert (said["counts"], said["replayed"]) == ({"before_history": 1}, 0)
        assert letter["detail"] == f"turn {turn}"
        assert all(letter[name] == first[name] for name in ("source_partition", "source_offset", "raw", "size"))
    assert json.loads(cli("dead-letters", "clicks", "--replay", "--json").out)["replayed"] == 1
    assert json.loads(cli("dead-letters", "--json").out) == {"counts": {}, "replayed": 1, "letters": []}


def test_nothing_is_replayed_into_a_flow_that_would_refuse_it_again(
    cli: Cli, project: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_one(cli, project)
    before = Deployed(Settings.from_env())
    signs, now_us = Signs(before.redis, deployment.namespace), wall_clock_us()
    sign = Sign(
        1, now_us, now_us + 3_600_000_000, judges_by=digest(before.definitions, before.definitions.source("clicks"))
    )
    signs.write("clicks", sign)
    assert "0 events replayed" in cli("dead-letters", "clicks", "--replay").out
    mend(cli, project, deployment, monkeypatch)
    ended = cli("dead-letters", "clicks", "--replay")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "began with other definitions of it" in ended.err
    assert json.loads(cli("dead-letters", "clicks", "--json").out)["counts"] == {"before_history": 1}
    signs.write("clicks", Sign(2, now_us, now_us, ended_us=now_us, judges_by=sign.judges_by))
    assert "1 event replayed" in cli("dead-letters", "clicks", "--replay").out


def test_what_was_cut_is_said_to_be_gone_and_where_it_was(cli: Cli, project: Path, deployment: Deployment) -> None:
    cli("apply")
    (project / "long.ndjson").write_bytes(b"x" * 3_000_000 + b"\n{}\n" + b"y" * (1024 * 1024) + b"\n")
    assert "3 dead letters" in cli("load", "clicks", "long.ndjson").out
    said = cli("dead-letters", "clicks", "--replay").out
    assert "Still dead: 1 missing_timestamp, 2 too_large" in said
    assert "1 letter cannot be replayed, for some of the bytes are gone (load:" in said
    assert " at 0). Read them from the log at that place" in said
    (cut,) = json.loads(cli("dead-letters", "clicks", "--replay", "--json").out)["cut"]
    assert (cut["source_offset"], cut["size"] > 1024 * 1024) == (0, True)


def test_bytes_of_a_letter_command_no_terminal(cli: Cli, project: Path, deployment: Deployment) -> None:
    cli("apply")
    (project / "odd.ndjson").write_bytes(b'\x1b]0;mine\x07\x1b[2J [/red] {"a": "\xe2\x80\xae"}\n')
    assert "1 dead letter" in cli("load", "clicks", "odd.ndjson").out
    said = cli("dead-letters", "clicks").out
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    shown = "".join(said.split())
    assert "\\x1b]0;mine\\x07\\x1b[2J[/red]" in shown
    raw = json.loads(cli("dead-letters", "clicks", "--json").out)["letters"][0]["raw"]
    assert raw.startswith("\x1b]0;mine\x07"), "as JSON it is what came"


def test_an_entity_that_looks_like_markup_is_shown_as_it_is(cli: Cli, project: Path, deployment: Deployment) -> None:
    cli("apply")
    for key in ("[/red]", "[bold]x", "a\nb"):
        assert key.replace("\n", "\\n") in cli("get", "ads@1", "user_id=99", f"shop={key}").out


def test_what_cannot_be_replayed_is_refused_in_one_line(cli: Cli, project: Path, deployment: Deployment) -> None:
    cli("apply")
    for arguments, message in [
        (("--replay",), "forebay dead-letters SOURCE --replay"),
        (("clicks", "--reason", "wrongtype"), "Did you mean 'wrong_type'"),
        (("click",), "Did you mean 'clicks'"),
    ]:
        ended = cli("dead-letters", *arguments)
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended
        assert message in ended.err
