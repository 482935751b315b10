"""Every benchmark runs, small: its contenders agree on the values, and its figures are numbers.

What the figures are is nobody's business here: benchmarks at this size measure nothing.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.__main__ import ALONE, NAMES, main, measured
from benchmarks.deployment import CHECKOUT
from benchmarks.looks import Look
from benchmarks.report import Comparison
from benchmarks.steady import middle
from benchmarks.training import check_same
from tests.infra.java import make_java_home

TIMEOUT_S = 900
"""The stream's starts some thirty processes: two minutes on an idle machine, five on a busy one."""


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("name", [name for name in (*NAMES, *ALONE) if name != "spark"])
def test_every_benchmark_runs(name: str) -> None:
    report = measured(name, tiny=True)
    assert report.comparisons
    for one in report.comparisons:
        assert all(math.isfinite(figure) for figure in (one.ours, one.others, one.ratio)), one


def test_the_benchmark_of_spark_runs_in_a_process_that_ends_its_java(tmp_path: Path) -> None:
    environment = {**os.environ, "JAVA_HOME": str(make_java_home(tmp_path / "java"))}
    command = [sys.executable, "-m", "benchmarks", "spark", "--tiny", "--results", str(tmp_path)]
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, capture_output=True)
    (one,) = json.loads((tmp_path / "spark.json").read_text())["comparisons"]
    assert all(math.isfinite(one[figure]) for figure in ("ours", "others", "ratio")), one


def test_a_ratio_is_that_of_a_round() -> None:
    samples = {"forebay": [{"us": 2.0}, {"us": 30.0}, {"us": 3.0}], "limit": [{"us": 1.0}, {"us": 10.0}, {"us": 1.0}]}
    one = Comparison.of("a read", samples, "limit", "us", "µs")
    assert (one.ours, one.others) == (3.0, 1.0)
    assert (one.ratio, one.ratio_min, one.ratio_max) == (3.0, 2.0, 3.0)


def test_the_middle_of_a_run_is_neither_its_start_nor_its_end() -> None:
    """What is applied grows:  0 ─ 2 s, 8 s of CPU ─ 20 % ── 2 s, 3 s of CPU ── 85 % ─ 10 s, 5 s of CPU ─ 100 %"""
    looks = [
        Look(at_s=0, events=0, commits=0, cpu_s=0, redis_s=0),
        Look(at_s=2, events=200, commits=2, cpu_s=8, redis_s=5),
        Look(at_s=3, events=500, commits=4, cpu_s=9, redis_s=5.5),
        Look(at_s=4, events=850, commits=6, cpu_s=11, redis_s=6.3),
        Look(at_s=14, events=1000, commits=7, cpu_s=16, redis_s=9),
    ]
    assert middle(looks, 1000) == pytest.approx(
        {"per_s": 325, "cpu_us": 3e6 / 650, "redis_us": 1.3e6 / 650, "commits_per_s": 2}
    )
    whole = middle([looks[0], looks[-1]], 1000)
    assert whole["per_s"] == pytest.approx(1000 / 14)
    both = middle([one + one for one in looks], 2000)
    assert (both["per_s"], both["cpu_us"]) == pytest.approx((650, 3e6 / 650))


def test_contenders_that_disagree_are_not_measured() -> None:
    check_same("mean", pa.chunked_array([[0.1 + 0.2]]), pa.chunked_array([[0.3]]))
    with pytest.raises(AssertionError, match="n differs"):
        check_same("n", pa.chunked_array([[1, 2]]), pa.chunked_array([[1, 3]]))
    with pytest.raises(AssertionError, match="row 1"):
        check_same("mean", pa.chunked_array([[1.0, 2.0]]), pa.chunked_array([[1.0, 2.1]]))


def test_results_are_written_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "--tiny", "--results", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "publish.json").read_text())
    assert written["name"] == "publish"
    assert {one["other"] for one in written["comparisons"]} == {
        "redis-py pipeline of SET",
        "replay of ready-made bytes",
    }
    assert "publish batch rows" in capsys.readouterr().out
