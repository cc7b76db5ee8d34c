"""The messages that the spec prints, sent and received as printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.examples import PICTURE, message
from orbtrio.conformance.model import Role, case
from orbtrio.conformance.notation import diagnostic

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.peer import Peer
    from orbtrio.conformance.worker_stage import WorkerStage

__all__: list[str] = []

_TYPE: Final = "embedding"


@case(
    "ORB-CNV-04",
    "The messages that the spec prints do what it says of them",
    sentences=("S6.1", "S4.13", "S4.14", "S4.15", "S2.6", "S3.9"),
    plans=st.fixed_dictionaries(
        {"answer": st.sampled_from(["output of two successes", "output of a success and an error"])}
    ),
    examples=[{"answer": "output of two successes"}, {"answer": "output of a success and an error"}],
)
def printed_messages_work(stage: EngineStage, plan: Plan) -> None:
    """The spec's own examples, one after the other: the registration; the request with a picture, whose job
    must reach the worker with a path to these bytes; the output with an error, which must reach the client;
    the two texts of the printed batch, which must arrive in this shape; and an output of two. Secrets and
    identifiers are put in, and batches have the size of what is sent, so that they leave at once.
    """
    if _TYPE not in stage.conditions.types[:-1]:
        stage.skip(f"the printed messages are for workers of type {_TYPE!r}, which the target does not know")
    client = stage.client()
    worker = _registered(stage, size=1)
    client.send(message("request"))
    [entry] = _batch(stage, worker, 1)
    path = entry["input"].get("filepath")
    stage.demand(
        isinstance(path, str) and entry["input"].keys() == {"filepath"},
        'the job of the printed request has the input {"filepath": <a path>}',
        diagnostic(entry["input"]),
    )
    if stage.conditions.files:
        file = Path(path)
        stage.demand(
            file.is_file() and file.read_bytes() == PICTURE,
            f"the file at {path!r} has the bytes of the printed resource",
            "it has not",
        )
    _answer(stage, client, worker, [entry], "output with one error", ["job-1"])
    worker.drop("close")
    worker = _registered(stage, size=2)
    printed = message("batch")["inputs"]
    jobs = [
        {"job_id": f"printed-{number}", "worker_type": _TYPE, "input": job["input"]}
        for number, job in enumerate(printed)
    ]
    client.send({"type": "worker_request", "jobs": jobs})
    entries = _batch(stage, worker, 2)
    stage.demand(
        [entry["input"] for entry in entries] == [job["input"] for job in printed],
        "the inputs of the printed batch arrive as they are printed",
        diagnostic([entry["input"] for entry in entries]),
    )
    _answer(stage, client, worker, entries, plan["answer"], [job["job_id"] for job in jobs])


def _registered(stage: EngineStage, *, size: int) -> Peer:
    worker = stage.peer("worker")
    registration = message("registration")
    registration["worker_secret"] = stage.conditions.secret
    registration["worker_config"]["max_batch_size"] = size
    worker.send(registration)
    stage.quiet()
    stage.demand(worker.closed is None, f"{worker.name} is accepted", str(worker.closed))
    return worker


def _batch(stage: EngineStage, worker: Peer, number: int) -> list[dict[str, Any]]:
    stage.expect(lambda: bool(worker.messages), f"a batch of {number} jobs for {worker.name}")
    value = worker.messages[0].value
    entries = value.get("inputs") if isinstance(value, dict) else None
    stage.demand(
        isinstance(entries, list)
        and len(entries) == number
        and all(
            isinstance(entry, dict) and {"id", "input"} <= entry.keys() and isinstance(entry["input"], dict)
            for entry in entries
        ),
        f"a batch as printed, {{inputs: [{{id, input}}]}}, of {number} jobs",
        diagnostic(value),
    )
    return list(entries or ())


def _answer(
    stage: EngineStage,
    client: Peer,
    worker: Peer,
    entries: list[dict[str, Any]],
    name: str,
    job_ids: list[str],
) -> None:
    answer = message(name)
    known = len(client.messages)
    for entry, output in zip(entries, answer["output"], strict=True):
        output["id"] = entry["id"]
    worker.send(answer)
    stage.expect(
        lambda: len(client.messages) >= known + len(entries),
        f"{len(entries)} answers for {client.name}",
        lambda: f"{len(client.messages) - known}",
    )
    outputs = {
        received.value.get("job_id"): received.value.get("output")
        for received in client.messages[known:]
        if isinstance(received.value, dict)
    }
    for job_id, output in zip(job_ids, answer["output"], strict=True):
        got = outputs.get(job_id)
        fields = {name: value for name, value in output.items() if name != "id"}
        stage.demand(
            isinstance(got, dict) and {name: got.get(name) for name in fields} == fields,
            f"job {job_id!r} is answered with the fields that are printed: {diagnostic(fields)}",
            diagnostic(got),
        )


@case(
    "ORB-WRK-25",
    "An embedding worker answers the batches that the spec prints",
    role=Role.WORKER,
    sentences=("S12.3", "S12.2", "S12.4", "S2.17"),
    plans=st.sampled_from(["batch", "test batch"]),
    examples=["batch", "test batch"],
)
def printed_batches_are_answered(stage: WorkerStage, plan: Plan) -> None:
    """The two batches that the spec prints are sent in these very words. Each must be answered by outputs of
    type `worker_output` with one result for each of the two printed ids."""
    if stage.bench.worker_type is None:
        stage.link()
    if stage.bench.worker_type != _TYPE:
        stage.skip(f"the worker under test is no {_TYPE} worker")
    link = stage.link()
    known = len(link.messages)
    batch = message(plan)
    wanted = sorted(job["id"] for job in batch["inputs"])

    def answered() -> list[str]:
        outputs = [
            received.value["output"]
            for received in link.messages[known:]
            if isinstance(received.value, dict)
            and received.value.get("type") == "worker_output"
            and isinstance(received.value.get("output"), list)
        ]
        return sorted(
            str(entry.get("id")) for output in outputs for entry in output if isinstance(entry, dict)
        )

    link.send(batch)
    stage.expect(
        lambda: len(answered()) >= len(wanted),
        f"results for {' and '.join(wanted)}",
        lambda: f"results for {answered()}",
        within=stage.seconds_for(len(wanted)),
    )
    stage.demand(answered() == wanted, f"results for {' and '.join(wanted)}", f"results for {answered()}")
