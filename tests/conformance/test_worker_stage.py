"""The stage for workers: links, jobs, endings, and what is left to the next plan."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from orbtrio.conformance.model import Skipped, TargetGone, Violation
from orbtrio.conformance.simulation import Crashed, SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.worker_bench import Bench
from orbtrio.conformance.worker_stage import LONGEST_AWAY, WorkerStage
from orbtrio.conformance.zoo.worker import ModelWorker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path, worker_type="embedding", job_seconds=1.0)


def stage_around(worker: ModelWorker, bench: Bench, world: SimulatedWorld | None = None) -> WorkerStage:
    return WorkerStage(
        world or SimulatedWorld(worker), Conditions(), collections.Counter(), bench, nonce="job"
    )


def make(bench: Bench, **options: Any) -> WorkerStage:
    return stage_around(ModelWorker(Conditions().secret, **options), bench)


def test_a_job_is_answered(bench: Bench) -> None:
    stage = make(bench)
    job = stage.barrier()
    assert job.answers[0].entry["shape"] == [8]
    assert job.id == "job-1"
    assert stage.link() is stage.link() is stage.peers[0]


def test_the_type_is_learned_from_the_registration(bench: Bench) -> None:
    bench.worker_type = None
    make(bench, worker_type="llm").link()
    assert bench.worker_type == "llm"


def test_a_worker_that_never_comes_is_told_so(bench: Bench) -> None:
    class Absent(ModelWorker):
        def connect(self) -> None:
            pass

    with pytest.raises(Violation, match="connects and sends its registration within 60 s"):
        stage_around(Absent("s"), bench).link()


def test_a_worker_that_has_died_is_not_waited_for(bench: Bench) -> None:
    class Dead(ModelWorker):
        def connect(self) -> None:
            raise Crashed("no model")

    stage = stage_around(Dead("s"), bench)
    with pytest.raises(TargetGone):
        stage.link()
    assert stage.now() < 1.0


def test_connections_that_say_nothing_are_passed_over(bench: Bench) -> None:
    class Shy(ModelWorker):
        def on_open(self) -> None:
            if self.links < 3:
                self.link.close()
                self.lose()
            else:
                super().on_open()

    stage = stage_around(Shy(Conditions().secret), bench)
    assert stage.link().name == "link#3"
    assert [peer.closed is None for peer in stage.peers] == [False, False, True]


@pytest.mark.parametrize("kind", [1000, 1008, "RST", "FIN", "cut"])
def test_a_link_can_be_ended_in_each_way(kind: Any, bench: Bench) -> None:
    stage = make(bench)
    first = stage.link()
    ended = stage.end(kind)
    assert first.has_ended()
    second = stage.next_link(LONGEST_AWAY)
    assert second is not None
    assert second.connected_at == pytest.approx(ended + 0.1)
    assert bench.losses == 1


def test_missing_answers_are_named(bench: Bench) -> None:
    class Mute(ModelWorker):
        def send_output(self, entries: list[dict[str, Any]]) -> None:
            pass

    stage = stage_around(Mute(Conditions().secret), bench)
    jobs = [stage.job() for _ in range(6)]
    stage.deliver(*jobs)
    with pytest.raises(
        Violation, match=r"each, within 64.0 s; seen: no answer to job-1, .*job-5 and others$"
    ):
        stage.expect_answers(jobs, "each")


def test_a_link_that_ended_is_part_of_the_complaint(bench: Bench) -> None:
    class Leaver(ModelWorker):
        def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
            self.link.close()

    stage = stage_around(Leaver(Conditions().secret), bench)
    with pytest.raises(Violation, match="no answer to job-1; link#1 ended by FIN"):
        stage.barrier()


def test_only_inputs_that_are_good_are_used(bench: Bench) -> None:
    stage = make(attrs.evolve(bench, good=(3,)))
    assert stage.picture_inputs() == [0]
    assert "filepath" in stage.job().entry["input"]
    assert stage.input_with(0, "a.png") == {"filepath": "a.png"}
    with pytest.raises(Skipped, match="--inputs"):
        make(attrs.evolve(bench, good=())).job()


def test_a_link_in_order_is_left_to_the_next_plan(bench: Bench) -> None:
    worker = ModelWorker(Conditions().secret)
    world = SimulatedWorld(worker)
    first = stage_around(worker, bench, world)
    first.deliver(first.job(3))
    link = first.link()
    path = first.jobs[0].entry["input"]["filepath"]
    first.strike()
    kept: object = bench.link
    assert kept is link
    assert len(first.jobs[0].answers) == 1
    assert not bench.folder.joinpath(path).exists()
    second = stage_around(worker, bench, world)
    assert second.link() is link
    assert bench.link is None
    second.barrier()


def test_a_link_with_open_jobs_is_not_left_to_the_next_plan(bench: Bench) -> None:
    class Mute(ModelWorker):
        def send_output(self, entries: list[dict[str, Any]]) -> None:
            pass

    stage = stage_around(Mute(Conditions().secret), bench)
    stage.deliver(stage.job())
    link = stage.link()
    stage.strike()
    assert bench.link is None
    assert link.has_ended()
    assert bench.losses == 1


def test_a_fresh_process_is_had_when_links_were_lost(bench: Bench) -> None:
    restarts = []
    bench.restart = lambda: restarts.append(1)
    stage = make(bench)
    stage.restart()
    assert restarts == []
    stage.end("RST")
    stage.restart(after=2)
    assert restarts == []
    link = stage.link()
    stage.restart()
    assert restarts == [1]
    assert link.has_ended()
    stage.restart()
    assert restarts == [1, 1]


def test_another_engine_is_another_link(bench: Bench) -> None:
    stage = make(bench)
    stock = stage.link()
    assert stock.announced == frozenset()
    stage.announce("drain", "cancel")
    link = stage.link()
    assert link is not stock
    assert link.announced == {"cancel", "drain"}
    assert stage.link() is link
    assert stock.closed is not None
    assert bench.losses == 1
    stage.announce()
    assert stage.link().announced == frozenset()


def test_the_next_plan_finds_a_stock_engine_again(bench: Bench) -> None:
    world = SimulatedWorld(ModelWorker(Conditions().secret))
    stage = stage_around(world.target, bench, world)  # type: ignore[arg-type]
    stage.announce("cancel")
    stage.barrier()
    stage.strike()
    assert bench.link is not None
    again = stage_around(world.target, bench, world)  # type: ignore[arg-type]
    again.barrier()
    assert again.link().announced == frozenset()
