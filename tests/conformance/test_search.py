"""Which plans are tried, and which that failed is kept."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import strategies as st

from orbtrio.conformance.model import Case, Level, Plan, Role, Verdict
from orbtrio.conformance.search import Options, Outcome, Search, fit

LISTS = st.lists(st.integers(0, 100), max_size=8)


def a_case(plans: Any = LISTS) -> Case:
    return Case(
        case_id="ORB-XYZ-01",
        role=Role.ENGINE,
        title="",
        level=Level.MUST,
        sentences=(),
        explanation="",
        readings={},
        plans=plans,
        play=lambda stage, plan: None,
    )


class Player:
    """Plays a plan by looking at it."""

    def __init__(self, fails: Any, verdict: Verdict = Verdict.FAIL) -> None:
        self.fails = fails
        self.verdict = verdict
        self.played: list[Plan] = []

    def __call__(self, case: Case, plan: Plan) -> Outcome:
        self.played.append(plan)
        verdict = self.verdict if self.fails(plan) else Verdict.PASS
        return Outcome(verdict=verdict, log=tuple, at=0.0, close=Verdict.PASS, close_reason="")


def search(player: Player, *, seconds: float = 60, scheduled: bool = False, **options: Any) -> Search:
    settings = Options(**{"seed": 1, "examples": 200} | options)
    return Search(a_case(), player, settings, time.monotonic() + seconds, scheduled=scheduled)


def test_a_failing_plan_is_made_as_small_as_possible() -> None:
    found = search(Player(lambda plan: sum(plan) > 100))
    found.run([], seed=1)
    assert found.best is not None
    assert found.best[0] in ([1, 100], [100, 1], [2, 99])


def test_fixed_plans_come_first_and_are_not_shrunk() -> None:
    player = Player(lambda plan: len(plan) > 2)
    found = search(player)
    found.run([[1], [5, 5, 5, 5]], seed=1)
    assert player.played == [[1], [5, 5, 5, 5]]
    assert found.best is not None
    assert found.best[0] == [5, 5, 5, 5]


def test_the_same_seed_draws_the_same_plans() -> None:
    first, second, third = (Player(lambda plan: False) for _ in range(3))
    for player, seed in ((first, 7), (second, 7), (third, 8)):
        search(player, examples=20).run([], seed=seed)
    assert first.played == second.played != third.played


def test_one_plan_is_played_even_if_the_time_is_up() -> None:
    player = Player(lambda plan: False)
    found = search(player, seconds=-1)
    found.run([], seed=1)
    assert found.played == len(player.played) == 1
    assert found.worst is not None


def test_shrinking_has_a_time_of_its_own() -> None:
    player = Player(lambda plan: sum(plan) > 100)
    found = search(player, shrink_seconds=-1)
    found.run([], seed=1)
    assert found.best is not None
    assert sum(found.best[0]) > 100


def test_the_worst_verdict_counts() -> None:
    found = search(Player(lambda plan: len(plan) == 3, Verdict.NON_STRICT))
    found.run([], seed=1)
    assert found.worst is not None
    assert found.worst.verdict is Verdict.NON_STRICT
    assert found.close == (Verdict.PASS, "")


def test_what_cannot_be_judged_is_neither_good_nor_bad() -> None:
    found = search(Player(lambda plan: True, Verdict.INCONCLUSIVE), examples=5)
    found.run([], seed=1)
    assert found.best is None
    assert found.worst is None
    assert found.doubtful is not None


def test_a_plan_that_fails_only_once_is_kept() -> None:
    tries = iter([False, True])
    player = Player(lambda plan: len(plan) > 2 and next(tries, False))
    found = search(player)
    found.run([], seed=1)
    assert found.best is not None


def test_a_schedule_is_drawn_with_each_plan() -> None:
    player = Player(lambda plan: plan["schedule"] > 1000)
    found = search(player, scheduled=True)
    found.run([[1]], seed=1)
    assert player.played[0] == {"plan": [1], "schedule": 0}
    assert found.best is not None
    assert found.best[0] == {"plan": [], "schedule": 1001}


@pytest.mark.parametrize("plan", [[1], None, {"plan": 1}, 7])
def test_a_plan_fits_wherever_it_was_found(plan: Plan) -> None:
    wrapped = fit(plan, scheduled=True)
    assert wrapped == {"plan": plan, "schedule": 0}
    assert fit(wrapped, scheduled=True) is wrapped
    assert fit(wrapped, scheduled=False) == fit(plan, scheduled=False) == plan


def test_what_is_wrong_with_a_case_itself_is_raised() -> None:
    def broken(case: Case, plan: Plan) -> Outcome:
        raise ZeroDivisionError

    found = Search(a_case(), broken, Options(seed=1), time.monotonic() + 60, scheduled=False)
    with pytest.raises(ZeroDivisionError):
        found.run([], seed=1)
