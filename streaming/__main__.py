"""`python -m streaming [--until-end] [--workers N] [--source NAME …] [--json]`: run the flow of the deployed
definitions.

Until the flow has said what an interrupt does, it ends the process as SIGTERM does, without a stack: loading takes a
second or two, in which a user may think better of it.
"""

from __future__ import annotations

import signal
import sys


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from streaming.interpreter import end_process
    from streaming.run import main

    end_process(main(sys.argv[1:]))


_main()
