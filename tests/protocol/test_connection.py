"""Every cell of the table, from both ends and in both directions."""

from __future__ import annotations

import itertools
from array import array
from typing import TYPE_CHECKING, Any, Final

import cbor2
import pytest

from orbtrio.errors import (
    ConnectionLost,
    DecodeError,
    InvalidMessage,
    LocalProtocolError,
    RemoteProtocolError,
)
from orbtrio.protocol.codec import encode
from orbtrio.protocol.connection import TRANSITIONS, Connection, Side, State
from orbtrio.protocol.messages import (
    EXTENSIONS,
    BatchJob,
    CancelJobs,
    CancelRequest,
    JobBatch,
    JobRequest,
    ProgressReport,
    RegisterClient,
    RegisterWorker,
    UnknownMessage,
    WorkerDrain,
    WorkerOutput,
    WorkerProgress,
    WorkerRequest,
    WorkerResponse,
    WorkerResponses,
)

if TYPE_CHECKING:
    from orbtrio.protocol.messages import Message

AWAITING, WORKER, CLIENT, FAILED, CLOSED = State

EXAMPLES: Final[dict[type[Message], Message]] = {
    RegisterWorker: RegisterWorker(worker_type="embedding", worker_secret="secret"),
    RegisterClient: RegisterClient(),
    WorkerRequest: WorkerRequest([JobRequest("job-1", "embedding", {"text": "hello"})]),
    WorkerOutput: WorkerOutput([("a", b"\xa1\x62id\x61a")]),
    JobBatch: JobBatch([BatchJob("a", {"text": "hello"})]),
    WorkerResponse: WorkerResponse("job-1", {"id": "a"}),
    WorkerProgress: WorkerProgress([("a", b"\xa1\x62id\x61a")]),
    WorkerDrain: WorkerDrain(),
    CancelJobs: CancelJobs(["a"]),
    CancelRequest: CancelRequest(["job-1"]),
    ProgressReport: ProgressReport("job-1", {"percent": 5}),
    WorkerResponses: WorkerResponses([WorkerResponse("job-1", {"id": "a"})]),
}
EXTENDED: Final = (WorkerProgress, WorkerDrain, CancelJobs, CancelRequest, ProgressReport, WorkerResponses)
BY_THE_PEER: Final = (
    *(RegisterWorker, RegisterClient, WorkerRequest, WorkerOutput),
    *(WorkerProgress, WorkerDrain, CancelRequest),
)

# Written out once more, so that the table in the code cannot change by accident.
LEGAL: Final[dict[tuple[State, type[Message]], State]] = {
    (AWAITING, RegisterWorker): WORKER,
    (AWAITING, RegisterClient): CLIENT,
    (WORKER, JobBatch): WORKER,
    (WORKER, WorkerOutput): WORKER,
    (CLIENT, WorkerRequest): CLIENT,
    (CLIENT, WorkerResponse): CLIENT,
    (WORKER, WorkerProgress): WORKER,
    (WORKER, CancelJobs): WORKER,
    (WORKER, WorkerDrain): WORKER,
    (CLIENT, CancelRequest): CLIENT,
    (CLIENT, ProgressReport): CLIENT,
    (CLIENT, WorkerResponses): CLIENT,
}
CELLS: Final = [*itertools.product((AWAITING, WORKER, CLIENT), EXAMPLES)]


def connection_in(state: State, side: Side, **settings: Any) -> Connection:
    connection = Connection(side, **settings)
    connection.state = state
    connection.extensions = EXTENSIONS
    return connection


def the_sender(kind: type[Message]) -> Side:
    return Side.PEER if kind in BY_THE_PEER else Side.ENGINE


def test_the_table_has_a_row_for_each_state() -> None:
    assert set(TRANSITIONS) == set(State)
    written = {(state, kind): to for state, row in TRANSITIONS.items() for kind, to in row.items()}
    unknown = {(WORKER, UnknownMessage): WORKER, (CLIENT, UnknownMessage): CLIENT}
    assert written == LEGAL | unknown


@pytest.mark.parametrize(("state", "kind"), CELLS)
def test_receiving(state: State, kind: type[Message]) -> None:
    """B-42, B-49, B-70, P-01: what is not in the table fails the connection with 1008."""
    connection = connection_in(state, the_sender(kind).other)
    raw = encode(EXAMPLES[kind])
    if (state, kind) in LEGAL:
        assert type(connection.receive(raw)) is kind
        assert connection.state is LEGAL[state, kind]
        return
    with pytest.raises(RemoteProtocolError, match=rf"is not allowed here \({state.value}\)") as caught:
        connection.receive(raw)
    assert caught.value.close_code == 1008
    assert connection.state is FAILED


@pytest.mark.parametrize(("state", "kind"), CELLS)
def test_sending(state: State, kind: type[Message]) -> None:
    connection = connection_in(state, the_sender(kind))
    if (state, kind) in LEGAL:
        assert connection.send(EXAMPLES[kind]) == encode(EXAMPLES[kind])
        assert connection.state is LEGAL[state, kind]
        return
    with pytest.raises(LocalProtocolError, match=rf"may not send .* \({state.value}\)"):
        connection.send(EXAMPLES[kind])
    assert connection.state is state


@pytest.mark.parametrize(("state", "kind"), CELLS)
def test_announcing_is_sending_without_the_bytes(state: State, kind: type[Message]) -> None:
    connection = connection_in(state, the_sender(kind))
    if (state, kind) in LEGAL:
        connection.sending(kind)
        assert connection.state is LEGAL[state, kind]
        return
    with pytest.raises(LocalProtocolError):
        connection.sending(kind)
    assert connection.state is state


@pytest.mark.parametrize(("state", "kind"), CELLS)
def test_nobody_may_say_what_the_other_end_says(state: State, kind: type[Message]) -> None:
    speaker = connection_in(state, the_sender(kind).other)
    with pytest.raises(LocalProtocolError):
        speaker.send(EXAMPLES[kind])
    assert speaker.state is state
    listener = connection_in(state, the_sender(kind))
    with pytest.raises(RemoteProtocolError):
        listener.receive(encode(EXAMPLES[kind]))
    assert listener.state is FAILED


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("state", [FAILED, CLOSED])
def test_when_it_is_over_everything_is_lost(state: State, kind: type[Message], side: Side) -> None:
    """To send after a failure is a lost race, no bug; what arrives is to be discarded."""
    connection = connection_in(state, side)
    with pytest.raises(ConnectionLost, match=state.value):
        connection.send(EXAMPLES[kind])
    with pytest.raises(ConnectionLost):
        connection.sending(kind)
    with pytest.raises(ConnectionLost):
        connection.receive(encode(EXAMPLES[kind]))
    assert connection.state is state


UNKNOWN: Final = b"\xa1\x64type\x6fworker_progress"


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", [WORKER, CLIENT])
def test_unknown_messages_are_tolerated_once_registered(state: State, side: Side) -> None:
    """B-71, P-53."""
    connection = connection_in(state, side)
    connection.extensions = frozenset()
    assert connection.receive(UNKNOWN) == UnknownMessage("worker_progress")
    assert connection.state is state
    with pytest.raises(InvalidMessage):
        connection.send(UnknownMessage("worker_progress"))
    assert connection.state is state


def test_an_unknown_message_registers_nobody() -> None:
    """B-42."""
    connection = Connection(Side.ENGINE)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.receive(UNKNOWN)
    assert caught.value.close_code == 1008


# --- Extensions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXTENDED)
@pytest.mark.parametrize("state", [WORKER, CLIENT])
def test_an_extension_exists_for_those_who_asked_for_it(kind: type[Message], state: State) -> None:
    """P-60: a peer that did not ask may call its inventions as it likes."""
    for connection in (connection_in(state, side) for side in Side):
        connection.extensions = frozenset({"engine_errors"})
        assert type(connection.receive(encode(EXAMPLES[kind]))) is UnknownMessage
        assert connection.state is state


@pytest.mark.parametrize(
    "registration",
    [
        RegisterWorker(worker_type="llm", worker_secret="s", extensions=frozenset({"cancel", "progress"})),
        RegisterClient(extensions=frozenset({"cancel", "progress"})),
    ],
)
def test_both_ends_know_what_was_asked_for(registration: RegisterWorker | RegisterClient) -> None:
    engine, peer = Connection(Side.ENGINE), Connection(Side.PEER)
    assert engine.extensions == peer.extensions == frozenset()
    engine.receive(peer.send(registration))
    assert engine.extensions == peer.extensions == {"cancel", "progress"}


def test_a_request_as_registration_asks_for_nothing() -> None:
    engine = Connection(Side.ENGINE, implicit_clients=True)
    engine.receive(encode(EXAMPLES[WorkerRequest]))
    assert engine.extensions == frozenset()


def test_files_come_with_batches_for_those_who_asked() -> None:
    raw = encode(JobBatch([], 0, [("/a", b"x")]))
    for extensions, expected in ((EXTENSIONS, [("/a", b"x")]), (frozenset[str](), [])):
        worker = connection_in(WORKER, Side.PEER)
        worker.extensions = extensions
        batch = worker.receive(raw)
        assert isinstance(batch, JobBatch)
        assert batch.resources == expected


# --- Implicit clients -------------------------------------------------------------------------------------


def test_a_request_may_register_its_sender() -> None:
    """P-01: the spec's own example sends nothing before it."""
    engine, client = (Connection(side, implicit_clients=True) for side in Side)
    message = engine.receive(client.send(EXAMPLES[WorkerRequest]))
    assert isinstance(message, WorkerRequest)
    assert engine.state is CLIENT
    assert client.state is CLIENT
    # It has registered now: as a client, and for good.
    with pytest.raises(RemoteProtocolError):
        engine.receive(encode(EXAMPLES[RegisterClient]))


@pytest.mark.parametrize("kind", [WorkerOutput, JobBatch, WorkerResponse])
def test_nothing_else_registers_implicitly(kind: type[Message]) -> None:
    engine = Connection(Side.ENGINE, implicit_clients=True)
    with pytest.raises(RemoteProtocolError):
        engine.receive(encode(EXAMPLES[kind]))


@pytest.mark.parametrize("state", [WORKER, FAILED])
def test_a_worker_stays_a_worker(state: State) -> None:
    engine = connection_in(state, Side.ENGINE, implicit_clients=True)
    with pytest.raises((RemoteProtocolError, ConnectionLost)):
        engine.receive(encode(EXAMPLES[WorkerRequest]))


# --- Bytes that are no message, and ends ------------------------------------------------------------------


@pytest.mark.parametrize("state", [AWAITING, WORKER, CLIENT])
@pytest.mark.parametrize(
    ("raw", "close_code", "cause"),
    [
        (b"", 1008, DecodeError),
        (b"\xff", 1008, DecodeError),
        (b"\x80", 1008, DecodeError),
        (b"\xa0\x00", 1008, DecodeError),
        (b"\xa1\x64type\x05", 1008, InvalidMessage),
        (b"\xa1\x64type\x6eworker_request", 1008, InvalidMessage),
    ],
)
def test_bytes_that_are_no_message_fail_the_connection(
    state: State, raw: bytes, close_code: int, cause: type[Exception]
) -> None:
    connection = connection_in(state, Side.ENGINE)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.receive(raw)
    assert caught.value.close_code == close_code
    assert type(caught.value.__cause__) is cause
    assert connection.state is FAILED


def test_resources_that_do_not_match_cost_1009() -> None:
    unused = {"id": "a", "type": "image", "data": b""}
    connection = connection_in(CLIENT, Side.ENGINE)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.receive(cbor2.dumps({"type": "worker_request", "resources": [unused], "jobs": []}))
    assert caught.value.close_code == 1009


def test_what_cannot_be_encoded_changes_nothing() -> None:
    connection = Connection(Side.PEER, implicit_clients=True)
    with pytest.raises(InvalidMessage):
        connection.send(WorkerRequest([JobRequest("a", "t", {"x": object()})]))
    assert connection.state is AWAITING


@pytest.mark.parametrize("state", State)
def test_failing_and_closing(state: State) -> None:
    connection = connection_in(state, Side.ENGINE)
    connection.fail()
    assert connection.state is (CLOSED if state is CLOSED else FAILED)
    connection.close()
    assert connection.state is CLOSED


def test_peers_get_the_bytes_of_typed_arrays_and_the_engine_passes_them_on() -> None:
    response = b"\xa3\x64type\x6fworker_response\x66job_id\x61a\x66output\xa1\x61x\xd8\x40\x41\x00"
    message = connection_in(CLIENT, Side.PEER).receive(response)
    assert isinstance(message, WorkerResponse)
    assert message.output == {"x": b"\x00"}


def test_a_client_that_asks_for_typed_arrays_gets_arrays() -> None:
    vector = [0.5] * 20
    single = cbor2.CBORTag(85, array("f", vector).tobytes())
    output = {"double": vector, "single": single}
    response = cbor2.dumps({"type": "worker_response", "job_id": "a", "output": output})
    for extensions in ([], ["typed_arrays"]):
        client = Connection(Side.PEER)
        client.send(RegisterClient(extensions=extensions))
        message = client.receive(response)
        assert isinstance(message, WorkerResponse)
        arrays = {"double": array("d", vector), "single": array("f", vector)}
        assert message.output == (arrays if extensions else output)
