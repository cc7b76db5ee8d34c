"""Resources, as workers see them: files, by the paths that stand where references stood.

`cleanup` has the cases about when they go.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.model import case
from orbtrio.conformance.notation import diagnostic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import Delivery, Job, SuiteClient

__all__ = ["content", "delivered", "document", "field", "file_of", "image", "need_files", "reference"]

LATENCY_MS: Final = 20
MIB: Final = 1024 * 1024

REFUSED: Final = {
    "1009": "the connection is closed with 1009",
    "no close frame": "the connection ends without a close frame, so the client cannot know why",
}


def reference(resource_id: str) -> dict[str, Any]:
    """A reference, as the spec prints it."""
    return {"__type": "resource-ref", "id": resource_id}


def image(resource_id: str, data: Any) -> dict[str, Any]:
    """A resource of bytes."""
    return {"id": resource_id, "type": "image", "data": data}


def document(resource_id: str, text: str) -> dict[str, Any]:
    """A resource of text."""
    return {"id": resource_id, "type": "document", "data": text}


def content(job: Job, size: int = 0) -> bytes:
    """Bytes that no other resource has, of at least this size."""
    start = f"{job.input['conformance']};".encode()
    return start + bytes(number * 7 % 256 for number in range(max(size - len(start), 0)))


def need_files(stage: EngineStage) -> None:
    """Skip the case where the target's files cannot be seen."""
    if not stage.conditions.files:
        stage.skip("the target's files cannot be seen from here: run the suite on the target's machine")


def delivered(stage: EngineStage, job: Job) -> Delivery:
    """A job's last delivery, once there is one."""
    stage.expect(
        lambda: bool(job.deliveries),
        f"{job}, of type {job.worker_type!r}, is sent to a worker",
        lambda: f"{job.client.name} {job.client.closed}" if job.client.closed else "nothing is sent",
    )
    return job.deliveries[-1]


def field(delivery: Delivery, name: str) -> Any:
    """A field of the input, as the worker got it; beside ``id`` for workers of the public engine."""
    inside = delivery.input
    return inside.get(name) if isinstance(inside, dict) else delivery.entry.get(name)


def file_of(stage: EngineStage, delivery: Delivery, name: str = "file") -> Path:
    """The file that a worker is told of: it must be there."""
    return existing(stage, field(delivery, name), f"field {name!r} of {delivery.job}'s input")


def existing(stage: EngineStage, value: Any, where: str) -> Path:
    """The file of that path: it must be there."""
    expected = f"{where} is the absolute path of a file that the worker can read"
    stage.demand(isinstance(value, str), expected, diagnostic(value))
    stage.demand(os.path.isabs(value), expected, f"{value!r}, which is not absolute")
    stage.demand(os.path.isfile(value), expected, f"{value!r}, where no file is")
    return Path(value)


def expect_content(stage: EngineStage, path: Path, data: bytes, whose: str) -> None:
    """Demand that a file has these bytes."""
    expected = f"the file of {whose} has the {len(data)} bytes that the client sent"
    try:
        found = path.read_bytes()
    except OSError as error:
        stage.fail(expected, f"{str(path)!r} cannot be read: {error.strerror}")
    if found != data:
        same = next((at for at, (a, b) in enumerate(zip(found, data, strict=False)) if a != b), -1)
        same = same if same >= 0 else min(len(found), len(data))
        at = f"they differ from byte {same} on: {diagnostic(found[same:], longest=80)}"
        stage.fail(expected, f"{len(found)} bytes, {at}, sent: {diagnostic(data[same:], longest=80)}")


def expect_refused(stage: EngineStage, client: SuiteClient, why: str) -> str:
    """Demand that a request has its client's connection closed; which of the readings `REFUSED` it was."""
    expected = f"the connection of {client.name} is closed with 1009, for {why}"
    closed = stage.expect_closed(client, expected)
    if closed.code is None:
        return "no close frame"
    stage.demand(closed.code == 1009, expected, str(closed))
    return "1009"


def submit_file(client: SuiteClient, data: bytes, **options: Any) -> Job:
    """Submit a job with a file, in a request of its own."""
    job = client.job({"file": reference("file")}, **options)
    client.request([job], [image("file", data)])
    return job


@case(
    "ORB-RES-01",
    "A worker gets the path of a file it can read in place of a reference",
    sentences=(
        *("S4.8", "S4.9", "S4.16", "S4.17", "S4.28", "S4.29", "S6.6", "S8.12", "S4.10", "S5.3", "S5.22"),
        *("S5.32", "S5.41", "S5.61", "S6.1", "P-40"),
    ),
    plans=st.fixed_dictionaries(
        {
            "id": st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
            "field": st.sampled_from(["filepath", "current_frame", "file"]),
            "document": st.booleans(),
            "beside": st.dictionaries(
                st.sampled_from("abc"), st.integers(-9, 2**53) | st.text(max_size=5), max_size=3
            ),
        }
    ),
    examples=[{"id": "img-001", "field": "filepath", "document": False, "beside": {}}],
)
def worker_gets_a_path(stage: EngineStage, plan: Plan) -> None:
    """A client sends a resource, and a job whose input refers to it. The batch must have, where the
    reference stood, the absolute path of a file that is there already, and the input's other fields as they
    were. Workers open what they are told, so everything with pictures hangs on this; an engine that fails
    here fails most other cases of this area, too.
    """
    need_files(stage)
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    job = client.job({plan["field"]: reference(plan["id"]), **plan["beside"]})
    resource = document(plan["id"], "a text") if plan["document"] else image(plan["id"], content(job))
    client.request([job], [resource])
    delivery = delivered(stage, job)
    file_of(stage, delivery, plan["field"])
    for name, value in plan["beside"].items():
        stage.demand(
            field(delivery, name) == value,
            f"field {name!r} of {job}'s input arrives as it was sent, {diagnostic(value)}",
            diagnostic(field(delivery, name)),
        )
    worker.answer(delivery)


@case(
    "ORB-RES-02",
    "A resource's file has exactly the bytes that the client sent",
    sentences=("S4.3", "S4.4", "S4.13", "S4.30", "S6.6"),
    plans=st.fixed_dictionaries(
        {
            "pattern": st.binary(min_size=1, max_size=12).map(bytes.hex),
            "size": st.one_of(st.integers(1, 300), st.integers(1, 300_000)),
        }
    ),
    examples=[
        {"pattern": b"\x89PNG\r\n\x1a\n\x00\xff".hex(), "size": 10},
        {"pattern": bytes(range(251)).hex(), "size": 300_000},
    ],
)
def file_has_the_bytes(stage: EngineStage, plan: Plan) -> None:
    """A client sends bytes of all kinds, among them line ends, zeros and what is no UTF-8, up to 300 KB. The
    file that the worker is told of must have exactly these when the batch arrives, neither more nor fewer
    nor others. A picture with one byte changed is another picture, or none.
    """
    need_files(stage)
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    pattern = bytes.fromhex(plan["pattern"])
    data = (pattern * (plan["size"] // len(pattern) + 1))[: plan["size"]]
    job = submit_file(stage.client(), data)
    delivery = delivered(stage, job)
    expect_content(stage, file_of(stage, delivery), data, str(job))
    worker.answer(delivery)


def _too_big(plan: Plan) -> dict[str, Any]:
    size = 2 * MIB + plan["excess"]
    if plan["kind"] == "image":
        return image("big", bytes(size))
    if plan["kind"] == "document":
        return document("big", "x" * size)
    return document("big", "€" * (size // 3 + 1))


@case(
    "ORB-RES-03",
    "A resource of more than 2 MiB has the connection closed with 1009",
    sentences=("S4.20", "S4.23", "S6.3", "S7.9", "P-41"),
    plans=st.fixed_dictionaries(
        {
            "excess": st.one_of(st.just(1), st.integers(1, 500_000)),
            "kind": st.sampled_from(["image", "document", "wide document"]),
            "others": st.integers(0, 2),
        }
    ),
    readings={
        **REFUSED,
        "characters": "a document is measured in characters: more than 2 MiB of UTF-8 were accepted",
    },
    examples=[{"excess": 1, "kind": "image", "others": 0}],
    seconds=1.5,
)
def too_big_closes(stage: EngineStage, plan: Plan) -> str:
    """A client sends a resource of at least 2,097,153 bytes, alone or behind small ones. "2MB" is 2,000,000
    or 2,097,152 bytes, this is too much by either count: the connection must be closed with 1009, and the
    job may not be done. A document's size is counted in UTF-8 or, as another reading, in characters.
    Without the limit one client fills the engine's disk and memory.
    """
    stage.worker(size=10, latency_ms=LATENCY_MS)
    client = stage.client()
    names = [f"small{number}" for number in range(plan["others"])]
    jobs = [client.job({"file": reference(name)}) for name in [*names, "big"]]
    small = [image(name, content(job)) for name, job in zip(names, jobs, strict=False)]
    client.request(jobs, [*small, _too_big(plan)])
    if plan["kind"] == "wide document":
        stage.wait(lambda: client.closed is not None or bool(jobs[-1].deliveries))
        if jobs[-1].deliveries:
            return "characters"
    reading = expect_refused(stage, client, f"a resource of {2 * MIB + plan['excess']} bytes")
    stage.never(
        lambda: bool(jobs[-1].deliveries),
        f"{jobs[-1]}, whose resource is too big, is not done",
        "it is sent to a worker",
    )
    return reading


@case(
    "ORB-RES-04",
    "A resource of 2,000,000 bytes is accepted",
    sentences=("S4.20", "S6.3", "P-41"),
    plans=st.fixed_dictionaries(
        {
            "size": st.sampled_from([MIB, MIB + 1, 1_999_999, 2_000_000]) | st.integers(MIB, 2_000_000),
            "open": st.just(2 * MIB) | st.integers(2_000_001, 2 * MIB),
        }
    ),
    readings={
        "2 MiB": "up to 2,097,152 bytes are accepted",
        "2 MB": "2,000,000 bytes are accepted, and some number up to 2,097,152 is not",
    },
    examples=[{"size": 2_000_000, "open": 2 * MIB}],
    seconds=1.5,
)
def two_million_bytes_pass(stage: EngineStage, plan: Plan) -> str:
    """A client sends a resource of up to 2,000,000 bytes, which is "2MB" by any count: its job must be done.
    WebSocket libraries refuse messages of more than 1 MiB unless told otherwise, so an engine that was tried
    with small pictures only may well fail here. What lies between 2,000,000 and 2,097,152 bytes the text
    leaves open; which it is, is told.
    """
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    data = bytes(2 * MIB)
    job = submit_file(client, data[: plan["size"]])
    delivery = delivered(stage, job)
    if stage.conditions.files:
        expect_content(stage, file_of(stage, delivery), data[: plan["size"]], str(job))
    worker.answer(delivery)
    other = submit_file(client, data[: plan["open"]])
    if not stage.wait(lambda: bool(other.deliveries) or client.closed is not None):
        stage.fail(f"a resource of {plan['open']} bytes is accepted, or refused by a close", "neither")
    if client.closed is not None:
        return "2 MB"
    worker.answer(other.deliveries[-1])
    return "2 MiB"


def _files_below(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(parent, name)


def store_of(stage: EngineStage, *clients: SuiteClient) -> str:
    """The directory that the files of these clients have in common. Their jobs stay open."""
    jobs = []
    for client in clients:
        job = client.job({"file": reference("known")})
        client.request([job], [image("known", content(job, 100))])
        jobs.append(job)
    return os.path.commonpath([file_of(stage, delivered(stage, job)).parent for job in jobs])


@case(
    "ORB-RES-05",
    "A reference to a resource that is not in the request has the connection closed with 1009",
    sentences=("S4.21", "S4.22", "S6.2", "S6.4", "S9.4", "S4.23", "P-41"),
    plans=st.fixed_dictionaries(
        {
            "array": st.booleans(),
            "present": st.integers(0, 2),
            "deep": st.booleans(),
        }
    ),
    readings=REFUSED,
    examples=[{"array": False, "present": 0, "deep": False}, {"array": True, "present": 1, "deep": False}],
)
def missing_resource_closes(stage: EngineStage, plan: Plan) -> str:
    """A job refers to a resource that its request does not have; the request has other resources, an empty
    list of them, or none at all. The connection must be closed with 1009, the job may not be done, and where
    files can be seen none of the refused request's may stay. A worker that is sent a reference, or the path
    of a file that is not there, fails its whole batch.
    """
    stage.worker(size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    store = store_of(stage, client, stage.client()) if stage.conditions.files else None
    missing = {"file": reference("missing")}
    bad = client.job({"all": [missing]} if plan["deep"] else missing)
    good = [client.job({"file": reference(f"present{number}")}) for number in range(plan["present"])]
    resources = [image(f"present{number}", content(job, 100)) for number, job in enumerate(good)]
    client.request([*good, bad], resources if resources or plan["array"] else None)
    reading = expect_refused(stage, client, "a reference to a resource that the request does not have")
    stage.never(
        lambda: bool(bad.deliveries),
        f"{bad}, whose resource is missing, is not done",
        "it is sent to a worker",
    )
    if store is not None and not any(job.deliveries for job in good):
        data = {content(job, 100) for job in good}
        left: list[str] = []
        for _ in range(100):
            left = [path for path in _files_below(store) if _read(path) in data]
            if not left:
                break
            stage.sleep(0.02)
        stage.demand(not left, "no file of a refused request stays in the store", f"{left[:1]} is there")
    return reading


def _read(path: str) -> bytes:
    try:
        # Others' files may be large, and go meanwhile.
        with open(path, "rb") as file:
            return file.read(1000)
    except OSError:
        return b""


@case(
    "ORB-RES-06",
    "A resource that no job refers to has the connection closed with 1009",
    sentences=("S6.5", "S4.23", "P-41"),
    plans=st.fixed_dictionaries(
        {"used": st.integers(0, 2), "unused": st.integers(1, 2), "jobs": st.integers(0, 2)}
    ),
    readings=REFUSED,
    examples=[{"used": 0, "unused": 1, "jobs": 1}, {"used": 1, "unused": 1, "jobs": 0}],
)
def unused_resource_closes(stage: EngineStage, plan: Plan) -> str:
    """A request has a resource that none of its jobs refers to, beside others or alone, even without any job.
    The engine is to validate that all resources are referenced, so the connection must be closed with 1009. A
    file that no job needs is deleted with no job: it would stay for ever.
    """
    stage.worker(size=10, latency_ms=LATENCY_MS)
    client = stage.client()
    used = [f"used{number}" for number in range(plan["used"])]
    jobs = [client.job({"file": reference(name)}) for name in used]
    jobs += [client.job() for _ in range(plan["jobs"])]
    names = [*used, *(f"unused{number}" for number in range(plan["unused"]))]
    client.request(jobs, [image(name, f"{number}".encode()) for number, name in enumerate(names)])
    return expect_refused(stage, client, "a resource that no job refers to")
