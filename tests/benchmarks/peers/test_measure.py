"""The order of measurements, with stages that make their figures up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
from click.testing import CliRunner

from benchmarks.peers import __main__ as program
from benchmarks.peers import measure
from benchmarks.peers.figures import Round
from benchmarks.peers.measure import Effort, Stage, StageFailed, run_pair
from benchmarks.peers.system import Asked, Setting
from benchmarks.peers.systems import PEERS, REFERENCES

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers.system import System

BY_CLIENT, BY_CONNECTIONS = REFERENCES
# orbtrio stands in for a peer, for it is installed wherever these tests are.
PEER: Final = attrs.evolve(
    BY_CONNECTIONS,
    name="peer",
    asked=Asked.CLIENT,
    settings={Setting.THROUGHPUT: "some", Setting.LATENCY: "others"},
)
PLAIN: Final = attrs.evolve(PEER, name="plain", settings={Setting.THROUGHPUT: "these"})
BROKEN: Final = attrs.evolve(PEER, name="broken")


class FakeStage(Stage):
    """Takes a millisecond for a job, four for a peer's, and as much CPU."""

    orders: Final[list[tuple[str, str, int, int]]] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def measure(self, *, jobs: int, size: int, in_flight: int) -> tuple[Round, list[float]]:
        if self.system is BROKEN:
            raise StageFailed("no job is answered")
        self.orders.append((self.system.name, self.setting, size, in_flight))
        seconds = 0.004 if self.system in (PEER, PLAIN) else 0.001 if self.setting == "throughput" else 0.0005
        took = jobs * seconds
        figures = Round(jobs=jobs, cpu=took, load_cpu=took / 10, seconds=took, jobs_per_batch=16)
        return figures, [seconds] * jobs


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int, int]]:
    monkeypatch.setattr(measure, "Stage", FakeStage)
    FakeStage.orders.clear()
    return FakeStage.orders


def test_jobs_of_a_round_are_as_many_as_there_is_time_for(orders: list[tuple[str, str, int, int]]) -> None:
    assert FakeStage(BY_CLIENT).jobs_for(3.0, size=100, in_flight=256) == 3000
    assert FakeStage(PEER).jobs_for(3.0, size=100, in_flight=256) == 700  # whole hundreds
    assert FakeStage(PEER).jobs_for(0.01, size=100, in_flight=256) == 200  # but not too few
    assert FakeStage(PEER).jobs_for(0.01, size=100, in_flight=1) == 20
    assert FakeStage(BY_CLIENT).jobs_for(1000.0, size=100, in_flight=256) == 50_000  # nor too many
    assert FakeStage(BY_CLIENT).jobs_for(1000.0, size=10_000, in_flight=256) == 10_000


def test_rounds_of_a_pair_take_turns_and_settings_are_measured_by_themselves(
    orders: list[tuple[str, str, int, int]],
) -> None:
    pair = run_pair(PEER, BY_CLIENT, Effort(rounds=2, seconds=1.0))
    ours, theirs = BY_CLIENT.name, PEER.name
    of_size = [name for name, _, size, in_flight in orders if size == 10_000 and in_flight == 256]
    assert of_size == [ours, ours, theirs, theirs, *[ours, theirs] * 2]
    of_latency = [name for name, setting, *_ in orders if setting == "latency"]
    assert of_latency == [ours, ours, theirs, theirs, *[ours, theirs] * 2]
    row = pair.row()
    assert {size: cost.ratio for size, cost in row.costs.items()} == pytest.approx({100: 4, 10_000: 4})
    assert {setting: lone.jobs for setting, lone in row.lone.items()} == dict.fromkeys(PEER.settings, 200)
    assert row.beside is not None
    assert (row.beside.p50, row.beside.jobs) == (0.0005, 2000)


def test_one_without_settings_for_latency_is_measured_again_with_those_it_has(
    orders: list[tuple[str, str, int, int]],
) -> None:
    row = run_pair(PLAIN, BY_CLIENT, Effort(rounds=2, seconds=1.0)).row()
    assert {name for name, setting, *_ in orders if setting == "latency"} == {BY_CLIENT.name}
    assert {setting: lone.jobs for setting, lone in row.lone.items()} == {Setting.THROUGHPUT: 400}


def test_a_reference_is_the_sum_of_its_rounds_beside_whomever(
    orders: list[tuple[str, str, int, int]],
) -> None:
    pairs = [run_pair(PEER, BY_CLIENT, Effort(rounds=2, seconds=1.0)) for _ in range(2)]
    row = measure.pooled_row(BY_CLIENT, pairs)
    assert row.reference is None
    assert row.costs[100].rounds == 4
    assert row.costs[100].cpu == pytest.approx(100)
    assert {setting: lone.jobs for setting, lone in row.lone.items()} == {
        Setting.THROUGHPUT: 2000,
        Setting.LATENCY: 4000,
    }
    assert row.best_lone is row.lone[Setting.LATENCY]


def test_the_program_writes_what_it_was_asked_for(
    orders: list[tuple[str, str, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = attrs.evolve(PEERS[0], packages=["no-such-thing"])
    monkeypatch.setattr(program, "PEERS", (PEER, absent, BROKEN))
    files = {name: tmp_path / name for name in ("json", "picture", "table")}
    options = [argument for name, path in files.items() for argument in (f"--{name}", str(path))]
    done = CliRunner().invoke(program.main, ["--rounds", "1", "--seconds", "1", *options])
    assert done.exit_code == 1, done.output
    data = json.loads(files["json"].read_text())
    assert [row["name"] for row in data["rows"]] == [BY_CLIENT.name, PEER.name]
    assert data["skipped"] == {absent.name: "no-such-thing not installed; pip install no-such-thing"}
    assert data["failed"] == {"broken": "no job is answered"}
    assert data["command"] == "python -m benchmarks.peers --rounds 1 --seconds 1"
    assert files["table"].read_text() in done.output
    assert files["picture"].read_text().startswith("<svg")


def test_with_nobody_to_measure_there_is_nothing_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = attrs.evolve(PEERS[0], packages=["no-such-thing"])
    monkeypatch.setattr(program, "PEERS", (absent,))
    done = CliRunner().invoke(program.main, ["--json", str(tmp_path / "json")])
    assert done.exit_code == 0
    assert "pip install no-such-thing" in done.output
    assert not (tmp_path / "json").exists()


def test_unknown_peers_are_refused_and_the_known_ones_named() -> None:
    done = CliRunner().invoke(program.main, ["--only", "mosek"])
    assert done.exit_code == 2
    assert "unknown: mosek" in done.output
    assert "LitServe" in done.output


def test_peers_are_chosen_by_name_in_any_case() -> None:
    assert [system.name for system in program._chosen("nats, MOSEC")] == ["mosec", "NATS"]
    assert program._chosen(None) == list(PEERS)


@pytest.mark.processes
@pytest.mark.parametrize("system", REFERENCES, ids=lambda system: system.asked.name)
def test_a_real_stage_of_orbtrio_answers_in_batches(system: System) -> None:
    with Stage(system) as stage:
        for size in measure.SIZES:
            figures, latencies = stage.measure(jobs=300, size=size, in_flight=100)
            assert len(latencies) == 300
            assert min(latencies) > 0
            assert min(figures.cpu, figures.load_cpu, figures.seconds) > 0
            assert 1 < figures.jobs_per_batch <= 32
        lone, _ = stage.measure(jobs=5, size=100, in_flight=1)
        assert lone.jobs_per_batch == 1


@pytest.mark.processes
def test_a_stage_that_falls_tells_why() -> None:
    with Stage(attrs.evolve(PEER, name="no-such-system")) as stage:
        for _ in range(2):  # the second order finds nobody who could take it
            with pytest.raises(StageFailed, match="no-such-system"):
                stage.measure(jobs=1, size=100, in_flight=1)
