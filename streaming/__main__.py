"""`python -m streaming [--until-end] [--workers N] [--source NAME …] [--json]`: run the flow of the deployed
definitions.
"""

from __future__ import annotations

import sys

from streaming.run import main

sys.exit(main(sys.argv[1:]))
