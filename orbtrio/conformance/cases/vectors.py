"""Extension `typed_arrays`: vectors as the bytes that they are for whoever asked, lists for all others."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from cbor2 import CBORTag
from hypothesis import strategies as st

from orbtrio.conformance.cases.asking import (
    LONG_MS,
    all_delivered,
    asking_client,
    asking_worker,
    expect_done,
)
from orbtrio.conformance.model import case
from orbtrio.conformance.notation import diagnostic, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import Job

__all__ = ["FORMATS", "typed"]

# RFC 8746: float32 and float64, big-endian and little-endian.
FORMATS: Final = {81: ">f", 82: ">d", 85: "<f", 86: "<d"}

_TAGS: Final = st.sampled_from(sorted(FORMATS))

# Numbers that are the same in either width; and where the vector stands in the entry.
_NUMBERS: Final = st.integers(-(1 << 20), 1 << 20).map(lambda number: number / 1024)
_PLACES: Final = ("field", "list", "map", "tag")


def typed(tag: int, numbers: Sequence[float]) -> CBORTag:
    """These numbers as a typed array."""
    return CBORTag(tag, b"".join(struct.pack(FORMATS[tag], number) for number in numbers))


def _fields(place: str, vector: Any) -> dict[str, Any]:
    return {
        "field": {"embedding": vector, "shape": [1]},
        "list": {"rows": [vector, ["x", [vector]]], "n": 1},
        "map": {"more": {"deep": {"vector": vector}}, "text": "\u00d8U"},
        "tag": {"value": CBORTag(1000, [vector]), "data": b"\xd8\x55\x44four"},
    }[place]


def _demand_output(stage: EngineStage, job: Job, expected: dict[str, Any], whose: str) -> None:
    stage.expect(lambda: bool(job.responses), f"{job}, of {whose}, is answered")
    output = job.responses[0].output
    seen = {name: value for name, value in output.items() if name != "id"} if type(output) is dict else None
    stage.demand(
        encode(seen) == encode(expected), f"the answer to {whose} is {diagnostic(expected)}", diagnostic(seen)
    )
    stage.demand(
        len(job.responses) == 1, f"{job} is answered exactly once", f"{len(job.responses)} responses"
    )


@case(
    "ORB-EXT-27",
    "Typed arrays go as they came to who asked for them, and as lists of floats to all others",
    sentences=("X7.1", "X7.2", "X7.3"),
    plans=st.fixed_dictionaries(
        {
            "tag": _TAGS,
            "numbers": st.lists(_NUMBERS, max_size=40),
            "place": st.sampled_from(_PLACES),
            "together": st.booleans(),
            "reports": st.integers(0, 2),
        }
    ),
    examples=[
        {"tag": 85, "numbers": [0.5, -2.0], "place": "field", "together": True, "reports": 1},
        {"tag": 86, "numbers": [1.25] * 30, "place": "list", "together": False, "reports": 0},
        {"tag": 82, "numbers": [1.5, 0.0], "place": "map", "together": False, "reports": 1},
        {"tag": 81, "numbers": [], "place": "tag", "together": True, "reports": 0},
    ],
)
def typed_arrays_are_for_who_asked(stage: EngineStage, plan: Plan) -> None:
    """A worker that asked for typed_arrays reports on jobs and answers them, with a vector somewhere in the
    entry that is a typed array. One of the two clients asked for typed_arrays too: it must get just these
    bytes. The other must get the same entry with an array of the same numbers in place of the tag: nobody
    is ever sent what it did not ask for.
    """
    worker = asking_worker(stage, "typed_arrays", "progress", size=2, latency_ms=LONG_MS)
    more = ["progress", "batched_responses"] if plan["together"] else ["progress"]
    asking = asking_client(stage, "typed_arrays", *more)
    other = asking_client(stage, *more)
    jobs = [asking.submit(), other.submit()]
    deliveries = all_delivered(stage, jobs)
    fields = _fields(plan["place"], typed(plan["tag"], plan["numbers"]))
    lists = _fields(plan["place"], [float(number) for number in plan["numbers"]])
    for _ in range(plan["reports"]):
        worker.report(*deliveries, **fields)
    worker.answer(*deliveries, **fields)
    for job, expected, whose in zip(
        jobs, (fields, lists), ("who asked for typed_arrays", "who did not ask for typed_arrays"), strict=True
    ):
        _demand_output(stage, job, expected, whose)
        told = [report.progress for report in job.reports]
        stage.demand(
            encode(told) == encode([expected] * plan["reports"]),
            f"the progress that is told to {whose} is {plan['reports']} times {diagnostic(expected)}",
            diagnostic(told),
        )


_BROKEN: Final = {
    "part of a number": lambda tag: CBORTag(tag, b"12345"),
    "text": lambda tag: CBORTag(tag, "1234"),
    "a list": lambda tag: CBORTag(tag, [1.0]),
    "a number": lambda tag: CBORTag(tag, 7),
    "a tag": lambda tag: CBORTag(tag, CBORTag(1000, b"12345678")),
}


@case(
    "ORB-EXT-28",
    "An entry with a typed array that is none does not count, and its neighbours do",
    sentences=("X7.4",),
    plans=st.fixed_dictionaries(
        {
            "tag": _TAGS,
            "what": st.sampled_from(sorted(_BROKEN)),
            "place": st.sampled_from(_PLACES),
            "asked": st.booleans(),
            "report": st.booleans(),
        }
    ),
    examples=[
        {"tag": 85, "what": "part of a number", "place": "field", "asked": False, "report": True},
        {"tag": 86, "what": "text", "place": "list", "asked": True, "report": False},
        {"tag": 82, "what": "a tag", "place": "tag", "asked": True, "report": True},
    ],
)
def broken_typed_arrays_are_their_entrys_fault(stage: EngineStage, plan: Plan) -> None:
    """A worker that asked for typed_arrays sends an output with two entries. One has a tag of typed arrays on
    something that is no byte string of whole numbers: it must not count, whatever its client asked for, just
    as if it had no id. The other must. Then the first job is answered as it should be: that is its answer.
    """
    worker = asking_worker(stage, "typed_arrays", "progress", size=2, latency_ms=LONG_MS)
    client = asking_client(stage, "progress", *(["typed_arrays"] if plan["asked"] else []))
    jobs = [client.submit(), client.submit()]
    bad, good = all_delivered(stage, jobs)
    fields = _fields(plan["place"], _BROKEN[plan["what"]](plan["tag"]))
    if plan["report"]:
        worker.report(bad, **fields)
    worker.output([{"id": bad.id, **fields}, {"id": good.id, "echo": good.input}])
    expect_done(stage, [good.job], "whose neighbour has a typed array that is none")
    stage.barrier()
    stage.demand(
        worker.closed is None,
        f"{worker.name} stays connected, for only one entry was wrong",
        str(worker.closed),
    )
    stage.demand(
        not bad.job.responses and not bad.job.reports,
        f"an entry with a typed array of {plan['what']} does not count",
        diagnostic([response.output for response in bad.job.responses] or bad.job.reports[0].progress)
        if bad.job.responses or bad.job.reports
        else "",
    )
    worker.answer(bad)
    expect_done(stage, [bad.job], "answered anew")


@case(
    "ORB-EXT-29",
    "Of a worker that did not ask, typed arrays are tags like any other",
    sentences=("X7.5",),
    plans=st.fixed_dictionaries(
        {
            "tag": _TAGS,
            "content": st.sampled_from(["numbers", *sorted(_BROKEN)]),
            "place": st.sampled_from(_PLACES),
            "asked": st.booleans(),
        }
    ),
    examples=[
        {"tag": 85, "content": "numbers", "place": "field", "asked": False},
        {"tag": 86, "content": "text", "place": "list", "asked": True},
    ],
)
def tags_of_others_are_left_alone(stage: EngineStage, plan: Plan) -> None:
    """A worker that knows nothing of typed_arrays answers with one of its tags, on numbers or on whatever
    else. The client must get it unchanged, whether it asked for typed_arrays or not: the values of a stock
    worker are its own, and JavaScript's Float32Array has always travelled so.
    """
    worker = asking_worker(stage)
    stage.need_extensions("typed_arrays")
    client = stage.client(extensions=["typed_arrays"] if plan["asked"] else [])
    job = client.submit()
    (delivery,) = all_delivered(stage, [job])
    tag = plan["tag"]
    value = typed(tag, [0.5]) if plan["content"] == "numbers" else _BROKEN[plan["content"]](tag)
    fields = _fields(plan["place"], value)
    worker.answer(delivery, **fields)
    _demand_output(stage, job, fields, "a client of a worker that did not ask")
