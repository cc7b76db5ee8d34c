"""What a client sends, and that it answers pings (ORB-CLI-01 to ORB-CLI-06)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import cbor2
from hypothesis import strategies as st

from orbtrio.conformance.model import Role, Skipped, Violation, case
from orbtrio.conformance.notation import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orbtrio.conformance.client_players import Request, SubmittedJob, SuiteEngine
    from orbtrio.conformance.client_stage import ClientStage
    from orbtrio.conformance.model import Plan

__all__: list[str] = []

# "2MB": read as a decimal number and as a binary one.
_SMALL: Final = 2_000_000
_LARGEST: Final = 2 * 1024 * 1024

_REGISTRATION_SECONDS: Final = 10.0

_ORDERS: Final = st.lists(st.integers(0, 7), min_size=1, max_size=8)


@case(
    "ORB-CLI-01",
    "The first thing that a client says is who it is, or a request for work",
    role=Role.CLIENT,
    sentences=("S4.10", "S6.1", "S4.13", "S4.15", "P-01"),
    plans=st.fixed_dictionaries({"jobs": st.integers(1, 12)}),
    readings={
        "introduces": "it sends an i_am_server first",
        "asks": "it sends a worker_request first, as the spec's example does",
    },
)
def first_message_is_an_introduction_or_a_request(stage: ClientStage, plan: Plan) -> str:
    """The client's WebSocket is accepted, and its first messages are read. The first must be i_am_server,
    which is how the public engine's clients introduce themselves, or a worker_request, within ten seconds:
    engines close a connection that does not say what it is. It introduces itself once, sends nothing but
    requests afterwards, and each request has a list of jobs that name their worker type and have an
    input."""
    engine = stage.connection()
    stage.expect(
        lambda: bool(engine.messages) or engine.closed is not None,
        f"{engine.name} hears within {_REGISTRATION_SECONDS:.0f} s who the client is, or what it wants",
        within=_REGISTRATION_SECONDS,
    )
    stage.demand(bool(engine.messages), "the client says who it is, or what it wants", f"{engine.closed}")
    first = engine.messages[0].value
    kind = first.get("type") if isinstance(first, dict) else None
    stage.demand(
        kind in ("i_am_server", "worker_request"),
        "the first message is an i_am_server or a worker_request",
        f"a message of type {kind!r}" if isinstance(first, dict) else "a message that is no map",
    )
    if kind == "i_am_server":
        token = first.get("token")
        wanted = stage.conditions.token
        stage.demand(
            wanted is None or token == wanted,
            "the introduction shows the token that CLIENT_TOKEN holds",
            "no token" if token is None else "another token",
        )
    stage.wait(lambda: bool(engine.requests) or engine.closed is not None)
    for request in engine.requests:
        for complaint in _complaints(request):
            stage.fail("each worker_request is what the spec says it is", complaint)
    engine = stage.collect(plan["jobs"])
    stage.demand(
        len(engine.introductions) <= 1,
        "a client introduces itself once on a connection",
        f"{len(engine.introductions)} messages of type i_am_server",
    )
    stage.demand(
        not engine.stray,
        "a client sends requests, and nothing that is a worker's or nobody's",
        f"{len(engine.stray)} messages of other types",
    )
    for request in engine.requests:
        for complaint in _complaints(request):
            stage.fail("each worker_request is what the spec says it is", complaint)
    return "introduces" if kind == "i_am_server" else "asks"


def _complaints(request: Request) -> Iterator[str]:
    jobs = request.value.get("jobs")
    if not isinstance(jobs, list):
        yield f"`jobs` is of type {type(jobs).__name__}, not a list"
        return
    for number, job in enumerate(request.jobs):
        if not isinstance(job.wire, dict):
            yield f"jobs[{number}] is of type {type(job.wire).__name__}, not a map"
        elif not isinstance(job.worker_type, str) or not job.worker_type:
            yield f"jobs[{number}].worker_type is {job.worker_type!r}, not the name of a type"
        elif not isinstance(job.fields.get("input"), dict):
            yield f"jobs[{number}].input is of type {type(job.fields.get('input')).__name__}, not a map"
    if not isinstance(request.resources, list):
        yield f"`resources` is of type {type(request.resources).__name__}, not a list"


@case(
    "ORB-CLI-02",
    "No two open jobs of a client have the same job_id",
    role=Role.CLIENT,
    sentences=("S4.14", "S2.4", "P-30"),
    plans=st.fixed_dictionaries({"jobs": st.integers(2, 30), "answered": _ORDERS}),
    # The second leaves the oldest job open, until the client's numbers come round.
    examples=({"jobs": 12, "answered": [0]}, {"jobs": 40, "answered": [1, 1]}),
)
def open_jobs_have_different_ids(stage: ClientStage, plan: Plan) -> None:
    """The client's jobs are answered in a drawn order, so that some stay open for long. Each must have a
    job_id that none of its open jobs has: an engine echoes it and nothing else, so the client itself could
    not tell whose the answer is, and an engine may drop the second job as invalid."""
    open_ids: dict[bytes, SubmittedJob] = {}
    checked = 0

    def check(engine: SuiteEngine) -> None:
        nonlocal checked
        for job in engine.jobs[checked:]:
            stage.demand(
                job.job_id is not None,
                "each job has a job_id",
                f"a job without: {sorted(map(str, job.fields))}",
            )
            stage.demand(
                job.key not in open_ids,
                f"a job_id of its own for each job, while {job.job_id!r} is open",
                f"{job.job_id!r} again, {job.at - open_ids.get(job.key, job).at:.3f} s later",
            )
            open_ids[job.key] = job
        checked = len(engine.jobs)

    def answer_some(engine: SuiteEngine) -> None:
        check(engine)
        for place in plan["answered"]:
            if engine.open_jobs:
                job = engine.open_jobs[place % len(engine.open_jobs)]
                engine.answer(job)
                open_ids.pop(job.key, None)

    check(stage.collect(plan["jobs"], answers=answer_some))


def _references(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("__type") == "resource-ref":
                yield item.get("id")
            else:
                stack += item.values()
        elif isinstance(item, list):
            stack += item


def _with_resources(stage: ClientStage, jobs: int) -> list[Request]:
    """What the client asked for, if any of it has to do with resources."""
    engine = stage.collect(jobs)
    requests = [request for request in engine.requests if isinstance(request.resources, list)]
    used = [
        request
        for request in requests
        if request.resources
        or any(True for job in request.jobs for _ in _references(job.fields.get("input")))
    ]
    if not used:
        stage.skip(f"none of {len(engine.jobs)} jobs uses a resource: launch a program whose jobs do")
    return used


_RESOURCE_PLANS: Final = st.fixed_dictionaries({"jobs": st.integers(4, 24)})


@case(
    "ORB-CLI-03",
    "Each reference has its resource in the same request, and each resource a reference",
    role=Role.CLIENT,
    sentences=("S4.11", "S4.12", "S10.8", "S10.9", "S4.2", "S4.21", "S6.4", "S6.5", "S4.8", "S4.9", "S4.22"),
    plans=_RESOURCE_PLANS,
    examples=({"jobs": 16},),
)
def references_and_resources_match(stage: ClientStage, plan: Plan) -> None:
    """Each request is read: the ids that its jobs refer to, at any depth of their inputs, and the ids of its
    resources must be the same. An engine closes a connection with 1009 over a reference without a resource,
    or a resource that no job refers to, and all open jobs go with it. What an earlier request brought along
    does not count: engines keep a resource no longer than its jobs."""
    for request in _with_resources(stage, plan["jobs"]):
        brought = {encode(_id_of(resource)): _id_of(resource) for resource in request.resources}
        named = {encode(name): name for job in request.jobs for name in _references(job.fields.get("input"))}
        for key, name in named.items():
            stage.demand(
                key in brought,
                f"resource {name!r}, which a job refers to, is in the same request",
                f"a request with the resources {list(brought.values())}",
            )
        for key, name in brought.items():
            stage.demand(
                key in named,
                f"resource {name!r} is referred to by a job of its request",
                f"jobs that refer to {list(named.values())}",
            )


def _id_of(resource: Any) -> Any:
    return resource.get("id") if isinstance(resource, dict) else None


@case(
    "ORB-CLI-04",
    "Resources are images or documents of 2 MB at most, with ids of their own",
    role=Role.CLIENT,
    sentences=("S4.7", "S4.20", "S4.3", "S4.4", "S6.3", "S10.10"),
    plans=_RESOURCE_PLANS,
    examples=({"jobs": 16},),
    readings={
        "2,000,000": "no resource is larger than 2,000,000 bytes",
        "2 MiB": "some resources are larger than 2,000,000 bytes, none larger than 2,097,152",
    },
)
def resources_are_what_engines_take(stage: ClientStage, plan: Plan) -> str:
    """Each resource is read: its id is a text, and no other resource of the request has it; an image's data
    is a byte string, a document's a text; and there are at most 2 MB of them. An engine closes the
    connection over anything else, so a client should refuse it while its user can still do something about
    it."""
    largest = 0
    for request in _with_resources(stage, plan["jobs"]):
        ids = set()
        for resource in request.resources:
            name = _id_of(resource)
            stage.demand(
                isinstance(name, str) and name != "", "each resource has an id, a text", f"the id {name!r}"
            )
            stage.demand(name not in ids, "no two resources of a request have one id", f"{name!r} twice")
            ids.add(name)
            kind, data = resource.get("type"), resource.get("data")
            stage.demand(
                kind in ("image", "document"), f"{name!r} is an image or a document", f"the type {kind!r}"
            )
            # JavaScript's Uint8Array has a tag around its bytes.
            data = data.value if isinstance(data, cbor2.CBORTag) and data.tag == 64 else data
            wanted = bytes if kind == "image" else str
            stage.demand(
                isinstance(data, wanted),
                f"the data of {name!r}, of type {kind}, is a {'byte string' if kind == 'image' else 'text'}",
                f"data of type {type(data).__name__}",
            )
            size = len(data.encode(errors="replace") if isinstance(data, str) else data)
            stage.demand(size <= _LARGEST, f"{name!r} has at most {_LARGEST:,} bytes", f"{size:,} bytes")
            largest = max(largest, size)
    return "2,000,000" if largest <= _SMALL else "2 MiB"


@case(
    "ORB-CLI-05",
    "Messages are maps in CBOR, one in each binary message, in masked frames",
    role=Role.CLIENT,
    sentences=("S0.3", "S0.1", "S0.2", "P-50"),
    plans=st.fixed_dictionaries({"jobs": st.integers(1, 20)}),
    examples=({"jobs": 16},),
    readings={
        "plain": "definite lengths and text keys, none twice",
        "loose": "some messages have indefinite lengths, keys twice, or keys that are no texts",
    },
)
def messages_are_cbor_in_binary_frames(stage: ClientStage, plan: Plan) -> str:
    """Everything that the client sends while it works is read as strictly as an engine may read it: frames
    of a client must be masked (RFC 6455), messages are binary, and each is one CBOR map with nothing behind
    it. An engine closes with 1002, 1003 or 1008 over anything else."""
    # What was wrong is told below, in better words.
    with contextlib.suppress(Violation, Skipped):
        stage.collect(plan["jobs"])
    plain = True
    for engine in stage.engines:
        broken = engine.closed is not None and engine.closed.how == "broken"
        stage.demand(
            not broken, "the client speaks WebSocket, in masked frames", f"{engine.name} {engine.closed}"
        )
        stage.demand(not engine.texts, "no text messages", f"a text message: {engine.texts[:1]}")
        stage.demand(
            not engine.undecodable, "each message is one CBOR item", "; ".join(engine.undecodable[:1])
        )
        for message in engine.messages:
            kind = type(message.value).__name__
            stage.demand(isinstance(message.value, dict), "each message is a map", f"a {kind}")
            plain = plain and _is_plain(message.raw)
    if not any(engine.messages for engine in stage.engines):
        stage.collect(plan["jobs"])
    return "plain" if plain else "loose"


def _is_plain(raw: bytes) -> bool:
    try:
        value = cbor2.loads(raw, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORError, ValueError, TypeError):
        return False
    return all(isinstance(key, str) for key in value)


@case(
    "ORB-CLI-06",
    "A client answers pings while it waits for its jobs",
    role=Role.CLIENT,
    sentences=("S0.2",),
    plans=st.fixed_dictionaries(
        {
            "payloads": st.lists(st.integers(0, 125), min_size=1, max_size=5),
            "gap_ms": st.integers(0, 30),
        }
    ),
    examples=({"payloads": [0, 4], "gap_ms": 5},),
)
def pings_are_answered_while_it_waits(stage: ClientStage, plan: Plan) -> None:
    """Jobs are left unanswered, and the client is sent pings. Each must be answered by a pong with the same
    payload. By that an engine knows that its client still lives: one that is silent is given up, and its
    jobs with it, after 40 s or so."""
    engine = stage.client()
    before = len(engine.pongs)
    payloads = [bytes([65 + number]) * size for number, size in enumerate(plan["payloads"])]
    for payload in payloads:
        engine.ping(payload)
        stage.sleep(plan["gap_ms"] / 1000)
    # A pong may answer several pings at once: the last one's counts (RFC 6455, section 5.5.3).
    stage.expect(
        lambda: payloads[-1] in engine.pongs[before:],
        f"a pong with the last ping's {len(payloads[-1])} bytes, while {len(engine.open_jobs)} jobs wait",
        lambda: (
            f"{len(engine.pongs) - before} pongs, with {[len(pong) for pong in engine.pongs[before:]]} bytes"
            f"{'' if engine.closed is None else f', and the connection {engine.closed}'}{stage.obituary()}"
        ),
    )
    for pong in engine.pongs[before:]:
        stage.demand(pong in payloads, "pongs with payloads of pings", f"a pong with {pong[:20]!r}")
