"""Engines for benchmarks to measure: a plain one, and one that lies."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cases import Case
from benchmarks.processes import run_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.processes import EngineProcess

BASELINE: Final = (sys.executable, "-m", "benchmarks.baseline")

# An engine that is as good as the baseline but for one of its methods.
_LIAR: Final = """
import cbor2
from benchmarks import baseline

honest = baseline.Engine.{method}

def lying(self, {arguments}):
    {lie}

baseline.Engine.{method} = lying
baseline.main()
"""


def liar(lie: str, method: str = "response", arguments: str = "job_id, output") -> tuple[str, ...]:
    """The command of an engine one of whose methods does something else; `honest` is the method."""
    return sys.executable, "-c", _LIAR.format(lie=lie, method=method, arguments=arguments)


@pytest.fixture
def small() -> Case:
    return Case(
        name="small", jobs=64, jobs_per_request=4, clients=2, outstanding=8, max_batch_size=4, baseline=1
    )


@pytest.fixture(scope="package")
def plain_engine() -> Iterator[EngineProcess]:
    with run_engine(BASELINE) as engine:
        yield engine
