"""The model worker: on a bare link, byte by byte, and as a process."""

from __future__ import annotations

import collections
import sys
from typing import TYPE_CHECKING, Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import RejectConnection, Request

from orbtrio.conformance.examples import TYPE_EXAMPLES, sample_input
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.worker_bench import Bench
from orbtrio.conformance.worker_stage import WorkerStage
from orbtrio.conformance.worker_target import WorkerTarget
from orbtrio.conformance.zoo.worker import ModelWorker, paths_in

if TYPE_CHECKING:
    from pathlib import Path


def stage_with(tmp_path: Path, worker_type: str, worker: ModelWorker | None = None) -> WorkerStage:
    worker = worker or ModelWorker(Conditions().secret, worker_type=worker_type)
    bench = Bench(folder=tmp_path, worker_type=worker_type, job_seconds=1.0)
    return WorkerStage(SimulatedWorld(worker), Conditions(), collections.Counter(), bench, nonce="job")


def answer(stage: WorkerStage, job_input: Any) -> dict[str, Any]:
    job = stage.job(input=job_input)
    stage.deliver(job)
    stage.expect_answers([job], "an answer")
    return job.answers[0].entry


def test_a_batch_takes_its_time(tmp_path: Path) -> None:
    stage = stage_with(tmp_path, "embedding")
    stage.deliver(stage.job(), stage.job())
    sent = stage.now()
    stage.expect_answers(stage.jobs, "answers")
    assert stage.now() == pytest.approx(sent + 2.0)


@pytest.mark.parametrize("worker_type", [*TYPE_EXAMPLES, "echo"])
def test_bad_inputs_are_errors_of_their_jobs(worker_type: str, tmp_path: Path) -> None:
    stage = stage_with(tmp_path, worker_type)
    assert "error" not in answer(stage, sample_input(worker_type, stage.picture()))
    assert ("error" in answer(stage, {})) == (worker_type != "echo")
    assert answer(stage, 5)["error"] == "input: expected a map"


def test_a_refused_handshake_is_tried_again(tmp_path: Path) -> None:
    world = SimulatedWorld(ModelWorker("secret"))
    for _ in range(2):
        pipe = world.accept(1.0)
        assert pipe is not None
        socket = WSConnection(ConnectionType.SERVER)
        socket.receive_data(bytes(pipe.received))
        assert isinstance(next(socket.events()), Request)
        pipe.send(socket.send(RejectConnection(status_code=503)))
    assert world.now() == pytest.approx(0.1)


def test_nonsense_instead_of_a_handshake_ends_the_link() -> None:
    world = SimulatedWorld(ModelWorker("secret"))
    pipe = world.accept(1.0)
    assert pipe is not None
    pipe.send(b"no HTTP at all\r\n\r\n")
    assert pipe.ended == "RST"
    assert world.accept(1.0) is not None


def test_nobody_connects_to_a_worker() -> None:
    pipe = SimulatedWorld(ModelWorker("secret")).connect()
    assert pipe.ended == "RST"


def test_paths_are_found_where_the_spec_has_them() -> None:
    assert paths_in({"filepath": "a", "current_frame": "b", "images": ["c", 1]}) == ["a", "b", "c"]
    content = [{"type": "image", "image": "d"}, {"type": "text", "text": "?"}, 7]
    assert paths_in({"messages": [{"content": content}, {"content": "text"}, 1]}) == ["d"]
    assert paths_in({"images": "none", "messages": None}) == []


def test_it_runs_as_a_process() -> None:
    command = f"{sys.executable} -m orbtrio.conformance.zoo.worker --mutants worker-answers-twice"
    target = WorkerTarget(Conditions(), command=command, worker_type="embedding")
    try:
        stage = target.stage(collections.Counter())
        job = stage.barrier()
        assert stage.wait(lambda: len(job.answers) == 2, 2.0)
        assert stage.link().max_batch_size == 7
        stage.strike()
    finally:
        target.close()
