"""Cases as pytest tests, in a pytest of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from orbtrio.conformance import plugin, suite, targets
from orbtrio.conformance.model import (
    Case,
    CaseResult,
    Counterexample,
    Level,
    Role,
    SuiteResult,
    TargetGone,
    Verdict,
    WireEvent,
)

pytest_plugins = ["pytester"]

# Before any pytest in this process forgets again what it has imported: a case is defined once.
suite.all_cases()

ZOO = f"{sys.executable} -m orbtrio.conformance.zoo.process engine"


@pytest.fixture
def inside(pytester: pytest.Pytester) -> pytest.Pytester:
    """A directory of its own, whatever stands above it."""
    pytester.makeini("[pytest]")
    return pytester


class FakeRunner:
    """Has a verdict for each case."""

    def __init__(self, verdicts: dict[str, CaseResult]) -> None:
        self.verdicts = verdicts

    def judge(self, case: Case, seconds: float) -> CaseResult:
        return self.verdicts[case.case_id]

    def run(self, cases: object) -> SuiteResult:
        return SuiteResult(
            target="fake",
            role=Role.ENGINE,
            profile="spec",
            seed=1,
            started="",
            seconds=0.0,
            slack=0.15,
            versions={},
            results=(),
            counters={},
        )


def run(inside: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run pytest in this process, with the plugin. Named by ``-p`` it would be imported a second time."""
    return inside.runpytest_inprocess(*options, plugins=[plugin])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, CaseResult]:
    """Verdicts to be given; nothing is started."""
    verdicts: dict[str, CaseResult] = {}
    monkeypatch.setattr(suite, "make_runner", lambda *_, **__: FakeRunner(verdicts))
    monkeypatch.setattr(targets, "calibrate", lambda target: 0.15)
    return verdicts


def result(case_id: str, verdict: Verdict, level: Level = Level.MUST, **fields: Any) -> CaseResult:
    if verdict in (Verdict.FAIL, Verdict.FLAKY):
        event = WireEvent(at=0.25, peer="worker#1", kind="<-", text='{"inputs": []}')
        fields["counterexample"] = Counterexample(
            plan={}, expected="a job", seen="none", at=0.5, events=(event,)
        )
    return CaseResult(case=suite.all_cases()[case_id], level=level, verdict=verdict, **fields)


def test_without_an_engine_nothing_is_done_and_nothing_imported(inside: pytest.Pytester) -> None:
    inside.makepyfile(
        """
        import sys

        def test_nothing_is_imported():
            ours = {name for name in sys.modules if name.startswith("orbtrio.conformance.")}
            assert ours == {"orbtrio.conformance.plugin"}
        """
    )
    outcome = inside.runpytest_subprocess("-p", plugin.__name__)
    outcome.assert_outcomes(passed=1)
    outcome.stdout.no_fnmatch_line("orb: *")


def test_each_verdict_is_an_outcome(inside: pytest.Pytester, fake: dict[str, CaseResult]) -> None:
    fake.update(
        {
            "ORB-BAT-01": result("ORB-BAT-01", Verdict.PASS),
            "ORB-BAT-02": result("ORB-BAT-02", Verdict.FAIL),
            "ORB-BAT-03": result("ORB-BAT-03", Verdict.FLAKY, reason="failed again in 1 of 3 repetitions"),
            "ORB-BAT-04": result("ORB-BAT-04", Verdict.NON_STRICT, reason="a little early"),
            "ORB-BAT-05": result("ORB-BAT-05", Verdict.SKIP, reason="needs a slower clock"),
            "ORB-BAT-06": result("ORB-BAT-06", Verdict.INCONCLUSIVE, reason="too busy"),
            "ORB-BAT-07": result("ORB-BAT-07", Verdict.FAIL, Level.SHOULD),
            "ORB-BAT-08": result(
                "ORB-BAT-08", Verdict.INFO, close=Verdict.NON_STRICT, close_reason="no close frame"
            ),
        }
    )
    outcome = run(
        inside, "--orb-launch", "an-engine", "--orb-cases", "ORB-BAT-0[1-8]", "--orb-seed", "7", "-v", "-ra"
    )
    outcome.assert_outcomes(passed=3, failed=2, skipped=1, xfailed=2)
    outcome.stdout.fnmatch_lines(
        [
            "orb: an-engine, profile spec, seed 7",
            "*collected 8 items",
            "orb::ORB-BAT-01 PASSED*",
            "orb::ORB-BAT-02 FAILED*",
            "orb::ORB-BAT-03 FAILED*",
            "*ORB-BAT-02 No batch has more jobs*",
            'FAIL ORB-BAT-02 (MUST) "Worker Registration"*',
            '*t=0.250 worker#1 <-  {"inputs": []}',
            "*t=0.500 expected: a job; seen: none",
            "*replay: python -m orbtrio.conformance replay *ORB-BAT-02.json*seed 7",
            "*to replay it, add: --launch an-engine",
            "FLAKY ORB-BAT-03*",
            "*failed again in 1 of 3 repetitions",
            "*NON-STRICT, works, but a peer may stumble*",
            "ORB-BAT-04 a little early",
            "ORB-BAT-08 close: no close frame",
        ]
    )
    text = outcome.stdout.str()
    assert "needs a slower clock" in text
    assert "could not be judged: too busy" in text
    assert "SHOULD: a job" in text
    stored = inside.path / ".pytest_cache" / "d" / "orb-conformance"
    assert sorted(file.name for file in stored.iterdir()) == [
        f"ORB-BAT-0{number}.json" for number in (2, 3, 7)
    ]


def test_cases_join_other_tests_and_are_selected_like_them(
    inside: pytest.Pytester, fake: dict[str, CaseResult]
) -> None:
    inside.makepyfile("def test_own(): pass")
    fake["ORB-BAT-01"] = result("ORB-BAT-01", Verdict.PASS)
    outcome = run(inside, "--orb-launch", "x", "-k", "own or BAT-01")
    outcome.assert_outcomes(passed=2, deselected=len(suite.select(Role.ENGINE, suite.Wanted())) - 1)


def test_a_report_is_written_on_request(
    inside: pytest.Pytester, fake: dict[str, CaseResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_SECRET", "x")
    fake["ORB-BAT-01"] = result("ORB-BAT-01", Verdict.FAIL)
    outcome = run(
        inside, "--orb-engine", "ws://127.0.0.1:1/ws", "--orb-cases", "ORB-BAT-01", "--orb-report", "out"
    )
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(["*to replay it, add: --url ws://127.0.0.1:1/ws"])
    assert {"index.html", "report.json", "junit.xml", "summary.md"} <= {
        file.name for file in (inside.path / "out").iterdir()
    }


def test_without_a_cache_failures_are_told_all_the_same(
    inside: pytest.Pytester, fake: dict[str, CaseResult]
) -> None:
    fake["ORB-BAT-01"] = result("ORB-BAT-01", Verdict.FAIL)
    outcome = run(inside, "--orb-launch", "x", "--orb-cases", "ORB-BAT-01", "-p", "no:cacheprovider")
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(["FAIL ORB-BAT-01*"])


def test_an_engine_that_cannot_be_tested_fails_once(
    inside: pytest.Pytester, fake: dict[str, CaseResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def calibrate(target: object) -> float:
        raise TargetGone("it is not there")

    monkeypatch.setattr(targets, "calibrate", calibrate)
    outcome = run(inside, "--orb-launch", "x", "--orb-cases", "ORB-BAT-0[1-3]")
    outcome.assert_outcomes(failed=1, skipped=2)
    outcome.stdout.fnmatch_lines(["the engine cannot be tested: it is not there"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--orb-engine", "ws://127.0.0.1:1/ws", "--orb-launch", "x"], "not both"),
        (["--orb-engine", "ws://127.0.0.1:1/ws"], "set WORKER_SECRET"),
        (["--orb-engine", "http://127.0.0.1:1/ws"], "no address of an engine"),
        (["--orb-engine", "ws://192.0.2.1/ws"], "another machine"),
        (["--orb-launch", "x", "--orb-cases", "ORB-NIL-*"], "ORB-NIL-"),
        (["--orb-launch", "x", "--orb-profile", "no-such"], "no-such"),
    ],
)
def test_wrong_usage_is_told(
    options: list[str], complaint: str, inside: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKER_SECRET", raising=False)
    outcome = run(inside, *options)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in outcome.stderr.str() + outcome.stdout.str()


def test_an_engine_of_the_zoo_is_started_and_tested(inside: pytest.Pytester) -> None:
    command = f"{ZOO} --mutants any-path"
    outcome = run(
        inside,
        "--orb-launch",
        command,
        "--orb-cases",
        "ORB-HSK-01,ORB-BAT-05",
        "--orb-seconds",
        "2",
        "--orb-profile",
        "hardened",
    )
    outcome.assert_outcomes(passed=1, failed=1)
    outcome.stdout.fnmatch_lines(["FAIL ORB-HSK-01*", "*accepted on another path*"])
    assert (Path(inside.path) / ".pytest_cache/d/orb-conformance/ORB-HSK-01.json").exists()
