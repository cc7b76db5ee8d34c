"""Extension `inline_resources`: files travel with the batch, for workers that have another disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from orbtrio.conformance.cases.asking import (
    LONG_MS,
    all_delivered,
    asking_client,
    asking_worker,
    expect_done,
)
from orbtrio.conformance.cases.resources import content, delivered, document, image, reference
from orbtrio.conformance.model import case
from orbtrio.conformance.notation import diagnostic

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import Batch, Delivery

__all__: list[str] = []


@case(
    "ORB-EXT-18",
    "A batch brings the files that its jobs name, each once, under the paths that stand in their inputs",
    sentences=("X4.1", "X4.2", "X4.3"),
    plans=st.fixed_dictionaries(
        {
            # For each job, which of three files it names; the third is a document.
            "jobs": st.lists(st.lists(st.integers(0, 2), max_size=3, unique=True), min_size=1, max_size=5),
            "size": st.integers(1, 5),
            "bytes": st.integers(0, 3000),
            "equal": st.booleans(),
        }
    ),
    examples=[
        {"jobs": [[0]], "size": 1, "bytes": 100, "equal": False},
        {"jobs": [[0, 1], [0], [], [2]], "size": 4, "bytes": 100, "equal": False},
        {"jobs": [[0], [0]], "size": 1, "bytes": 2000, "equal": True},
    ],
)
def files_travel_with_the_batch(stage: EngineStage, plan: Plan) -> None:
    """A request has jobs that name some of three files, two of them perhaps with equal bytes; they go to a
    worker that asked for inline_resources, in batches of a drawn size. Each batch must have an entry for each
    file that its jobs name, once, and for no other: with the very bytes, under the path that stands in the
    inputs. A worker on another machine has nothing else, and pays for every byte twice.
    """
    worker = asking_worker(stage, "inline_resources", size=plan["size"])
    client = stage.client()
    jobs = [client.job({f"file{name}": reference(f"r{name}") for name in names}) for names in plan["jobs"]]
    first = content(jobs[0], plan["bytes"])
    document_data = jobs[0].input["conformance"].encode()
    data = {0: first, 1: first if plan["equal"] else b"another " + first, 2: document_data}
    used = {name for names in plan["jobs"] for name in names}
    resources = [
        document(f"r{name}", data[name].decode()) if name == 2 else image(f"r{name}", data[name])
        for name in sorted(used)
    ]
    client.request(jobs, resources)
    all_delivered(stage, jobs)
    for batch in worker.batches:
        wanted: dict[str, bytes] = {}
        for delivery in batch.deliveries:
            for name in plan["jobs"][jobs.index(delivery.job)]:
                wanted[_path(stage, delivery, f"file{name}")] = data[name]
        _check(stage, batch, wanted)
    worker.answer(*worker.deliveries)
    expect_done(stage, jobs, "whose files came with the batch")


def _path(stage: EngineStage, delivery: Delivery, name: str) -> str:
    path = delivery.input.get(name)
    stage.demand(
        isinstance(path, str), f"field {name!r} of {delivery.job}'s input is a path", diagnostic(path)
    )
    return str(path)


def _entries(stage: EngineStage, batch: Batch) -> list[dict[str, Any]]:
    entries = batch.message.value.get("resources", [])
    stage.demand(
        isinstance(entries, list)
        and all(isinstance(entry, dict) and entry.keys() >= {"path", "data"} for entry in entries),
        "the batch's `resources` is a list of {path, data}",
        diagnostic(entries),
    )
    return list(entries)


def _check(stage: EngineStage, batch: Batch, wanted: dict[str, bytes]) -> None:
    entries = _entries(stage, batch)
    paths = [entry["path"] for entry in entries]
    names = ", ".join(str(delivery.job) for delivery in batch.deliveries)
    stage.demand(
        sorted(map(str, paths)) == sorted(wanted),
        f"the batch with {names} has an entry for each of these paths, once, and no other: "
        f"{diagnostic(sorted(wanted))}",
        f"entries for {diagnostic(paths)}",
    )
    for entry in entries:
        stage.demand(
            entry["data"] == wanted[entry["path"]],
            f"the entry for {entry['path']!r} has the bytes that the client sent",
            diagnostic(entry["data"], longest=80),
        )


@case(
    "ORB-EXT-19",
    "Files that travel with a batch count against the worker's max_message_bytes",
    sentences=("X4.4",),
    plans=st.fixed_dictionaries(
        {"kib": st.lists(st.integers(1, 40), min_size=2, max_size=6), "shared": st.booleans()}
    ),
    examples=[{"kib": [30, 30, 30], "shared": False}, {"kib": [40, 10, 10, 10], "shared": True}],
)
def batches_with_files_stay_small(stage: EngineStage, plan: Plan) -> None:
    """A worker takes messages of 64 KiB and asked for inline_resources; jobs with files of up to 40 KiB each,
    and perhaps one that they share, are queued for it. Every message must stay within that size, and every
    job arrive with all its files. A library that is sent more than it takes hangs up, and the engine would
    send the same batch again. A job whose files alone are too big is not sent, and its client is told.
    """
    limit = 64 * 1024
    worker = asking_worker(stage, "inline_resources", size=len(plan["kib"]), max_message_bytes=limit)
    client = asking_client(stage, "engine_errors")
    jobs = []
    resources = [image("shared", b"shared " + bytes(9 * 1024))] if plan["shared"] else []
    for number, kib in enumerate(plan["kib"]):
        files = {"file": reference(f"r{number}"), **({"more": reference("shared")} if plan["shared"] else {})}
        jobs.append(client.job(files))
        resources.append(image(f"r{number}", content(jobs[-1], kib * 1024)))
    # Behind them, for it would fill a batch by itself.
    big = client.job({"file": reference("big")})
    client.request([*jobs, big], [*resources, image("big", content(big, limit))])
    all_delivered(stage, jobs)
    for batch in worker.batches:
        stage.demand(
            len(batch.message.raw) <= limit,
            f"no message to {worker.name} is longer than its max_message_bytes, {limit}",
            f"one with {len(batch.deliveries)} jobs has {len(batch.message.raw)} bytes",
        )
        brought = {entry["path"] for entry in _entries(stage, batch)}
        for delivery in batch.deliveries:
            named = {value for key, value in delivery.input.items() if key in ("file", "more")}
            stage.demand(
                named <= brought,
                f"the files of {delivery.job} are in its batch",
                f"{diagnostic(sorted(brought))}",
            )
    worker.answer(*worker.deliveries)
    expect_done(stage, jobs, "whose files had to travel in several batches")
    stage.expect(
        lambda: bool(big.responses),
        f"{big}, whose file is {limit} bytes long itself, is answered by an error",
    )
    stage.demand(not big.deliveries, f"{big} is sent to nobody", f"{worker.name} got it")


@case(
    "ORB-EXT-20",
    "A worker that did not ask gets paths, and no bytes",
    sentences=("X0.3", "X4.1"),
    plans=st.fixed_dictionaries({"jobs": st.integers(1, 3), "asked": st.booleans()}),
    examples=[{"jobs": 1, "asked": False}],
)
def stock_workers_get_paths(stage: EngineStage, plan: Plan) -> None:
    """Jobs with a file go to a stock worker, or one that asked for other extensions. Their batch must have
    `inputs` and nothing else: megabytes that nobody reads would go over the wire twice, and libraries hang up
    on messages above a megabyte.
    """
    stage.need_extensions("inline_resources")
    asked: dict[str, Any] = {"extensions": ["progress", "cancel"]} if plan["asked"] else {}
    worker = stage.worker(size=plan["jobs"], latency_ms=LONG_MS, **asked)
    client = stage.client()
    jobs = [client.job({"file": reference("r")}) for _ in range(plan["jobs"])]
    client.request(jobs, [image("r", content(jobs[0], 1000))])
    message = delivered(stage, jobs[0]).batch.message.value
    stage.demand(
        message.keys() == {"inputs"},
        f"the batch of {worker.name}, which did not ask for inline_resources, has `inputs` and nothing else",
        diagnostic(sorted(message)),
    )
    worker.answer(*all_delivered(stage, jobs))
    expect_done(stage, jobs, "with a file")
