"""`python -m tests.torture SEED [--kills N] [--minutes M] [--cluster]`: one run, told as it goes, with what was hit."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.torture.torture import Torture, repeat


def main() -> int:
    """Run one seed; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("seed", type=int)
    parser.add_argument("--kills", type=int, default=20, help="times that a working flow is killed, at least")
    parser.add_argument("--minutes", type=float, default=0, help="hit on until so much time has passed")
    parser.add_argument("--cluster", action="store_true", help="the online store is a cluster of three")
    options = parser.parse_args()
    began_s = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f}  {what}", flush=True)

    torture = Torture(options.seed, options.kills, options.minutes, say, cluster=options.cluster)
    try:
        torture.run()
    except BaseException:  # noqa: BLE001  whatever it is, the seed is told with it
        traceback.print_exc()
        print(
            f"seed {options.seed} failed. Repeat it: {repeat(options.seed, options.kills, cluster=options.cluster)}",
            file=sys.stderr,
        )
        return 1
    finally:
        print("\n".join(f"{count:9,}  {what}" for what, count in torture.counts.items()))
    print(f"seed {options.seed}: nothing lost, nothing twice, nothing back, in {time.monotonic() - began_s:.0f} s")
    return 0


sys.exit(main())
