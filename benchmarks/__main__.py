"""``python -m benchmarks``: see `end_to_end`."""

from __future__ import annotations

import sys

from benchmarks.end_to_end import main

if __name__ == "__main__":  # not in the processes that a benchmark starts
    sys.exit(main())
