"""What a worker makes of the extensions that it asked for, and that it uses none that was not announced."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cbor2 import CBORTag
from hypothesis import strategies as st

from orbtrio.conformance.cases.vectors import FORMATS
from orbtrio.conformance.examples import PICTURE
from orbtrio.conformance.model import Plan, Role, case
from orbtrio.conformance.notation import diagnostic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orbtrio.conformance.worker_bench import WorkerLink, WorkJob
    from orbtrio.conformance.worker_stage import WorkerStage

__all__: list[str] = []

# One engine for all cases here, so that the worker stays connected from one to the next.
_ALL: Final = ("cancel", "drain", "engine_errors", "inline_resources", "progress", "typed_arrays")

# Seldom, for the program has to be started again.
_SELDOM: Final = st.sampled_from([False, False, False, True])

_MESSAGES: Final = {"progress": "worker_progress", "drain": "worker_drain"}


def _needing(stage: WorkerStage, name: str, hint: str = "") -> WorkerLink:
    """The worker's link to an engine that announces everything; skipped unless the worker asked for that."""
    stage.announce(*_ALL)
    link = stage.link()
    if name not in link.asked:
        stage.skip(f"the worker does not ask for {name} when it registers{hint}")
    return link


def _batches(stage: WorkerStage, sizes: Sequence[int]) -> list[WorkJob]:
    """Send batches back to back; all of their jobs."""
    jobs = []
    for size in sizes:
        batch = [stage.job(which) for which in range(min(size, stage.link().max_batch_size))]
        stage.deliver(*batch)
        jobs += batch
    return jobs


def _demand_once(stage: WorkerStage, jobs: Sequence[WorkJob], why: str) -> None:
    for job in jobs:
        stage.demand(
            len(job.answers) == 1,
            f"job {job.id}, {why}, is answered exactly once",
            f"{len(job.answers)} times: {diagnostic([answer.entry for answer in job.answers])}",
        )


@case(
    "ORB-EXT-41",
    "A worker uses no extension with an engine that announced none",
    role=Role.WORKER,
    sentences=("X0.4",),
    plans=st.fixed_dictionaries(
        {"sizes": st.lists(st.integers(1, 4), min_size=1, max_size=3), "terminate": _SELDOM}
    ),
    examples=[{"sizes": [2], "terminate": False}, {"sizes": [1, 1], "terminate": True}],
)
def stock_engines_see_nothing(stage: WorkerStage, plan: Plan) -> None:
    """The engine announces no extension. The worker gets batches, and perhaps is asked to end by SIGTERM
    while it computes. All that it may send are outputs: no worker_progress and no worker_drain. An engine
    written from the spec may close the connection of who sends it what it does not know.
    """
    link = stage.link()
    jobs = _batches(stage, plan["sizes"])
    terminate = stage.bench.terminate if plan["terminate"] else None
    if terminate is None:
        stage.expect_answers(jobs, "each job is answered")
    else:
        stage.note("SIGTERM")
        terminate()
        stage.wait(lambda: link.closed is not None or bool(link.stray), stage.seconds_for(len(jobs)))
    stage.demand(
        not link.stray,
        f"{link.name}, whose engine announced no extensions, carries outputs and nothing else",
        diagnostic([message.value for message in link.stray]),
    )


@case(
    "ORB-EXT-42",
    "A worker answers jobs that are cancelled, too, each exactly once",
    role=Role.WORKER,
    sentences=("X2.6", "X2.3"),
    plans=st.fixed_dictionaries(
        {
            "sizes": st.lists(st.integers(1, 4), min_size=1, max_size=3),
            "cancelled": st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True),
            "after_ms": st.sampled_from([0, 0, 5, 50]),
            "answered": st.booleans(),
            "unknown": st.booleans(),
            "twice": st.booleans(),
        }
    ),
    examples=[
        {
            "sizes": [1, 2],
            "cancelled": [1],
            "after_ms": 0,
            "answered": False,
            "unknown": True,
            "twice": False,
        },
        {
            "sizes": [3],
            "cancelled": [0, 2],
            "after_ms": 0,
            "answered": False,
            "unknown": False,
            "twice": True,
        },
        {"sizes": [2], "cancelled": [0], "after_ms": 0, "answered": True, "unknown": False, "twice": False},
    ],
)
def cancelled_jobs_are_answered(stage: WorkerStage, plan: Plan) -> None:
    """Batches are sent, and some of their jobs cancelled while the worker computes them, before it begins, or
    when it has answered; perhaps twice, and with ids that it never had. Each job must be answered exactly
    once: the cancelled ones by their result or by {id, error: "cancelled"}, all others as ever. An engine
    waits for the answers to know that there is room for more.
    """
    link = _needing(stage, "cancel")
    jobs = _batches(stage, plan["sizes"])
    chosen = [jobs[place] for place in dict.fromkeys(place % len(jobs) for place in plan["cancelled"])]
    if plan["answered"]:
        stage.expect_answers(jobs, "each job is answered")
    stage.sleep(plan["after_ms"] / 1000)
    ids = [job.id for job in chosen] + (["nobody's"] if plan["unknown"] else [])
    for _ in range(2 if plan["twice"] else 1):
        link.send({"type": "cancel_jobs", "ids": ids})
    stage.expect_answers(jobs, "each job, cancelled or not, is answered")
    stage.barrier()
    _demand_once(stage, chosen, "which was cancelled")
    others = [job for job in jobs if job not in chosen]
    _demand_once(stage, others, "which was not cancelled")
    stage.demand(not link.answers.get('"nobody\'s"'), "an id that it never had is not answered", "it is")
    for job in jobs:
        error = job.answers[0].entry.get("error")
        stage.demand(
            error is None or (job in chosen and error == "cancelled"),
            f"job {job.id}, {'' if job in chosen else 'not '}cancelled, is answered by its result"
            + (' or by the error "cancelled"' if job in chosen else ""),
            diagnostic(job.answers[0].entry),
        )


@case(
    "ORB-EXT-43",
    "A worker works on the files that came with the batch, and on no batch's before",
    role=Role.WORKER,
    sentences=("X4.5",),
    plans=st.fixed_dictionaries({"jobs": st.integers(1, 3), "batches": st.integers(1, 2)}),
    examples=[{"jobs": 1, "batches": 1}, {"jobs": 2, "batches": 2}],
)
def inlined_files_are_read(stage: WorkerStage, plan: Plan) -> None:
    """Batches come with `resources`: paths of an engine's machine, where there is nothing here, and the bytes
    of a picture. Jobs with these paths must get results, though no such file exists, and none may be made at
    that place. A job with the same path in a later batch, which brings no bytes, must be an error: a worker
    that keeps other people's pictures serves them to the next.
    """
    hint = ": for workers of orbtrio, ORB_INLINE_RESOURCES=1 in the environment makes it ask"
    _needing(stage, "inline_resources", hint)
    wanting = stage.picture_inputs()
    if not wanting:
        stage.skip("none of its inputs has a path: give some with --inputs, with {image} for the path")
    paths = [str(stage.bench.folder / f"elsewhere-{number}" / "img.png") for number in range(plan["jobs"])]
    for _ in range(plan["batches"]):
        jobs = [stage.job(input=stage.input_with(wanting[0], path)) for path in paths]
        jobs = jobs[: stage.link().max_batch_size]
        resources = [{"path": path, "data": PICTURE} for path in paths[: len(jobs)]]
        stage.deliver(*jobs, resources=resources)
        stage.expect_answers(jobs, "each job whose file came with its batch is answered")
        _demand_once(stage, jobs, "whose file came with its batch")
        for job in jobs:
            stage.demand(
                not job.answers[0].failed,
                f"job {job.id}, whose file came with its batch, gets a result",
                diagnostic(job.answers[0].entry),
            )
    for path in paths:
        stage.demand(not Path(path).exists(), f"no file is made at {path!r}", "one is there")
    late = stage.job(input=stage.input_with(wanting[0], paths[0]))
    stage.deliver(late)
    stage.expect_answers([late], f"job {late.id}, whose file came with an earlier batch, is answered")
    stage.demand(
        late.answers[0].failed,
        f"job {late.id}, whose file came with an earlier batch only, is answered by an error",
        diagnostic(late.answers[0].entry),
    )


@case(
    "ORB-EXT-44",
    "A worker that is asked to end drains: it says so, answers whatever comes, and ends when it is closed",
    role=Role.WORKER,
    sentences=("X3.5", "X3.3"),
    plans=st.fixed_dictionaries(
        {"sizes": st.lists(st.integers(1, 3), max_size=2), "crossing": st.integers(0, 2)}
    ),
    examples=[{"sizes": [2], "crossing": 1}, {"sizes": [], "crossing": 0}],
    seconds=2,
)
def drains_when_asked_to_end(stage: WorkerStage, plan: Plan) -> None:
    """The worker gets SIGTERM with some batches in hand or none. It must send worker_drain, once, and go on:
    what it has, and a batch that was already on its way, must be answered. Then it is closed with 1000, and
    its process must end. So a fleet is replaced worker by worker, and nobody notices.
    """
    terminate = stage.bench.terminate
    if terminate is None:
        stage.skip("the worker's process cannot be sent SIGTERM from here")
    link = _needing(stage, "drain")
    jobs = _batches(stage, plan["sizes"])
    stage.note("SIGTERM")
    terminate()
    stage.expect(
        lambda: bool(link.drains) or link.closed is not None,
        f'{link.name} carries {{type: "worker_drain"}} when the worker is asked to end',
    )
    stage.demand(
        bool(link.drains),
        f"{link.name} stays open when the worker is asked to end: it says worker_drain, and waits",
        str(link.closed),
    )
    jobs += _batches(stage, [1] * plan["crossing"])
    stage.expect_answers(jobs, "each job that came before the engine closed is answered")
    _demand_once(stage, jobs, "which came before the engine closed")
    stage.sleep(stage.slack)
    stage.demand(
        link.closed is None and len(link.drains) == 1,
        f"{link.name} carries one worker_drain, and waits for the engine to close it",
        str(link.closed) if link.closed else f"{len(link.drains)} of them",
    )
    link.close(1000, "drained")
    stage.bench.losses += 1
    if not stage.wait(lambda: not stage.world.alive()):
        stage.fail(
            "the worker's process ends when it has drained and the engine has closed it", "it still runs"
        )


@case(
    "ORB-EXT-45",
    "What a worker reports is about jobs that it has, and comes before their answers",
    role=Role.WORKER,
    sentences=("X1.7", "X1.2"),
    plans=st.fixed_dictionaries({"sizes": st.lists(st.integers(1, 4), min_size=1, max_size=3)}),
    examples=[{"sizes": [3, 2]}],
)
def reports_are_about_jobs_in_hand(stage: WorkerStage, plan: Plan) -> None:
    """The worker gets batches of an engine that understands progress. It may report, as often as it likes:
    each entry must be a map with the id of a job that it was sent on this link and has not answered. Whatever
    comes for others is dropped, so a worker that is wrong there works for nothing.
    """
    link = _needing(stage, "progress")
    jobs = _batches(stage, plan["sizes"])
    stage.expect_answers(jobs, "each job is answered")
    stage.barrier()
    if not link.reports:
        stage.note("the worker reports nothing, which it may")
    known = {job.id for job in stage.jobs}
    answered: set[Any] = set()
    for message in link.messages:
        kind = message.value.get("type")
        if kind == "worker_output":
            answered |= {entry.get("id") for entry in message.value["output"] if isinstance(entry, dict)}
        if kind != _MESSAGES["progress"]:
            continue
        entries = message.value.get("progress")
        shape = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
        stage.demand(shape, "`progress` is a list of maps {id, …}", diagnostic(message.value))
        for entry in entries:
            stage.demand(
                entry.get("id") in known,
                "progress is about jobs that were sent on this link",
                diagnostic(entry),
            )
            stage.demand(
                entry.get("id") not in answered,
                "no progress of a job after its answer",
                diagnostic(entry),
            )


@case(
    "ORB-EXT-46",
    "A worker makes typed arrays only for an engine that takes them, and of the same numbers",
    role=Role.WORKER,
    sentences=("X7.6",),
    plans=st.fixed_dictionaries({"which": st.integers(0, 9), "stock_first": st.booleans()}),
    examples=[{"which": 0, "stock_first": True}],
)
def typed_arrays_are_for_who_takes_them(stage: WorkerStage, plan: Plan) -> None:
    """The same job is given twice: by an engine that announces no extension and by one that announces all of
    them. To the first no typed array may be sent. To the second vectors may go as typed arrays, of as many
    numbers as before, and the same ones up to rounding. An engine written from the spec may close the
    connection over a tag that it does not know.
    """
    found: dict[bool, list[Any]] = {}
    for announces in (False, True) if plan["stock_first"] else (True, False):
        if announces:
            _needing(stage, "typed_arrays")
        else:
            stage.announce()
        job = stage.job(plan["which"])
        stage.deliver(job)
        stage.expect_answers([job], "the job is answered")
        found[announces] = list(_vectors(job.answers[0].entry))
    tags = [value for value in found[False] if isinstance(value, CBORTag)]
    stage.demand(
        not tags, "to an engine that announced no extensions no typed array is sent", diagnostic(tags[:1])
    )
    for plain, vector in zip(found[False], found[True], strict=False):
        if isinstance(vector, CBORTag):
            numbers = _numbers(vector)
            stage.demand(
                numbers is not None and len(numbers) == len(plain) and all(map(_alike, numbers, plain)),
                f"a typed array has the numbers of the list that is sent to others: {diagnostic(plain)}",
                diagnostic(vector if numbers is None else numbers),
            )


# Lists of numbers and typed arrays, in order, at any depth of maps and lists.
def _vectors(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for member in value.values():
            yield from _vectors(member)
    elif isinstance(value, CBORTag) and value.tag in FORMATS:
        yield value
    elif isinstance(value, list):
        if all(isinstance(member, float) for member in value):
            yield value
        else:
            for member in value:
                yield from _vectors(member)


def _numbers(vector: CBORTag) -> list[float] | None:
    form = FORMATS[vector.tag]
    if not isinstance(vector.value, bytes) or len(vector.value) % struct.calcsize(form):
        return None
    return [number for (number,) in struct.iter_unpack(form, vector.value)]


# Twice the same model: on some hardware not to the last bit.
def _alike(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
