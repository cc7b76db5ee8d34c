"""The verdict for CI. That it is right about real engines takes minutes: see ``benchmarks/README.md``."""

from __future__ import annotations

import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from benchmarks.cases import CASES, Case
from benchmarks.check import NoVerdict, check, record
from benchmarks.measure import OURS, Figures
from tests.benchmarks.conftest import BASELINE, liar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

CASE = "100B-req32-batch32"


class FakeBench:
    """Rounds whose figures are known: pairs of an engine's and the floor's."""

    rounds: Iterator[tuple[float, float]]
    benches = 0

    def __init__(self, case: Case, engines: Mapping[str, Sequence[str]], share: float) -> None:
        assert list(engines) == [OURS]
        assert case.reference is None
        self.figures = {OURS: Figures()}
        self.floors: list[float] = []

    def __enter__(self) -> FakeBench:
        FakeBench.benches += 1
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def round(self) -> None:
        cpu, floor = next(FakeBench.rounds)
        self.figures[OURS].cpu.append(cpu)
        self.floors.append(floor)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeBench]:
    monkeypatch.setattr("benchmarks.check.Bench", FakeBench)
    FakeBench.benches = 0
    return FakeBench


@pytest.fixture
def expected(tmp_path: Path) -> Path:
    path = tmp_path / "expected.toml"
    path.write_text(f'margin = 1.25\n[ratio]\n"{CASE}" = 2.0\n')
    return path


def test_an_engine_as_fast_as_it_was_passes_at_once(
    fake: type[FakeBench], expected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.rounds = iter([(12.0, 6.0), (10.0, 5.0)])
    assert check(expected, BASELINE, (2, 2)) == 0
    assert fake.benches == 1
    assert "2.00 x floor, +0% of 2.00 on record, at most 2.50: fine (1 of 2" in capsys.readouterr().out


def test_an_engine_that_had_slow_moments_gets_another_chance(fake: type[FakeBench], expected: Path) -> None:
    fake.rounds = iter([(14.0, 5.0), (15.0, 5.0), (16.0, 6.0), (11.0, 6.0)])
    assert check(expected, BASELINE, (2, 2)) == 0
    assert fake.benches == 2


def test_an_engine_that_stays_slower_fails(
    fake: type[FakeBench], expected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Though the floor had slow moments too, in which the ratio of one round was fine.
    fake.rounds = iter([(14.0, 5.0), (13.0, 9.0), (14.0, 5.0), (14.0, 9.0)])
    assert check(expected, BASELINE, (2, 2)) == 1
    out = capsys.readouterr().out
    assert "2.60 x floor, +30% of 2.00 on record, at most 2.50: SLOWER (2 of 2" in out
    assert "1 of 1 cases cost more" in out


def test_what_was_recorded_is_what_is_compared(fake: type[FakeBench], tmp_path: Path) -> None:
    path = tmp_path / "expected.toml"
    fake.rounds = iter([(14.0, 5.0), (10.0, 6.0), (10.0, 5.0), (15.0, 9.0)])
    assert record(path, BASELINE, (2, 2), names=[CASE]) == 0
    assert tomllib.loads(path.read_text()) == {"margin": 1.25, "ratio": {CASE: 2.0}}
    fake.rounds = iter([(12.5, 5.0)])
    assert check(path, BASELINE, (1,)) == 0
    fake.rounds = iter([(12.6, 5.0)])
    assert check(path, BASELINE, (1,)) == 1


def test_a_record_of_a_case_that_is_gone_is_no_verdict(tmp_path: Path) -> None:
    path = tmp_path / "expected.toml"
    path.write_text('margin = 1.25\n[ratio]\n"gone" = 2.0\n')
    with pytest.raises(NoVerdict, match="there is no case gone: renew the record"):
        check(path, BASELINE)


@pytest.mark.processes
def test_an_engine_that_answers_wrongly_gets_no_verdict(
    small: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.check.CASES", (small,))
    with pytest.raises(NoVerdict, match=r"small: .* wrong answer"):
        record(tmp_path / "out", liar("return honest(self, job_id, {})"), (1,), names=["small"])


@pytest.mark.processes
def test_a_slower_engine_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(name="small", jobs=2_000, jobs_per_request=4, clients=2, outstanding=8, max_batch_size=4)
    monkeypatch.setattr("benchmarks.check.CASES", (case,))
    path = tmp_path / "expected.toml"
    assert record(path, BASELINE, (2,), names=["small"]) == 0
    # So much slower that no other work on this machine can hide it, or look like it.
    slow = (sys.executable, "-m", "tests.benchmarks.slowdown", "4", "benchmarks.baseline")
    assert check(path, slow, (2,)) == 1


def test_the_committed_record_names_cases_that_exist() -> None:
    from benchmarks.end_to_end import EXPECTED

    expected = tomllib.loads(EXPECTED.read_text())
    assert expected["ratio"].keys() <= {case.name for case in CASES}
    assert expected["margin"] == 1.25
    assert all(0.1 < ratio < 100 for ratio in expected["ratio"].values())
