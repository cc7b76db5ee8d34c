"""The model worker's extensions, on links of engines that announced them and of others."""

from __future__ import annotations

import collections
import struct
from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.conformance.selftest import zoo_worker
from orbtrio.conformance.zoo.worker_extensions import WorkerExtensions

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.worker_stage import WorkerStage

ALL = ("cancel", "drain", "inline_resources", "progress", "typed_arrays")


@pytest.fixture
def stage(tmp_path: Path) -> WorkerStage:
    stage = zoo_worker((), tmp_path).stage(collections.Counter())
    stage.announce(*ALL)
    return stage


def terminate(stage: WorkerStage) -> None:
    assert stage.bench.terminate is not None
    stage.bench.terminate()


def errors(jobs: list[Any]) -> list[Any]:
    return [[answer.entry.get("error") for answer in job.answers] for job in jobs]


def test_it_asks_for_all_and_reports_when_it_begins(stage: WorkerStage) -> None:
    assert stage.link().asked == set(ALL)
    job = stage.barrier()
    [report] = stage.link().reports
    assert report.value == {"type": "worker_progress", "progress": [{"id": job.id, "percent": 0}]}


def test_it_reports_nothing_to_others(stage: WorkerStage) -> None:
    stage.announce()
    stage.barrier()
    assert stage.link().stray == []


def test_its_vectors_are_bytes_for_who_takes_them(stage: WorkerStage) -> None:
    [typed] = stage.barrier().answers
    stage.announce()
    [plain] = stage.barrier().answers
    tag, numbers = typed.entry["embedding"], plain.entry["embedding"]
    assert (tag.tag, tag.value) == (86, struct.pack("<8d", *numbers))


def test_cancelled_jobs_are_answered_at_once_and_not_computed(stage: WorkerStage) -> None:
    link = stage.link()
    first, second, third = (stage.job() for _ in range(3))
    stage.deliver(first, second)
    stage.deliver(third)
    link.send({"type": "cancel_jobs", "ids": [second.id, third.id, third.id, "nobody's", 7]})
    assert errors([first, second, third]) == [[], ["cancelled"], ["cancelled"]]
    stage.expect_answers([first], "the other one")
    assert errors([first]) == [[None]]


def test_a_batch_of_which_nothing_is_left_makes_room(stage: WorkerStage) -> None:
    link = stage.link()
    first, second = stage.job(), stage.job()
    stage.deliver(first)
    stage.deliver(second)
    start = stage.now()
    link.send({"type": "cancel_jobs", "ids": [first.id]})
    stage.expect_answers([second], "the second")
    assert stage.now() - start == pytest.approx(1.0)
    last = stage.job()
    stage.deliver(last)
    link.send({"type": "cancel_jobs", "ids": [last.id]})
    assert errors([last]) == [["cancelled"]]


@pytest.mark.parametrize("ids", [None, "x", {"a": 1}], ids=repr)
def test_odd_cancels_harm_nothing(stage: WorkerStage, ids: Any) -> None:
    stage.link().send({"type": "cancel_jobs", "ids": ids})
    stage.barrier()


def test_files_that_came_are_read_once(stage: WorkerStage) -> None:
    job, again = (stage.job(input={"filepath": "/nowhere/a.png"}) for _ in range(2))
    stage.deliver(job, resources=[{"path": "/nowhere/a.png", "data": b"x"}, {"path": 7, "data": b""}, None])
    stage.deliver(again, resources="none")
    stage.expect_answers([job, again], "answers")
    assert errors([job]) == [[None]]
    assert "No such file" in errors([again])[0][0]


def test_it_drains_when_asked_to_end(stage: WorkerStage) -> None:
    link = stage.link()
    job, late = stage.job(), stage.job()
    stage.deliver(job)
    terminate(stage)
    assert len(link.drains) == 1
    stage.deliver(late)
    stage.expect_answers([job, late], "both")
    assert stage.world.alive()
    link.close(1000)
    assert not stage.world.alive()


def test_an_engine_that_knows_no_draining_is_left_when_nothing_is_in_hand(stage: WorkerStage) -> None:
    stage.announce()
    link = stage.link()
    job = stage.job()
    stage.deliver(job)
    terminate(stage)
    assert stage.world.alive()
    stage.sleep(1.1)
    assert errors([job]) == [[None]]
    assert link.closed is not None
    assert link.closed.code == 1000
    assert not stage.world.alive()


def test_the_other_half_is_anothers() -> None:
    half = WorkerExtensions()
    for call in (half.compute, lambda: half.id_of({}), lambda: half.send_output([]), lambda: half.send({})):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(NotImplementedError):
        half.leave()
