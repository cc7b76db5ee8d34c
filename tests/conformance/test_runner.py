"""How cases are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

from orbtrio.conformance.model import (
    Case,
    CaseResult,
    Inconclusive,
    Level,
    Role,
    Skipped,
    TargetGone,
    Verdict,
    Violation,
)
from orbtrio.conformance.peer import Closed
from orbtrio.conformance.profiles import Expectation, Profile
from orbtrio.conformance.runner import NothingHeard, Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.selftest import zoo_engine

if TYPE_CHECKING:
    import collections
    from collections.abc import Callable
    from pathlib import Path

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.stage import Stage
    from orbtrio.conformance.targets import SimulatedEngine

READINGS = {"good": "it is good", "so-so": "it is so-so", "bad": "it is bad"}


@pytest.fixture
def target(tmp_path: Path) -> SimulatedEngine:
    return zoo_engine((), tmp_path)


def a_case(play: Callable[[Any, Any], str | None], case_id: str = "ORB-XYZ-01", **fields: Any) -> Case:
    standard: dict[str, Any] = {
        "role": Role.ENGINE,
        "title": "A title",
        "level": Level.MUST,
        "sentences": (),
        "explanation": "An explanation.",
        "readings": {},
        "plans": st.integers(0, 1000),
    }
    return Case(case_id=case_id, play=play, **standard | fields)


def judge(
    target: SimulatedEngine, *cases: Case, profile: Profile | None = None, **options: Any
) -> list[CaseResult]:
    settings = Options(**{"seed": 1, "examples": 30} | options)
    runner = Runner(target, profile or Profile(name="test", title="Test"), settings)
    return list(runner.run(cases).results)


def passes(stage: Stage, plan: int) -> None:
    stage.note(f"plan {plan}")


def test_a_case_that_finds_nothing_passes_and_shows_what_it_saw(target: SimulatedEngine) -> None:
    [result] = judge(target, a_case(passes))
    assert (result.verdict, result.examples) == (Verdict.PASS, 30)
    assert result.events[-1].text.startswith("plan ")


def test_a_violation_is_shrunk_repeated_and_kept(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        stage.note(f"plan {plan}")
        stage.demand(plan < 500, "less than 500", str(plan))

    [result] = judge(target, a_case(play))
    assert result.verdict is Verdict.FAIL
    found = result.counterexample
    assert found is not None
    assert (found.plan, found.expected, found.seen) == (500, "less than 500", "500")
    assert (found.failures, found.repetitions) == (3, 3)
    assert found.events[-1].text == "plan 500"


@pytest.mark.parametrize(
    ("failures", "verdict"),
    [
        ([True, True, False, True], Verdict.FLAKY),
        ([True, False, False, False], Verdict.INCONCLUSIVE),
        ([True, True, True, True], Verdict.FAIL),
    ],
)
def test_what_does_not_fail_each_time_is_no_plain_failure(
    target: SimulatedEngine, failures: list[bool], verdict: Verdict
) -> None:
    script = iter(failures)

    def play(stage: Stage, plan: int) -> None:
        if next(script):
            raise Violation("this", "that")

    [result] = judge(target, a_case(play, examples=(7,)))
    assert result.verdict is verdict
    assert result.counterexample is not None
    if verdict is not Verdict.FAIL:
        assert f"failed again in {sum(failures[1:])} of 3" in result.reason


@pytest.mark.parametrize(
    ("reading", "verdict"), [("good", Verdict.PASS), ("so-so", Verdict.NON_STRICT), ("bad", Verdict.FAIL)]
)
def test_the_profile_judges_readings(target: SimulatedEngine, reading: str, verdict: Verdict) -> None:
    expectation = Expectation(accept=("good",), tolerate=("so-so",))
    profile = Profile(name="test", title="Test", cases={"ORB-XYZ-01": expectation})
    [result] = judge(target, a_case(lambda stage, plan: reading, readings=READINGS), profile=profile)
    assert (result.verdict, result.reading) == (verdict, reading)
    if verdict is Verdict.FAIL:
        assert result.counterexample is not None
        assert (result.counterexample.expected, result.counterexample.seen) == ("it is good", "it is bad")


def test_what_only_informs_is_not_judged(target: SimulatedEngine) -> None:
    profile = Profile(name="test", title="Test", cases={"ORB-XYZ-01": Expectation(level=Level.INFO)})
    [result] = judge(target, a_case(lambda stage, plan: "bad", readings=READINGS), profile=profile)
    assert (result.verdict, result.reason) == (Verdict.INFO, "it is bad")


def test_a_case_may_be_skipped_by_itself_or_by_the_profile(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        raise Skipped("no files here")

    profile = Profile(name="test", title="Test", cases={"ORB-XYZ-02": Expectation(skip="not ours")})
    results = judge(target, a_case(play), a_case(passes, "ORB-XYZ-02"), profile=profile)
    assert [(result.verdict, result.reason) for result in results] == [
        (Verdict.SKIP, "no files here"),
        (Verdict.SKIP, "not ours"),
    ]


def test_a_message_of_which_nothing_can_be_made_is_a_failure(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        stage.note("looks into a message")
        message: dict[str, object] = {}
        message["input"]

    [result] = judge(target, a_case(play))
    assert result.verdict is Verdict.FAIL
    assert result.counterexample is not None
    assert "KeyError: 'input'" in result.counterexample.seen


def test_a_failure_counts_even_if_smaller_plans_are_skipped(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        if plan < 10:
            stage.skip("too small")
        stage.fail("x", "y")

    [result] = judge(target, a_case(play, examples=(50,)))
    assert result.verdict is Verdict.FAIL


def test_one_skipped_plan_skips_no_case(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        if plan == 7:
            stage.skip("not this one")

    [result] = judge(target, a_case(play, plans=st.sampled_from([0, 7])))
    assert result.verdict is Verdict.PASS


def test_a_target_that_makes_trouble_at_the_end_ends_no_run(
    target: SimulatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(self: object) -> None:
        raise Violation("the target reads what it is sent", "nothing")

    monkeypatch.setattr("orbtrio.conformance.engine_stage.EngineStage.strike", stuck)
    [result] = judge(target, a_case(passes))
    assert result.verdict is Verdict.PASS


def test_secrets_are_in_no_text(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        stage.fail("no secret", f"it said {stage.conditions.secret}")

    [result] = judge(target, a_case(play))
    assert result.counterexample is not None
    assert result.counterexample.seen == "it said (masked)"


def test_what_only_informs_says_what_it_saw(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        stage.fail("this", "that")

    profile = Profile(name="test", title="Test", cases={"ORB-XYZ-01": Expectation(level=Level.INFO)})
    [result] = judge(target, a_case(play), profile=profile)
    assert (result.verdict, result.reason) == (Verdict.INFO, "expected: this; seen: that")


def test_a_slow_machine_proves_nothing(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        raise Inconclusive("we were late ourselves")

    [result] = judge(target, a_case(play))
    assert (result.verdict, result.reason) == (Verdict.INCONCLUSIVE, "we were late ourselves")


def test_one_plan_that_could_be_judged_is_enough(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        if plan:
            raise Inconclusive("we were late ourselves")

    [result] = judge(target, a_case(play, examples=(0,)))
    assert result.verdict is Verdict.PASS


def test_a_target_that_ends_has_failed(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        raise TargetGone("exit status -11")

    [result] = judge(target, a_case(play))
    assert result.verdict is Verdict.FAIL
    assert result.counterexample is not None
    assert result.counterexample.seen == "exit status -11"


def test_a_target_that_cannot_be_reached_ends_the_run(
    target: SimulatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(counters: collections.Counter[str], schedule: int | None = None) -> EngineStage:
        raise TargetGone("nobody listens")

    monkeypatch.setattr(target, "stage", gone)
    runner = Runner(target, Profile(name="test", title="Test"), Options(seed=1))
    result = runner.run([a_case(passes), a_case(passes, "ORB-XYZ-02")])
    assert "nobody listens" in result.trouble
    assert (len(result.results), result.exit_code) == (1, 2)


def test_closing_is_judged_apart(target: SimulatedEngine) -> None:
    def refused(stage: EngineStage, plan: int) -> None:
        peer = stage.peer()
        peer.send(b"\xff")
        stage.expect_closed(peer, "it is closed")
        if plan == 1:
            # As if the engine had just hung up.
            peer.closed = Closed(0.0, None, "", "FIN")

    strict, loose, none = judge(
        target,
        a_case(refused, plans=st.just(0)),
        a_case(refused, "ORB-XYZ-02", examples=(1,)),
        a_case(passes, "ORB-XYZ-03"),
    )
    assert (strict.verdict, strict.close) == (Verdict.PASS, Verdict.PASS)
    assert (loose.verdict, loose.close) == (Verdict.PASS, Verdict.NON_STRICT)
    assert "FIN" in loose.close_reason
    assert none.close is None


def test_known_counterexamples_come_first(target: SimulatedEngine) -> None:
    played = []

    def play(stage: Stage, plan: int) -> None:
        played.append(plan)

    options = Options(seed=1, examples=3)
    Runner(target, Profile(name="t", title="T"), options, NothingHeard(), {"ORB-XYZ-01": [77]}).run(
        [a_case(play, examples=(5,))]
    )
    assert played[:2] == [77, 5]


def test_the_run_tells_everything_that_is_needed_to_repeat_it(target: SimulatedEngine) -> None:
    def play(stage: Stage, plan: int) -> None:
        stage.count("full batch")

    heard: list[str] = []

    class Reporter:
        def started(self, case: Case, number: int, total: int) -> None:
            heard.append(f"{number}/{total}")

        def finished(self, result: CaseResult) -> None:
            heard.append(result.verdict.value)

    runner = Runner(target, Profile(name="t", title="T"), Options(seed=9, examples=4), Reporter())
    result = runner.run([a_case(play)])
    assert (result.seed, result.profile, result.target, result.counters) == (
        9,
        "t",
        "the model engine",
        {"full batch": 4},
    )
    assert "hypothesis" in result.versions
    assert heard == ["1/1", "PASS"]
