"""`forebay dead-letters`: what was refused can be read, counted, and replayed after a fix."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest

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

    module = project / f"defs_{deployment.namespace}.py"
    module.write_text(DEFINITIONS.replace("2013-06-01", "2012-01-01"))
    monkeypatch.delitem(sys.modules, module.stem)
    assert cli("apply").code == 0
    done = json.loads(cli("dead-letters", "clicks", "--replay", "--reason", "before_history", "--json").out)
    assert done == {"source": "clicks", "replayed": 1, "duplicates": 0, "left": {}, "cut": []}
    again = cli("dead-letters", "clicks", "--replay").out
    assert "0 events replayed" in again
    assert "Still dead: 1 malformed, 1 wrong_type" in again
    after = json.loads(cli("dead-letters", "--json").out)
    assert (after["counts"], after["replayed"]) == ({"malformed": 1, "wrong_type": 1}, 1)


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
