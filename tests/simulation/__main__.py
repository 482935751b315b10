"""`python -m tests.simulation SEED [--delta] [--cluster]`: one run, told turn by turn when it fails."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

import pytest

from tests.infra.valkey import Valkey
from tests.infra.valkey_cluster import ValkeyCluster
from tests.simulation.running import REPEAT, run_seed


def main() -> int:
    """Run some seeds; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--delta", action="store_true", help="keep the offline store in Delta tables")
    parser.add_argument("--cluster", action="store_true", help="on a cluster, whose slots are moved meanwhile")
    options = parser.parse_args()
    failed = 0
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(ValkeyCluster()) if options.cluster else None
        url = stack.enter_context(Valkey()).unix_url if cluster is None else cluster.url
        for seed in range(options.first, options.first + options.count):
            began_s = time.process_time()
            with pytest.MonkeyPatch.context() as patch:
                error, run = run_seed(seed, url, patch, delta=options.delta, cluster=cluster)
            cpu_s = time.process_time() - began_s
            if error is not None:
                failed += 1
                if options.count == 1:
                    print("\n".join(run.said))
                    raise error
                print(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}   {REPEAT} {seed}")
            elif options.count <= 10:
                print(f"seed {seed}: {cpu_s:.2f} s of CPU; {run.expected.checks} checks; {run.faults.counts}")
    return 1 if failed else 0


sys.exit(main())
