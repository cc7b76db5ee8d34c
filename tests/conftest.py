"""What every test has: hypothesis's profiles. The mock clocks and the trio runner come from pytest-trio.

- ``dev``, the default: fresh random examples, and failures are remembered in ``.hypothesis/``.
- ``ci``, where the variable ``CI`` is set: the same examples in every run, so red is the change's fault.
- ``nightly``: a hundred times as many. Choose with ``HYPOTHESIS_PROFILE``.

None has a deadline per example: on two cores shared with real processes an example may be slow by no fault of
its own.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None, print_blob=True)
settings.register_profile("nightly", settings.get_profile("dev"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))
