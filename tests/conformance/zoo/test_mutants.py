"""Each fault can be seen, where it is said that it can be, and nowhere in the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo import mutants as registry
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import compose, mutant, mutants
from tests.conformance.zoo.scenes import SCENES, seen_in

if TYPE_CHECKING:
    from pathlib import Path

# Those that the modules of this zoo's own engines register; others' faults have tests of their own.
OURS = {
    name: known
    for name, known in mutants(Role.ENGINE).items()
    if known.faulty.__module__.rpartition(".")[2].startswith("faulty_engines")
}

# What an engine without a debt to the spec was seen doing when the suite was ordered: see issue 3.
STOCK_ENGINE = (
    "debounced-timer",
    "first-worker-only",
    "dead-workers-jobs-lost",
    "oldest-dropped",
    "leak-on-timeout",
    "any-worker-type",
)


def test_every_scene_is_for_some_fault() -> None:
    killing = {case_id for known in OURS.values() for case_id in known.kills}
    assert {look.split()[0] for look in SCENES} == killing


def test_each_fault_says_what_it_is() -> None:
    assert len(OURS) >= 45
    for known in OURS.values():
        assert known.role is Role.ENGINE
        assert known.description.endswith(".")
        assert known.name == known.name.lower()


def test_the_stock_engine_has_all_its_faults_at_once(tmp_path: Path) -> None:
    engine = compose(STOCK_ENGINE)
    for number, name in enumerate(STOCK_ENGINE):
        for case_id in OURS[name].kills:
            seen = seen_in(case_id, engine, tmp_path / f"{number}-{case_id}")
            assert seen != seen_in(case_id, ModelEngine, tmp_path / case_id), f"{name} does not show"


def test_what_a_stock_engine_does_right_it_does_right(tmp_path: Path) -> None:
    engine = compose(STOCK_ENGINE)
    for case_id in ("ORB-REG-02", "ORB-BAT-02", "ORB-OUT-01", "ORB-RES-03", "ORB-RES-10", "ORB-SEC-02"):
        seen = seen_in(case_id, engine, tmp_path / case_id)
        assert seen == seen_in(case_id, ModelEngine, tmp_path / f"model-{case_id}")


def test_no_faults_make_the_model() -> None:
    assert compose([]) is ModelEngine


def test_faults_about_the_same_thing_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="'endless-queue' and 'oldest-dropped' both change has_room"):
        compose(["oldest-dropped", "endless-queue"])


def test_unknown_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="no mutant 'perfect'"):
        compose(["perfect"])


def test_a_fault_has_one_name_a_description_and_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_mutants", dict(mutants()))

    class Described(ModelEngine):
        """Is right."""

    class Undescribed(ModelEngine):
        pass

    Undescribed.__doc__ = None
    assert mutant("described", kills=("ORB-REG-01",), role="engine")(Described) is Described
    with pytest.raises(ValueError, match="already"):
        mutant("described", kills=("ORB-REG-01",))(Described)
    with pytest.raises(ValueError, match="docstring"):
        mutant("undescribed", kills=("ORB-REG-01",))(Undescribed)
    with pytest.raises(ValueError, match="docstring"):
        mutant("unkillable", kills=())(Described)
    assert "described" not in mutants(Role.WORKER)
    assert "described" in mutants()
