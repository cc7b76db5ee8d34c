"""What every test has: hypothesis's profiles, and a clock. The trio runner comes from pytest-trio.

- ``dev``, the default: fresh random examples, and failures are remembered in ``.hypothesis/``.
- ``ci``, where the variable ``CI`` is set: the same examples in every run, so red is the change's fault.
- ``nightly``: a hundred times as many. Choose with ``HYPOTHESIS_PROFILE``.

None has a deadline per example: on two cores shared with real processes an example may be slow by no fault of
its own.

pytest-trio's ``autojump_clock`` is replaced by one that waits for threads: on a busy machine a thread that
only copies a picture would otherwise find that minutes have gone by, and jobs timed out.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from trio.testing import MockClock

from orbtrio.testing.clock import wait_for_threads

settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None, print_blob=True)
settings.register_profile("nightly", settings.get_profile("dev"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture
def autojump_clock() -> MockClock:
    """Time passes when every task waits and no thread works."""
    clock = MockClock(autojump_threshold=0)
    start = clock.start_clock

    def start_steadily() -> None:
        start()
        wait_for_threads()  # until the run ends

    clock.start_clock = start_steadily  # type: ignore[method-assign]
    return clock
