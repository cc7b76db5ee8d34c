"""A stock engine with the faults of such engines, as a real process: the suite names these, and no others."""

from __future__ import annotations

import sys

import pytest

from orbtrio.conformance import suite
from orbtrio.conformance.model import Level, Role, Verdict
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.targets import EngineTarget, calibrate

pytestmark = pytest.mark.processes

# Each fault, and the cases that it must fail. A dead worker's jobs were queued, in hand, or had no successor;
# whoever feeds only one worker stops when that one does.
FAULTS = {
    "debounced-timer": {"ORB-BAT-01"},
    "first-worker-only": {"ORB-MUL-01", "ORB-MUL-03"},
    "dead-workers-jobs-lost": {"ORB-REC-01", "ORB-REC-02", "ORB-REC-03"},
    "oldest-dropped": {"ORB-BAT-11"},
    "leak-on-timeout": {"ORB-RES-09", "ORB-TMO-03"},
    "any-worker-type": {"ORB-REG-05"},
}

# Seconds; five minutes otherwise.
JOB_TIMEOUT = 3


@pytest.mark.timeout(1500)
def test_exactly_the_faults_of_a_stock_engine_are_named() -> None:
    command = (
        f"{sys.executable} -m orbtrio.conformance.zoo.process engine "
        f"--job-timeout {JOB_TIMEOUT} --mutants {','.join(FAULTS)}"
    )
    target = EngineTarget(Conditions(job_timeout=JOB_TIMEOUT, patience=8), command=command)
    options = Options(seed=1, examples=20, seconds=90, shrink_seconds=0, repetitions=1)
    try:
        calibrate(target)
        cases = [case for case in suite.all_cases().values() if case.role is Role.ENGINE]
        results = Runner(target, load_profile("spec"), options).run(cases).results
    finally:
        target.close()
    failed = {
        result.case.case_id: result.counterexample and str(result.counterexample.seen)
        for result in results
        if result.level is Level.MUST and result.verdict is Verdict.FAIL
    }
    assert failed.keys() == set().union(*FAULTS.values()), failed
