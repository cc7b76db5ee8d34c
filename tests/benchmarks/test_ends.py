"""The ends of a job are measured, and their answers looked at, with processes as people start them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import ends
from benchmarks.ends import Case, Figures
from benchmarks.ends_peers import Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Doubtful(Work):
    """Nothing is right for it."""

    def check(self, number: int, output: dict[str, Any]) -> bool:
        return False


@pytest.mark.processes
def test_each_way_to_submit_is_measured_at_both_ends() -> None:
    cases = [
        Case("many", Work(20, worker_arrays=True, client_arrays=True), "submit_many", 64),
        Case("alone", Work(), "alone", 3),
    ]
    measured = ends.measure(cases, 1)
    assert list(measured) == ["many", "alone"]
    for figures in measured.values():
        for values in (figures.worker, figures.worker_floor, figures.client, figures.client_floor):
            assert len(values) == 1
            assert values[0] > 0
        assert figures.jobs_per_batch >= 1
    assert len(measured["alone"].latencies) == 3
    assert measured["many"].latencies == []


@pytest.mark.processes
def test_wrong_answers_fail_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ends, "CASES", (Case("doubtful", Doubtful(), "submit", 4),))
    assert ends.main(["--quick"]) == 1
    assert "FAILED: doubtful: 1 of 1 answers were wrong" in capsys.readouterr().err


def test_a_table_has_a_line_for_each_case(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(cases: Sequence[Case], rounds: int) -> Mapping[str, Figures]:
        assert (len(cases), rounds) == (2, 3)
        second = Figures([20e-6], [10e-6], [30e-6], [15e-6], [5e-6], [0.001, 0.002, 0.003], 1.0)
        return {cases[0].name: Figures([1e-5], [1e-6], [2e-5], [1e-6], [1e-6]), cases[1].name: second}

    monkeypatch.setattr(ends, "measure", measure)
    assert ends.main(["--cases", "*alone", "--repeat", "3"]) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.split() == ["100B-alone", "10.0", "1.0", "10.0", "20.0", "1.0", "20.0", "1.0", "nan"]
    assert second.split()[1:] == ["20.0", "10.0", "2.0", "30.0", "15.0", "2.0", "5.0", "1.0", "2.00", "3.00"]


def test_unknown_cases_are_refused() -> None:
    with pytest.raises(SystemExit):
        ends.main(["--cases", "nothing"])


def test_figures_begin_empty() -> None:
    assert math.isnan(Figures().jobs_per_batch)
