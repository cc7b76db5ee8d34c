"""WRK: what a worker makes of junk, of missing files, of pings while it computes, and of lost links."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.examples import PICTURE
from orbtrio.conformance.model import Level, Plan, Role, case
from orbtrio.conformance.notation import diagnostic, encode
from orbtrio.conformance.worker_stage import LONGEST_AWAY

if TYPE_CHECKING:
    from orbtrio.conformance.worker_bench import WorkerLink
    from orbtrio.conformance.worker_stage import WorkerStage

__all__: list[str] = []

# Within which a ping is answered while the worker computes. Engines wait for 20 s and more.
_PONG: Final = 5.0

_JUNK: Final[dict[str, Any]] = {
    "no CBOR": b"\xff\xfe\xfd",
    "nothing at all": b"",
    "a truncated map": b"\xa1\x66inputs\x82",
    "a list of 4 billion entries": b"\x9a\xff\xff\xff\xff",
    "lists in lists": b"\x81" * 5_000 + b"\x00",
    "a number": encode(7),
    "a text": encode("inputs"),
    "a list": encode([{"inputs": []}]),
    "null": encode(None),
    "a map without inputs": {"outputs": []},
    "another message": {"type": "worker_response", "job_id": "1", "output": {}},
    "inputs is null": {"inputs": None},
    "inputs is a number": {"inputs": 3},
    "inputs is a map": {"inputs": {"id": "1", "input": {}}},
    "a job is a number": {"inputs": [3]},
    "a job is null": {"inputs": [None]},
    "a job without an id": {"inputs": [{"input": {}}]},
    "a job whose id is a number": {"inputs": [{"id": 5, "input": {}}]},
    "a job without an input": {"inputs": [{"id": "odd"}]},
    "a job whose input is a list": {"inputs": [{"id": "odd", "input": [1]}]},
    "a job whose input is null": {"inputs": [{"id": "odd", "input": None}]},
    "a text frame": "hello",
}


@case(
    "ORB-WRK-09",
    "A message that makes no sense does not stop a worker",
    role=Role.WORKER,
    sentences=("S2.20", "S2.14", "S0.3", "S0.2", "P-7"),
    plans=st.fixed_dictionaries(
        {"junk": st.lists(st.sampled_from(sorted(_JUNK)), min_size=1, max_size=4, unique=True)}
    ),
    examples=[
        {"junk": ["no CBOR"]},
        {"junk": [kind for kind in _JUNK if kind not in ("no CBOR", "a text frame")]},
        {"junk": ["a text frame"]},
    ],
    readings={
        "goes on": "it goes on with the next batch on the same link",
        "refuses text": "it closes with 1003 (cannot accept this data) on a text frame, and comes back",
        "comes back": "it drops the link, and comes back",
    },
    seconds=2,
)
def junk_is_survived(stage: WorkerStage, plan: Plan) -> str:
    """Messages come that no engine should send: no CBOR, no batch, jobs that are no maps or have no id. The
    page's worker logs them and reads on. A worker that ends instead takes its model, and all jobs that it
    has, with it; one that drops the link and comes back costs the engine a redelivery."""
    link = stage.link()
    for kind in plan["junk"]:
        junk = _JUNK[kind]
        if isinstance(junk, str):
            link.send_text(junk)
        else:
            link.send(junk)
    job = stage.job()
    stage.deliver(job)
    stage.wait(lambda: bool(job.answers) or link.closed is not None, stage.seconds_for(1 + len(plan["junk"])))
    if job.answers:
        return "goes on"
    if link.closed is None:
        stage.fail(
            f"job {job.id} is answered although junk came before it ({', '.join(plan['junk'])})",
            "no answer, and the link is open",
        )
    stage.bench.losses += 1
    # Its process dies a moment after its link.
    stage.world.wait(stage.slack, lambda: not stage.world.alive())
    stage.barrier()
    return "refuses text" if "a text frame" in plan["junk"] and link.closed.code == 1003 else "comes back"


@case(
    "ORB-WRK-13",
    "A file that is not there is an error of its job",
    role=Role.WORKER,
    sentences=("S4.30", "S3.11", "S9.1"),
    plans=st.fixed_dictionaries(
        {"how": st.sampled_from(["deleted", "never there", "no such folder", "a folder", "empty"])}
    ),
    examples=[{"how": "deleted"}, {"how": "never there"}],
)
def missing_file(stage: WorkerStage, plan: Plan) -> None:
    """A job names a file that cannot be read: one that an engine has deleted because the job's time was over,
    or whose disk is not shared with the worker. It must be answered by an error, and the next job by a
    result: a made-up result would be believed."""
    wanting = stage.picture_inputs()
    if not wanting:
        stage.skip("none of its inputs has a path: give some with --inputs, with {image} for the path")
    path = Path(stage.picture())
    target = {
        "never there": path.with_name("never-there.png"),
        "no such folder": path.parent / "no-such-folder" / "img.png",
        "a folder": path.parent,
    }.get(plan["how"], path)
    if plan["how"] == "deleted":
        path.unlink()
    elif plan["how"] == "empty":
        path.write_bytes(b"")
    job = stage.job(input=stage.input_with(wanting[0], str(target)))
    stage.deliver(job)
    stage.expect_answers([job], f"job {job.id}, whose file cannot be read ({plan['how']}), is answered")
    if plan["how"] != "empty":
        # What an empty file is depends on who reads it.
        stage.demand(
            job.answers[0].failed,
            f"job {job.id}, whose file cannot be read ({plan['how']}), is answered by an error",
            diagnostic(job.answers[0].entry),
        )
    after = stage.barrier()
    stage.demand(
        not after.answers[0].failed,
        f"the next job, {after.id}, gets a result",
        diagnostic(after.answers[0].entry),
    )


@case(
    "ORB-WRK-14",
    "Pings are answered while a batch is computed",
    role=Role.WORKER,
    sentences=("S10.6", "S9.8", "S0.2"),
    plans=st.fixed_dictionaries({"batches": st.integers(1, 2), "every_ms": st.integers(10, 300)}),
    examples=[{"batches": 2, "every_ms": 20}],
)
def pings_while_computing(stage: WorkerStage, plan: Plan) -> None:
    """The worker gets full batches, and pings while it computes them. Each must be answered within 5 s: an
    engine can tell a worker that computes from one that is dead by its pongs alone, and gives the jobs of the
    dead to others. What computes belongs into a thread. (A worker that needs less than that for all of it
    shows nothing either way, and passes.)"""
    link = stage.link()
    size = link.max_batch_size
    jobs = [stage.job(which) for which in range(size * plan["batches"])]
    for start in range(0, len(jobs), size):
        stage.deliver(*jobs[start : start + size])
    deadline = stage.now() + 2 * _PONG
    sent = len(link.pongs)
    while stage.now() < deadline and not all(job.answers for job in jobs):
        sent += 1
        link.ping(b"conformance")
        stage.expect(
            functools.partial(_answered, link, sent),
            f"a ping is answered within {_PONG:.0f} s while the worker computes {len(jobs)} jobs",
            within=_PONG,
        )
        stage.demand(link.closed is None, f"{link.name} stays open while it is pinged", str(link.closed))
        stage.sleep(plan["every_ms"] / 1000)


def _answered(link: WorkerLink, pings: int) -> bool:
    return len(link.pongs) >= pings or link.closed is not None


@case(
    "ORB-WRK-15",
    "Files of resources are left as they are",
    role=Role.WORKER,
    sentences=("S4.26", "S4.30", "P-42"),
    plans=st.fixed_dictionaries({"jobs": st.integers(1, 3)}),
    examples=[{"jobs": 2}],
)
def files_are_left(stage: WorkerStage, plan: Plan) -> None:
    """Jobs with files are answered; then the files must be there, with the same bytes. They belong to the
    engine, which deletes them when the last job that shares them is done. Another worker may be reading."""
    wanting = stage.picture_inputs()
    if not wanting:
        stage.skip("none of its inputs has a path: give some with --inputs, with {image} for the path")
    paths = [stage.picture() for _ in range(min(plan["jobs"], stage.link().max_batch_size))]
    jobs = [
        stage.job(input=stage.input_with(wanting[number % len(wanting)], path))
        for number, path in enumerate(paths)
    ]
    stage.deliver(*jobs)
    stage.expect_answers(jobs, "each job with a file is answered")
    stage.barrier()
    for path in paths:
        stage.demand(
            Path(path).is_file(), f"{Path(path).name} is still there when its job is answered", "it is gone"
        )
        stage.demand(
            Path(path).read_bytes() == PICTURE, f"{Path(path).name} has the bytes that it had", "others"
        )


_ENDS: Final = (1000, 1001, 1008, "RST", "FIN", "cut")

# Lost links after which a good worker stays away for longer than it needs to be started again.
_MANY_LOSSES: Final = 2

# Faster than any wait: connecting takes some milliseconds.
_AT_ONCE: Final = 0.03

# When back-off has been watched for so long, in seconds, three waits are enough.
_WATCHED: Final = 8.0


@case(
    "ORB-WRK-10",
    "A worker comes back, however its link ended, and waits longer each time",
    role=Role.WORKER,
    sentences=("S11.4", "S11.2", "S10.7", "S7.1", "S7.7", "S7.8"),
    plans=st.fixed_dictionaries(
        {
            "again": st.sampled_from(_ENDS),
            "times": st.integers(3, 6),
            "then": st.lists(st.sampled_from(_ENDS), max_size=3),
        }
    ),
    examples=[{"again": "RST", "times": 6, "then": [1000, 1001, 1008]}],
    readings={
        "grows": "it waits longer from time to time",
        "constant": "it waits for the same time again and again",
        "at once": "it connects again at once, over and over",
    },
    seconds=4,
)
def comes_back(stage: WorkerStage, plan: Plan) -> str:
    """The link is ended in the same way again and again as soon as the worker has registered, then in other
    ways: close codes 1000, 1001 and 1008, TCP's FIN and RST, and in the midst of a batch. The worker must
    connect and register again within 60 s each time, and then do a job. An engine that restarts, or that
    learns of its new WORKER_SECRET a minute later, gets its workers back without anybody's help. How long it
    waits is watched: workers that come back at once, hundreds of times a second, keep an engine from
    starting; waits between 0.05 s and 60 s that grow do not."""
    stage.restart()
    waits = []
    total = 0.0
    for kind in [plan["again"]] * plan["times"]:
        waits.append(_lose_link(stage, kind))
        total += waits[-1]
        if len(waits) >= 3 and (_grows(waits) or total > _WATCHED):
            break
    for kind in plan["then"]:
        _lose_link(stage, kind)
    stage.barrier()
    stage.note("it came back after " + ", ".join(f"{wait:.2f} s" for wait in waits))
    if all(wait < _AT_ONCE for wait in waits):
        return "at once"
    return "grows" if _grows(waits) else "constant"


def _lose_link(stage: WorkerStage, kind: Any) -> float:
    began = stage.end(kind)
    link = stage.next_link(LONGEST_AWAY + stage.slack)
    if link is None:
        how = f"a close with {kind}" if isinstance(kind, int) else f"{kind} in its link"
        stage.fail(f"the worker connects and registers again within {LONGEST_AWAY:.0f} s of {how}", "nothing")
    return link.connected_at - began


def _grows(waits: list[float]) -> bool:
    return waits[-1] > 1.7 * waits[0] and waits[-1] > _AT_ONCE


@case(
    "ORB-WRK-11",
    "A worker registers as the same when it comes back",
    role=Role.WORKER,
    sentences=("S11.3", "S7.2", "S10.1"),
    plans=st.fixed_dictionaries({"ends": st.lists(st.sampled_from(_ENDS), min_size=1, max_size=2)}),
    examples=[{"ends": ["RST"]}],
)
def registers_the_same(stage: WorkerStage, plan: Plan) -> None:
    """The link is lost, and the worker comes back. Its registration must be the one that it sent before: it
    is the same program with the same model. Who registers a smaller size each time, or forgets its type,
    gets other jobs than it can do."""
    stage.restart(after=_MANY_LOSSES)
    first = stage.link().first
    for kind in plan["ends"]:
        _lose_link(stage, kind)
        again = stage.link().first
        assert first is not None
        assert again is not None
        stage.demand(
            again.value == first.value,
            f"{stage.link().name} registers as before: {_shown(stage, first.value)}",
            _shown(stage, again.value),
        )


def _shown(stage: WorkerStage, message: Any) -> str:
    return diagnostic(message, secrets=(stage.conditions.secret,))


@case(
    "ORB-WRK-12",
    "Jobs of a lost link are not answered on the next",
    role=Role.WORKER,
    level=Level.SHOULD,
    sentences=("S7.5", "P-23"),
    plans=st.fixed_dictionaries(
        {"jobs": st.integers(1, 5), "end": st.sampled_from(_ENDS), "after_ms": st.sampled_from([0, 0, 2])}
    ),
    examples=[{"jobs": 3, "end": "RST", "after_ms": 0}],
)
def old_jobs_are_forgotten(stage: WorkerStage, plan: Plan) -> None:
    """A batch is sent and the link ended before it is answered. On the next link the worker must not answer
    those jobs: the engine has given them to others by then, and an answer from who does not hold a job is
    dropped at best."""
    stage.restart(after=_MANY_LOSSES)
    jobs = [stage.job(which) for which in range(min(plan["jobs"], stage.link().max_batch_size))]
    if plan["end"] == "cut":
        stage.end("cut", jobs)
    else:
        stage.deliver(*jobs)
        stage.sleep(plan["after_ms"] / 1000)
        stage.end(plan["end"])
    if any(job.answers for job in jobs):
        stage.note("some had been answered before the link was lost")
    link = stage.link()
    new = stage.barrier()
    # What it may still be computing.
    stage.sleep(min(stage.seconds_for(len(jobs)) / 4, 2.0) if stage.world.virtual else stage.slack)
    old = set(link.answers) - {diagnostic(new.id)}
    stage.demand(not old, f"{link.name} carries answers to its own jobs only", f"answers to {sorted(old)}")
