"""The suite against its zoo; the whole of it is CI's, a part is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orbtrio.conformance import selftest
from orbtrio.conformance.model import Role
from orbtrio.conformance.selftest import Kills, Selftest, zoo_engine, zoo_worker
from orbtrio.conformance.zoo.mutants import mutants

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_there_are_at_least_sixty_faulty_programs() -> None:
    assert len(mutants()) >= 60


def test_a_mutant_is_killed_by_the_case_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "_right_programs", list)
    lines: list[str] = []
    matrix = tmp_path / "matrix.csv"
    assert Selftest(("debounced-timer",), matrix).run(lines.append) == 0
    assert lines[-1] == "1 of 1 mutants killed, 0 complaints"
    assert "debounced-timer," in matrix.read_text()


def test_cases_that_kill_nothing_alone_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "SHARED", {"ORB-BAT-02": "why", "ORB-BAT-03": "why"})
    found = [
        Kills(mutant="a", by=("ORB-BAT-01", "ORB-BAT-02")),
        Kills(mutant="b", by=("ORB-BAT-03",)),
    ]
    found.append(Kills(mutant="c", by=("ORB-BAT-04", "ORB-CNV-01", "ORB-SEC-03")))
    complaints = selftest._useless(found)
    # What looks at everything does not count.
    assert not any("ORB-BAT-04" in text or "ORB-CNV" in text for text in complaints)
    assert any(text.startswith("ORB-BAT-01 kills no mutant") for text in complaints)
    assert not any(text.startswith("ORB-BAT-02") for text in complaints)
    assert "ORB-BAT-03 stands in SHARED, but kills one alone" in complaints


def test_an_engine_of_the_zoo_says_what_it_is(tmp_path: Path) -> None:
    assert zoo_engine((), tmp_path).description == "the model engine"
    assert zoo_engine(("debounced-timer",), tmp_path).description == "debounced-timer"
    assert set(mutants(Role.ENGINE)) <= set(mutants())


def test_the_faulty_clients_are_part_of_it(tmp_path: Path) -> None:
    assert selftest.zoo_client((), tmp_path).description == "the model client"
    assert selftest._judge_mutant("steady-pause") == Kills(mutant="steady-pause", by=("ORB-CLI-08",))


def test_a_worker_of_the_zoo_says_what_it_is_and_has_the_type_of_its_faults(tmp_path: Path) -> None:
    assert zoo_worker((), tmp_path).description == "the model worker"
    assert zoo_worker(("llm-in-tokens",), tmp_path)._bench.worker_type == "llm"
    assert zoo_worker((), tmp_path, worker_type="vlm")._bench.worker_type == "vlm"


def test_a_faulty_worker_is_killed_by_the_case_that_it_names() -> None:
    assert selftest._judge_mutant("worker-reads-only-id").by == ("ORB-WRK-03",)


def test_the_model_worker_is_right_as_each_type() -> None:
    programs = [program for program in selftest._right_programs() if program[0] is Role.WORKER]
    assert len(programs) == 8 * 3
    assert selftest._judge_right((Role.WORKER, "vlm", "spec")) == []
