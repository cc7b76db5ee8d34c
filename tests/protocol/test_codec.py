"""Bytes to messages and back: the spec's examples, anything whatever, and what must not arrive changed."""

from __future__ import annotations

import datetime
import decimal
import gc
import time
from array import array
from random import Random
from typing import TYPE_CHECKING, Any, Final

import attrs
import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbtrio.errors import DecodeError, InvalidMessage, ResourceRejected
from orbtrio.protocol import codec, decoding, scan
from orbtrio.protocol.messages import (
    EXTENSION_MESSAGES,
    EXTENSIONS,
    MISSING,
    BatchJob,
    CancelJobs,
    CancelRequest,
    InvalidJob,
    JobBatch,
    JobRequest,
    ProgressReport,
    RegisterClient,
    RegisterWorker,
    Resource,
    UnknownMessage,
    WorkerDrain,
    WorkerOutput,
    WorkerProgress,
    WorkerRequest,
    WorkerResponse,
    WorkerResponses,
)
from tests.strategies import (
    BROKEN,
    Grammar,
    batch_wire,
    broken,
    cbor_values,
    hostile_items,
    register_client_wire,
    register_worker_wire,
    worker_output_wire,
    worker_request_wire,
    worker_response_wire,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.protocol.messages import Message


def same(first: Any, second: Any) -> bool:
    """Equality of messages, for those on the hot path have none of their own."""
    return type(first) is type(second) and fields(first) == fields(second)


def fields(message: Any) -> dict[str, Any]:
    """What a message says, in whatever bytes it came."""
    return attrs.asdict(message, filter=lambda field, _: field.name != "encoded")


# --- The spec's examples ----------------------------------------------------------------------------------

A_REFERENCE: Final = {"__type": "resource-ref", "id": "img-001"}
A_REFERENCE_BYTES: Final = b"\xa2\x66__type\x6cresource-ref\x62id\x67img-001"

# By section of the spec: the message, and its bytes, spelled out.
EXAMPLES: Final[dict[str, tuple[Message, bytes]]] = {
    "1. Worker Registration": (
        RegisterWorker(
            worker_type="embedding", worker_secret="my-secret-key", max_batch_size=32, max_latency=5.0
        ),
        b"\xa3\x64type\x6bi_am_worker\x6dworker_secret\x6dmy-secret-key\x6dworker_config\xa3"
        b"\x6bworker_type\x69embedding\x6emax_batch_size\x18\x20\x6emax_latency_ms\x19\x13\x88",
    ),
    "2. Job Batch Distribution": (
        JobBatch(
            [
                BatchJob("job-uuid-1", {"text": "hello world", "prompt_name": "query"}),
                BatchJob("job-uuid-2", {"text": "goodbye world", "prompt_name": "passage"}),
            ]
        ),
        b"\xa1\x66inputs\x82"
        b"\xa2\x62id\x6ajob-uuid-1\x65input\xa2\x64text\x6bhello world\x6bprompt_name\x65query"
        b"\xa2\x62id\x6ajob-uuid-2\x65input\xa2\x64text\x6dgoodbye world\x6bprompt_name\x67passage",
    ),
    "3. Worker Output": (
        WorkerOutput(
            [
                (
                    "job-1",
                    b"\xa3\x62id\x65job-1\x69embedding\x82\xfb\x3f\xb9\x99\x99\x99\x99\x99\x9a"
                    b"\xfb\x3f\xc9\x99\x99\x99\x99\x99\x9a\x65shape\x81\x19\x03\x00",
                ),
                ("job-2", b"\xa2\x62id\x65job-2\x65error\x6fImage too large"),
            ]
        ),
        b"\xa2\x64type\x6dworker_output\x66output\x82"
        b"\xa3\x62id\x65job-1\x69embedding\x82\xfb\x3f\xb9\x99\x99\x99\x99\x99\x9a"
        b"\xfb\x3f\xc9\x99\x99\x99\x99\x99\x9a\x65shape\x81\x19\x03\x00"
        b"\xa2\x62id\x65job-2\x65error\x6fImage too large",
    ),
    "Resource Lifecycle": (
        WorkerRequest(
            [JobRequest("job-1", "embedding", {"filepath": A_REFERENCE}, None, ("img-001",))],
            [],
            (Resource("img-001", "image", b"\x89PNG"),),
        ),
        b"\xa3\x64type\x6eworker_request"
        b"\x69resources\x81\xa3\x62id\x67img-001\x64type\x65image\x64data\x44\x89PNG"
        b"\x64jobs\x81\xa3\x66job_id\x65job-1\x6bworker_type\x69embedding\x65input"
        b"\xa1\x68filepath" + A_REFERENCE_BYTES,
    ),
    "Full Request/Response Cycle": (
        WorkerResponse("job-1", {"id": "job-uuid-1", "response": "a cat"}),
        b"\xa3\x64type\x6fworker_response\x66job_id\x65job-1\x66output"
        b"\xa2\x62id\x6ajob-uuid-1\x68response\x65a cat",
    ),
    "i_am_server": (
        RegisterClient(version="1.0.1", token="t", extensions=frozenset({"engine_errors"})),
        b"\xa4\x64type\x6bi_am_server\x67version\x651.0.1\x65token\x61t\x6aextensions\x81\x6dengine_errors",
    ),
}


@pytest.mark.parametrize("section", EXAMPLES)
def test_reads_the_examples_of_the_spec(section: str) -> None:
    message, raw = EXAMPLES[section]
    assert same(codec.decode(raw), message)
    assert same(codec.decode(raw, unwrap_typed_arrays=True), message)
    assert same(codec.decode(b"\xd9\xd9\xf7" + raw), message)


@pytest.mark.parametrize("section", EXAMPLES)
def test_writes_the_examples_of_the_spec(section: str) -> None:
    message, raw = EXAMPLES[section]
    assert codec.encode(message) == raw


def test_says_that_it_is_cbor_once_at_most() -> None:
    """P-50."""
    assert codec.decode(b"\xd9\xd9\xf7\xa1\x64type\x61a") == UnknownMessage("a")
    with pytest.raises(DecodeError, match="expected a map"):
        codec.decode(b"\xd9\xd9\xf7" * 2 + b"\xa1\x64type\x61a")


def test_writes_the_extensions_that_a_worker_asks_for() -> None:
    message = RegisterWorker(
        worker_type="llm",
        worker_secret="s",
        max_latency=0.0001,
        eager=True,
        max_unanswered_batches=2,
        max_message_bytes=1 << 24,
        extensions=frozenset({"progress", "cancel"}),
    )
    config = cbor2.loads(codec.encode(message))["worker_config"]
    assert config["extensions"] == ["cancel", "progress"]
    # Shorter than a millisecond cannot be said.
    assert same(codec.decode(codec.encode(message)), attrs.evolve(message, max_latency=0.001))


def test_a_document_travels_as_text() -> None:
    reference = {"x": {"__type": "resource-ref", "id": "d"}}
    message = WorkerRequest(
        [JobRequest(1, "llm", reference, {"n": 1}, ("d",))], [], (Resource("d", "document", "é".encode()),)
    )
    raw = codec.encode(message)
    assert cbor2.loads(raw)["resources"] == [{"id": "d", "type": "document", "data": "é"}]
    assert same(codec.decode(raw), message)


# --- Extensions -------------------------------------------------------------------------------------------

ENTRY: Final = b"\xa2\x62id\x61a\x64text\x61x"
EXTENDED: Final[dict[str, Message]] = {
    "worker_progress": WorkerProgress([("a", ENTRY)]),
    "worker_progress of a job": ProgressReport("job-1", {"text": "x"}),
    "cancel_request": CancelRequest(["job-1", 5, None, [1]]),
    "cancel_jobs": CancelJobs(["a", "b"]),
    "worker_drain": WorkerDrain(),
    "worker_responses": WorkerResponses([WorkerResponse("job-1", {"x": 1}), WorkerResponse(2, {})]),
}


@pytest.mark.parametrize("name", EXTENDED)
@pytest.mark.parametrize("unwrap", [False, True])
def test_messages_of_extensions_survive_the_wire(name: str, unwrap: bool) -> None:
    raw = codec.encode(EXTENDED[name])
    assert same(codec.decode(raw, unwrap_typed_arrays=unwrap), EXTENDED[name])


@pytest.mark.parametrize("name", EXTENDED)
def test_nobody_has_heard_of_what_was_not_agreed_on(name: str) -> None:
    """P-53, P-60: whatever it looks like."""
    kind = name.split()[0]
    unknown = UnknownMessage(kind)
    extension, _ = EXTENSION_MESSAGES[kind]
    assert codec.decode(codec.encode(EXTENDED[name]), extensions=EXTENSIONS - {extension}) == unknown
    assert codec.decode(cbor2.dumps({"type": kind}), extensions=frozenset()) == unknown


def test_progress_whose_type_comes_late_is_progress() -> None:
    wire = {"x" * 64: 1, "progress": [{"id": "a", "text": "x"}, 5], "type": "worker_progress"}
    assert same(codec.decode(cbor2.dumps(wire)), WorkerProgress([("a", ENTRY)], 1))


@pytest.mark.parametrize("late", [False, True])
def test_an_output_has_a_list(late: bool) -> None:
    wire = {"x" * 64 if late else "x": 1, "type": "worker_output", "output": {}}
    with pytest.raises(InvalidMessage, match="output: expected a list"):
        codec.decode(cbor2.dumps(wire))


def test_a_batch_brings_its_files_to_those_who_asked() -> None:
    """P-44."""
    message = JobBatch([BatchJob("a", {"filepath": "/f"})], 0, [("/f", b"\x89PNG"), ("/g", b"")])
    raw = codec.encode(message)
    assert same(codec.decode(raw), message)
    stock = codec.decode(raw, extensions=frozenset())
    assert same(stock, JobBatch([BatchJob("a", {"filepath": "/f"})]))


# --- Valid and broken messages ----------------------------------------------------------------------------


@given(register_worker_wire() | register_client_wire() | batch_wire() | worker_response_wire())
@settings(max_examples=50)
def test_messages_survive_the_wire(wire: dict[str, Any]) -> None:
    message = codec.decode(cbor2.dumps(wire), unwrap_typed_arrays=True)
    assert same(codec.decode(codec.encode(message), unwrap_typed_arrays=True), message)


@given(worker_request_wire())
@settings(max_examples=50)
def test_requests_survive_the_wire(wire: dict[str, Any]) -> None:
    message = codec.decode(cbor2.dumps(wire))
    assert isinstance(message, WorkerRequest)
    assert len(message.jobs) == len(wire["jobs"])
    assert same(codec.decode(codec.encode(message)), message)


@given(worker_output_wire())
@settings(max_examples=50)
def test_outputs_survive_the_wire(wire: dict[str, Any]) -> None:
    message = codec.decode(cbor2.dumps(wire))
    expected = [(entry["id"], cbor2.dumps(entry)) for entry in wire["output"]]
    assert same(message, WorkerOutput(expected))
    assert same(codec.decode(codec.encode(message)), message)


@pytest.mark.parametrize("message", BROKEN)
def test_one_broken_rule_is_enough(message: str) -> None:
    """B-45, B-47, B-48, B-52, B-56 to B-60, B-66: the right code, and a reason that names the field."""

    @given(broken(message))
    @settings(max_examples=50)
    def refuses(case: tuple[str, Any]) -> None:
        rule, wire = case
        with pytest.raises(InvalidMessage) as caught:
            codec.decode(cbor2.dumps(wire))
        assert caught.value.close_code == (1009 if rule.startswith("1009") else 1008), rule
        assert caught.value.path, rule

    refuses()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\xa1\x64type\x65hello", UnknownMessage("hello")),
        (b"\xa1\x64type\x78\x64" + b"x" * 100, UnknownMessage("x" * 64)),
        (b"\xa2\x64type\x60\x66inputs\x80", UnknownMessage("")),
    ],
)
def test_unknown_types_are_no_error(raw: bytes, expected: UnknownMessage) -> None:
    """P-53, B-71."""
    assert codec.decode(raw) == expected


@pytest.mark.parametrize("raw", [b"\xa0", b"\xa1\x64type\x05", b"\xa1\x64type\xf6", b"\xa1\x64type\xc1\x61a"])
def test_what_has_no_type_is_no_message(raw: bytes) -> None:
    with pytest.raises(InvalidMessage, match="type: expected text"):
        codec.decode(raw)


# --- Anything whatever ------------------------------------------------------------------------------------


def survives(raw: bytes, *, unwrap: bool = False) -> None:
    """Decoding ends in a message or in the one kind of error, and what came out can be sent on."""
    try:
        message = codec.decode(raw, unwrap_typed_arrays=unwrap)
    except InvalidMessage:
        return
    if isinstance(message, WorkerOutput):
        for job_id, entry in message.entries:
            assert type(job_id) is str
            assert type(codec.decode_item(entry)) is dict
    elif isinstance(message, WorkerRequest):
        for job in message.jobs:
            codec.decode_item(codec.encode_job("id", job.input, job.extra))
            codec.decode_item(codec.response_head(job.client_job_id) + b"\xa0")


@given(hostile_items(), st.booleans())
def test_any_bytes_are_a_message_or_invalid(raw: bytes, unwrap: bool) -> None:
    survives(raw, unwrap=unwrap)


class Messages(Grammar):
    """Maps that look like messages and hold anything."""

    def message(self) -> bytes:
        names = [
            *("type", "jobs", "resources", "inputs", "output", "job_id", "version", "token", "extensions"),
            *("worker_secret", "worker_config"),
        ]
        chosen = self._random.sample(names, self._random.randrange(6))
        return self.fields(["type", *(name for name in chosen if name != "type")])

    def fields(self, names: list[str]) -> bytes:
        return self.head(5, len(names)) + b"".join(cbor2.dumps(name) + self.value(name) for name in names)

    def value(self, name: str) -> bytes:
        if self._random.random() < 0.15:
            return self.item(2)
        types = [
            "worker_request",
            "worker_output",
            "worker_response",
            "i_am_worker",
            "i_am_server",
            "image",
            "t",
        ]
        match name:
            case "type" | "worker_type":
                return cbor2.dumps(self._random.choice(types))
            case "jobs" | "inputs" | "output" | "resources":
                members = [self.member() for _ in range(self._random.randrange(4))]
                return self.head(4, len(members)) + b"".join(members)
            case "worker_config":
                config = ["worker_type", "max_batch_size", "max_latency_ms", "eager", "extensions"]
                return self.fields(self._random.sample(config, self._random.randrange(1, 6)))
            case "id" | "job_id":
                return self._random.choice([b"\x61a", b"\x61b", b"\x05", b"\xf6", b"\xf7"])
            case "input":
                reference = b"\xa2\x66__type\x6cresource-ref\x62id\x61a"
                return self._random.choice([b"\xa0", b"\xa1\x61x" + reference, self.item(3)])
        return self._random.choice(
            [b"\xf7", b"\xf6", b"\x01", b"\x41a", b"\x61a", b"\xd8\x40\x41a", b"\xf9\x3c\x00"]
        )

    def member(self) -> bytes:
        names = ["id", "job_id", "worker_type", "input", "type", "data", "error", "x"]
        return self.fields(self._random.sample(names, self._random.randrange(9)))


@given(st.randoms(use_true_random=False))
def test_messages_of_anything_are_messages_or_invalid(random: Random) -> None:
    survives(Messages(random).message())


def test_thirty_thousand_messages_of_anything() -> None:
    """B-41: random bytes, damaged messages, tags everywhere; nothing but the one kind of error, and soon."""
    random = Random(20261121)
    messages, hostile = Messages(random), Messages(random, hostile=True)
    examples = [raw for _, raw in EXAMPLES.values()]
    started = time.process_time()
    for _ in range(10_000):
        survives(random.randbytes(random.randrange(60)))
        survives(messages.damage(random.choice(examples)))
        survives(random.choice([messages, hostile]).message(), unwrap=random.random() < 0.5)
    assert time.process_time() - started < 60


def is_refused(check: Callable[[bytes], object], raw: bytes) -> bool:
    try:
        check(raw)
    except DecodeError:
        return True
    return False


def test_what_the_walk_refuses_is_refused_without_it() -> None:
    """B-23 to B-38: small messages are not walked, and must not get away with more."""
    random = Random(20261123)
    hostile, friendly = Grammar(random, hostile=True), Grammar(random)
    for _ in range(3000):
        for raw in (hostile.item(), friendly.damage(friendly.item())):
            assert is_refused(codec.decode_item, raw) == is_refused(scan.check, raw), raw.hex()
    for opened in (b"\x81", b"\xc1", b"\xa1\x61a"):
        assert codec.decode_item(opened * scan.MAX_DEPTH + b"\x00")
        assert is_refused(codec.decode_item, opened * (scan.MAX_DEPTH + 1) + b"\x00")


def test_large_messages_go_through_the_walk_and_come_out_equal() -> None:
    jobs = [
        {"job_id": i, "worker_type": "t", "input": {"text": "é" * 5000, "numbers": [0.5] * 300}}
        for i in range(32)
    ]
    raw = cbor2.dumps({"type": "worker_request", "jobs": jobs})
    message = codec.decode(raw)
    assert isinstance(message, WorkerRequest)
    assert [job.input for job in message.jobs] == [job["input"] for job in jobs]
    with pytest.raises(DecodeError, match="behind"):
        codec.decode(raw + b"\x00")


def test_a_large_message_may_refer_to_resources() -> None:
    wire = {
        "type": "worker_request",
        "jobs": [{"job_id": 1, "worker_type": "t", "input": {"x": A_REFERENCE}}],
    }
    with pytest.raises(ResourceRejected):
        codec.decode(cbor2.dumps({**wire, "padding": "x" * 70_000}))


@pytest.mark.parametrize("size", [100, 70_000])
def test_the_reason_says_what_is_wrong_and_never_repeats_it(size: int) -> None:
    raw = cbor2.dumps({"secret": "x" * size})[:-1] + b"\x80"
    for damaged in (raw, cbor2.dumps({"x" * size: 1})[:-1], b"\xa1\x05" + cbor2.dumps("x" * size)):
        with pytest.raises(DecodeError) as caught:
            codec.decode(damaged)
        assert "xx" not in str(caught.value)


def test_if_walk_and_decoder_ever_disagree_the_stricter_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "check", lambda raw, **_: None)
    for raw in (b"\x82", b"\x9f" + bytes(70_000) + b"\xff"):
        with pytest.raises(DecodeError, match="not decodable"):
            codec.decode_item(raw)


@pytest.mark.parametrize(
    "behind", [b"\x00", b"\xa0", b"\x1b" + bytes(8), b"\xfb" + bytes(8), b"\xff", b"\x1b"]
)
def test_nothing_may_follow_a_message(behind: bytes) -> None:
    """B-24."""
    for raw in (
        b"\xa1\x64type\x61a",
        cbor2.dumps({"type": "a", "x": "x" * 70_000}),
        EXAMPLES["3. Worker Output"][1],
    ):
        with pytest.raises(DecodeError):
            codec.decode(raw + behind)


# --- What is absent ---------------------------------------------------------------------------------------

UNDEFINED: Final = cbor2.undefined


def decoded(wire: dict[str, Any]) -> Any:
    return codec.decode(cbor2.dumps(wire))


def test_undefined_is_absent_where_we_read() -> None:
    """P-50, B-39: what JavaScript sends for a field that it does not have."""
    config = {
        "worker_type": "t",
        "max_batch_size": UNDEFINED,
        "max_latency_ms": UNDEFINED,
        "extensions": UNDEFINED,
    }
    worker = decoded({"type": "i_am_worker", "worker_secret": UNDEFINED, "worker_config": config})
    assert worker == RegisterWorker(worker_type="t", worker_secret="")
    client = {"type": "i_am_server", "token": UNDEFINED, "version": UNDEFINED, "extensions": UNDEFINED}
    assert decoded(client) == RegisterClient()
    job = {"job_id": "a", "worker_type": "t", "input": UNDEFINED, "type": UNDEFINED}
    nameless = {"job_id": UNDEFINED, "worker_type": "t", "input": {"id": UNDEFINED}}
    request = decoded({"type": "worker_request", "resources": UNDEFINED, "jobs": [job, nameless, 5]})
    assert request.jobs[0].input == {}
    # This one we do not read: it passes through.
    assert request.jobs[0].extra == {"type": UNDEFINED}
    assert request.invalid == [InvalidJob(MISSING, "expected a map with a job_id")] * 2
    batch = decoded(
        {"type": UNDEFINED, "inputs": [{"id": UNDEFINED, "job_id": "a", "input": {"id": UNDEFINED}}]}
    )
    assert same(batch, JobBatch([BatchJob("a", {"id": UNDEFINED})]))


def test_a_resource_without_data_is_one_with_undefined_data() -> None:
    with pytest.raises(InvalidMessage, match="data"):
        decoded(
            {
                "type": "worker_request",
                "jobs": [],
                "resources": [{"id": "a", "type": "image", "data": UNDEFINED}],
            }
        )


# --- Tags -------------------------------------------------------------------------------------------------

DATE: Final = cbor2.CBORTag(1, 1700000000.5)
BYTES: Final = cbor2.CBORTag(64, b"\x01\x02")


def test_tags_pass_through_in_inputs_and_results() -> None:
    """P-50, P-51: a JavaScript Date, Set or typed array must arrive."""
    value = {
        "date": DATE,
        "set": cbor2.CBORTag(258, [1]),
        "bytes": BYTES,
        "floats": cbor2.CBORTag(85, b"\x00" * 8),
    }
    job = {"job_id": "a", "worker_type": "t", "input": value, "more": DATE}
    request = decoded({"type": "worker_request", "jobs": [job]})
    assert request.jobs[0].input == value
    raw = b"".join(codec.batch_parts([codec.encode_job("i", request.jobs[0].input, request.jobs[0].extra)]))
    assert cbor2.dumps(value)[1:] in raw
    batch = codec.decode(raw, unwrap_typed_arrays=True)
    # At the other end, byte arrays are bytes; what else there is, the worker may know or not.
    assert same(batch, JobBatch([BatchJob("i", {**value, "bytes": b"\x01\x02"}, {"more": DATE})]))
    output = decoded({"type": "worker_output", "output": [{"id": "i", **value}]})
    assert output.entries == [("i", cbor2.dumps({"id": "i", **value}))]
    assert codec.decode_item(output.entries[0][1]) == {"id": "i", **value, "bytes": b"\x01\x02"}


def test_a_byte_array_is_data_of_an_image() -> None:
    """B-35: nowhere else is a tag read."""
    image = {"id": "a", "type": "image", "data": BYTES}
    job = {"job_id": "a", "worker_type": "t", "input": {"x": {"__type": "resource-ref", "id": "a"}}}
    request = {"type": "worker_request", "jobs": [job], "resources": [image]}
    assert decoded(request).resources == (Resource("a", "image", b"\x01\x02"),)
    for data in (cbor2.CBORTag(64, "text"), cbor2.CBORTag(65, b""), cbor2.CBORTag(64, BYTES)):
        with pytest.raises(InvalidMessage, match="data"):
            decoded({**request, "resources": [{**image, "data": data}]})
    for resource in (cbor2.CBORTag(1, image), {**image, "type": "document"}):
        with pytest.raises(InvalidMessage, match=r"resources\[0\]"):
            decoded({**request, "resources": [resource]})


@pytest.mark.parametrize(
    "tag", [0, 1, 2, 3, 4, 5, 30, 35, 36, 37, 52, 54, 100, 258, 260, 1004, 43000, 2**64 - 1]
)
def test_no_tag_is_ever_interpreted(tag: int) -> None:
    """B-29 to B-32, B-36: what costs seconds to decode costs nothing opaque."""
    for content in (b"\x82\x1a\x3b\x9a\xca\x00\x01", b"\x5a\x00\x10\x00\x00" + bytes(2**20), b"\x63(a+"):
        raw = cbor2.dumps({"type": "worker_request"})[1:]
        head = b"\xdb" + tag.to_bytes(8, "big")
        raw = (
            b"\xa2"
            + raw
            + b"\x64jobs\x81\xa3\x66job_id\x01\x6bworker_type\x61t\x65input\xa1\x61x"
            + head
            + content
        )
        message = codec.decode(raw)
        assert isinstance(message, WorkerRequest)
        assert message.jobs[0].input["x"].tag == tag
        assert codec.encode_job("a", message.jobs[0].input)


@pytest.mark.parametrize("tag", sorted(scan.STRUCTURAL_TAGS))
@pytest.mark.parametrize("size", [1, 70_000])
def test_structural_tags_are_refused(tag: int, size: int) -> None:
    """B-33, B-34."""
    raw = b"\xa2\x64type\x61x\x61y\x82" + cbor2.dumps("x" * size) + cbor2.dumps(cbor2.CBORTag(tag, 0))
    with pytest.raises(DecodeError, match=f"tag {tag} is not allowed"):
        codec.decode(raw)


@pytest.mark.parametrize(
    ("raw", "item"),
    [
        (b"\xd8\x40\x41\x00", b"\x00"),
        (b"\xd8\x40\x61a", cbor2.CBORTag(64, "a")),
        (b"\xd9\xd9\xf7\xa0", cbor2.CBORTag(55799, {})),
        (b"\x82\xf7\xe0", [cbor2.undefined, cbor2.CBORSimpleValue(0)]),
    ],
)
def test_an_endpoint_unwraps_byte_arrays_alone(raw: bytes, item: Any) -> None:
    assert codec.decode_item(raw) == item


# --- Long errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "cut"),
    [
        ("x" * 8192, "x" * 8192),
        ("x" * 8193, "x" * 8192),
        ("x" * 10_000_000, "x" * 8192),
        ("é" * 4097, "é" * 4096),
        ("x" + "é" * 4096, "x" + "é" * 4095),
        ({"a": "x" * 9000}, {"a": "x" * 9000}),
        (None, None),
    ],
)
def test_a_long_error_is_cut(error: Any, cut: Any) -> None:
    """B-68. Everything beside it stays."""
    entry = {"error": error, "id": "a", "date": DATE, "text": "y" * 9000}
    output = decoded({"type": "worker_output", "output": [{"id": "b", "error": "short"}, entry, {"id": "c"}]})
    assert [job_id for job_id, _ in output.entries] == ["b", "a", "c"]
    expected = {**entry, "error": cut}
    assert codec.decode_item(output.entries[1][1]) == expected
    if cut == error:
        assert output.entries[1][1] == cbor2.dumps(entry)


def test_the_type_of_an_output_may_come_last() -> None:
    output = decoded({"output": [{"id": "a", "text": "x" * 100}], "type": "worker_output"})
    assert output.entries == [("a", cbor2.dumps({"id": "a", "text": "x" * 100}))]


# --- Pieces -----------------------------------------------------------------------------------------------


def test_a_job_of_a_batch() -> None:
    assert cbor2.loads(codec.encode_job("a", {"x": 1})) == {"id": "a", "input": {"x": 1}}
    extra = {"priority": 3, "id": "b", "input": 5}
    assert cbor2.loads(codec.encode_job("a", {"x": 1}, extra)) == {
        "id": "a",
        "input": {"x": 1},
        "priority": 3,
    }


def test_a_flat_job_of_a_batch() -> None:
    """P-04, P-51: nothing of the input is lost, and nothing shadows the id."""
    raw = codec.encode_flat_job(
        "a", {"x": 1, "priority": 2, "id": "b"}, {"priority": 3, "n": 4}, 1700000000000
    )
    assert cbor2.loads(raw) == {"id": "a", "timestamp": 1.7e12, "priority": 2, "n": 4, "x": 1}
    assert b"\x69timestamp\xfb" in raw  # JavaScript's numbers are float64
    raw = codec.encode_flat_job("a", {"timestamp": "mine"}, None, 0)
    assert cbor2.loads(raw) == {"id": "a", "timestamp": "mine"}


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 1000, 70_000])
def test_batches_and_requests_of_any_length(count: int) -> None:
    jobs = [b"\xa0"] * count
    assert cbor2.loads(b"".join(codec.batch_parts(jobs))) == {"inputs": [{}] * count}
    request = cbor2.loads(b"".join(codec.request_parts(jobs, jobs)))
    assert request == {"type": "worker_request", "resources": [{}] * count, "jobs": [{}] * count}


@pytest.mark.parametrize("client_job_id", ["a", 5, None, 1.5, b"x", [1], {"a": 1}, DATE])
def test_progress_goes_to_any_id(client_job_id: Any) -> None:
    fields = codec.progress_fields(codec.progress_entry("ours", {"text": "x"}))
    raw = b"".join(codec.progress_parts(codec.response_head(client_job_id), 2, fields))
    assert same(codec.decode(raw), ProgressReport(client_job_id, {"text": "x"}, 2))


@pytest.mark.parametrize("client_job_id", ["a", 5, None, 1.5, b"x", [1], {"a": 1}, DATE])
def test_the_head_of_a_response_takes_any_id(client_job_id: Any) -> None:
    raw = codec.response_head(client_job_id) + codec.error_output("too late", "timeout")
    response = codec.decode(raw)
    assert same(response, WorkerResponse(client_job_id, {"error": "too late", "error_kind": "timeout"}))


@given(cbor_values())
def test_what_a_program_sends_arrives_as_it_is(value: Any) -> None:
    """P-51."""
    assert cbor2.loads(codec.encode_value({"x": 1})) == {"x": 1}
    raw = codec.output_entry("a", {"value": value})
    assert decoding.load(raw, decoding.ENGINE_TAGS) == {"id": "a", "value": value}
    raw = codec.request_job("a", "t", {"value": value}, {"more": value})
    wire = {"job_id": "a", "worker_type": "t", "input": {"value": value}, "more": value}
    assert decoding.load(raw, decoding.ENGINE_TAGS) == wire


def test_nothing_shadows_the_fields_of_an_entry_or_a_job() -> None:
    assert cbor2.loads(codec.output_entry("a", {"id": "b", "x": 1})) == {"id": "a", "x": 1}
    raw = codec.request_job("a", "t", {}, {"job_id": "b", "worker_type": "u", "input": 1, "n": 2})
    assert cbor2.loads(raw) == {"job_id": "a", "worker_type": "t", "input": {}, "n": 2}


@pytest.mark.parametrize(
    "entry",
    [
        b"\xa2\x62id\x61a\x61x\xd8\x40\x41\x00",
        b"\xb9\x00\x02\x61x\xd8\x40\x41\x00\x62id\x61a",
        b"\xa2\x66job_id\x61a\x61x\xd8\x40\x41\x00",
        b"\xa3\x62id\xf7\x66job_id\x61a\x61x\xd8\x40\x41\x00",
    ],
    ids=["first", "later", "by another name", "absent"],
)
def test_progress_loses_the_engines_id_and_nothing_else(entry: bytes) -> None:
    assert codec.progress_fields(entry) == b"\xa1\x61x\xd8\x40\x41\x00"


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


UNSENDABLE: Final[dict[str, Callable[[], Any]]] = {
    "an object": object,
    "a key that is no text": lambda: {1: 2},
    "a key of bytes": lambda: {b"a": 2},
    "a set": lambda: {1, 2},
    "a date": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "a decimal": lambda: [decimal.Decimal("1.5")],
    "a number of 65 bits": lambda: (2**64,),
    "a lone surrogate": lambda: "\ud800",
    "sixty-two levels": lambda: nested(62),
    "ten thousand levels": lambda: nested(10_000),
    "levels without end": endless,
    "a sequence of another kind": lambda: range(3),
    "a shared value by hand": lambda: cbor2.CBORTag(29, 0),
    "too much": lambda: [[]] * 100_000,
}


@pytest.mark.parametrize("what", UNSENDABLE)
def test_what_would_not_arrive_as_it_is_cannot_be_sent(what: str) -> None:
    """Else the other end would end the connection, and nobody would know why."""
    value = UNSENDABLE[what]()
    with pytest.raises(InvalidMessage):
        codec.output_entry("a", {"value": value})
    with pytest.raises(InvalidMessage):
        codec.request_job("a", "t", {"value": value})


def test_what_is_as_deep_as_can_be_sent_arrives() -> None:
    """What an engine takes of a result is what may stand in ``worker_responses``."""
    entry = codec.output_entry("a", {"value": nested(60)})
    output = codec.decode(codec.encode(WorkerOutput([("a", entry)])))
    assert isinstance(output, WorkerOutput)
    assert output.entries == [("a", entry)]
    with pytest.raises(InvalidMessage, match="levels"):
        codec.output_entry("a", {"value": nested(61)})
    job = codec.request_job("a", "t", {"value": nested(60)})
    assert isinstance(codec.decode(b"".join(codec.request_parts([], [job]))), WorkerRequest)
    with pytest.raises(InvalidMessage, match="levels"):
        codec.request_job("a", "t", {"value": nested(61)})


def test_tags_of_another_peer_pass_through_a_program() -> None:
    value = {
        "date": DATE,
        "tuple": (1, None),
        "number": -(2**63),
        "bytes": bytearray(b"x"),
        "e": cbor2.CBORSimpleValue(3),
    }
    assert codec.output_entry("a", value)


# --- Arrays -----------------------------------------------------------------------------------------------

VECTOR: Final = [0.5 * number for number in range(20)]
ARRAYS: Final = EXTENSIONS
STOCK: Final = EXTENSIONS - {"typed_arrays"}


def output(value: Any, kind: str = "worker_output", field: str = "output", **more: Any) -> bytes:
    return codec.encode_value({"type": kind, field: [{"id": "x", "value": value, **more}]}, typed_arrays=True)


@pytest.mark.parametrize(
    ("kind", "field"), [("worker_output", "output"), ("worker_progress", "progress")], ids=str
)
@pytest.mark.parametrize("late", [False, True])
def test_entries_with_typed_arrays_are_for_who_agreed_on_them(kind: str, field: str, late: bool) -> None:
    raw = output(array("f", VECTOR), kind, field)
    if late:
        raw = b"\xa3\x60\x78\x64" + b"-" * 100 + raw[1:]
    message = codec.decode(raw, extensions=ARRAYS)
    assert isinstance(message, WorkerOutput | WorkerProgress)
    [(_, entry)] = message.entries
    assert b"\xd8\x55" in entry
    assert codec.without_typed_arrays(entry) == cbor2.dumps({"id": "x", "value": VECTOR})
    message = codec.decode(raw, extensions=STOCK)
    assert isinstance(message, WorkerOutput | WorkerProgress)
    assert message.entries == [("x", entry)]
    assert codec.without_typed_arrays(message.entries[0][1]) == entry  # a tag like any other


def test_a_long_error_is_cut_beside_typed_arrays() -> None:
    message = codec.decode(output(array("f", VECTOR), error="e" * 10_000), extensions=ARRAYS)
    assert isinstance(message, WorkerOutput)
    plain = codec.without_typed_arrays(message.entries[0][1])
    assert cbor2.loads(plain or b"") == {"id": "x", "value": VECTOR, "error": "e" * 8192}


@pytest.mark.parametrize("numbers", [1_000_000, 2_000_000])
def test_more_numbers_than_a_message_may_have_are_no_list(numbers: int) -> None:
    message = codec.decode(output(array("f", bytes(4 * numbers))), extensions=ARRAYS)
    assert isinstance(message, WorkerOutput)
    assert codec.without_typed_arrays(message.entries[0][1]) is None
    message = codec.decode(output(array("f", bytes(4 * 900_000))), extensions=ARRAYS)
    assert isinstance(message, WorkerOutput)
    assert len(codec.without_typed_arrays(message.entries[0][1]) or b"") > 9 * 900_000


@pytest.mark.parametrize("size", [20, 20_000])
def test_vectors_arrive_as_lists_or_as_arrays(size: int) -> None:
    vector = [0.5 * number for number in range(size)]
    doubles, singles = array("d", vector), array("f", vector)
    wire = {"list": vector, "tag": singles, "deep": [{"list": vector}], "short": [0.5], "mixed": [*VECTOR, 1]}
    raw = codec.encode_value(wire, typed_arrays=True)
    tag = cbor2.CBORTag(85, singles.tobytes())
    assert codec.decode_item(raw) == {**wire, "tag": tag}
    found = codec.decode_item(raw, typed_arrays=True)
    assert found == {**wire, "list": doubles, "deep": [{"list": doubles}]}
    assert (found["list"].typecode, found["tag"].typecode) == ("d", "f")
    response = codec.response_head("job") + raw
    message = codec.decode(response, unwrap_typed_arrays=True, typed_arrays=True)
    assert same(message, WorkerResponse("job", found))
    assert same(codec.decode(response, unwrap_typed_arrays=True), WorkerResponse("job", {**wire, "tag": tag}))


def test_lists_of_mixed_widths_are_arrays_too() -> None:
    raw = cbor2.dumps([*VECTOR, float("inf")])
    assert b"\xf9" in raw
    assert codec.decode_item(b"\x81" + raw, typed_arrays=True) == [array("d", [*VECTOR, float("inf")])]
    assert codec.decode_item(raw, typed_arrays=True) == [*VECTOR, float("inf")]  # not in anything
    assert codec.decode_item(b"\x05", typed_arrays=True) == 5


@pytest.mark.parametrize("content", [b"12345", "text", [1.0, 2.0], None])
def test_tags_of_arrays_on_anything_else_stay_tags(content: Any) -> None:
    """A stock worker may mean what it likes by them."""
    tag = cbor2.CBORTag(85, content)
    assert codec.decode_item(cbor2.dumps({"x": tag}), typed_arrays=True) == {"x": tag}


@given(cbor_values())
def test_gathering_lists_changes_nothing_else(value: Any) -> None:
    wire = {"vector": VECTOR, "value": value}
    raw = codec.encode_value(wire)
    assert decoding.load(raw, decoding.ENDPOINT_TAGS).keys() == wire.keys()
    assert decoding.load(raw, decoding.ENGINE_TAGS) == wire


@pytest.mark.parametrize("behind", [b"\x00", b"\xff", b"\xfb"])
def test_what_is_wrong_beside_a_long_list_is_found(behind: bytes) -> None:
    raw = cbor2.dumps({"vector": VECTOR})
    for broken_raw in (raw + behind, raw[:-1], b"\xa2" + raw[1:] + raw[1:], b"\xa2" + raw[1:] + b"\x41a\x01"):
        with pytest.raises(DecodeError):
            codec.decode_item(broken_raw)
        with pytest.raises(DecodeError):
            codec.decode_item(broken_raw, typed_arrays=True)


# --- Time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [b"\xa0", b"\x80", b"\xc1\x00", b"\xe0"], ids=bytes.hex)
def test_the_worst_message_that_is_not_walked_is_bearable(item: bytes) -> None:
    """A tenth of a second on a slow machine; the limit here leaves room for a busy one."""
    count = 65_000 // len(item)
    raw = b"\xa2\x64type\x65hello\x61x\x9a" + count.to_bytes(4, "big") + item * count
    gc.collect()
    started = time.process_time()
    assert codec.decode(raw) == UnknownMessage("hello")
    assert time.process_time() - started < 0.5
