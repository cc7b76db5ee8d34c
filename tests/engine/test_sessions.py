"""Conversations: who may say what when. A peer's mistake costs its own connection and nothing else."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio

from orbtrio.engine.config import Config
from orbtrio.protocol import codec
from orbtrio.protocol.messages import (
    JobRequest,
    RegisterClient,
    RegisterWorker,
    Resource,
    WorkerOutput,
    WorkerRequest,
)
from orbtrio.testing import open_fabric, wait_until_idle
from orbtrio.transport import Turns
from tests.engine.neighbours import open_neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trio.testing import MockClock

    from orbtrio.testing import Fabric, ScriptedPeer

SECRET = "the secret of these tests"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _quiet_and_discreet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """I7: a peer's mistake is no error of ours, and secrets are in no line of the log."""
    caplog.set_level(logging.DEBUG, "orbtrio")
    yield
    ours = [record for record in caplog.get_records("call") if record.name.startswith("orbtrio")]
    assert [record.getMessage() for record in ours if record.levelno >= logging.WARNING] == []
    assert not [record for record in ours if SECRET in record.getMessage()]


def registration(**changes: Any) -> bytes:
    """An ``i_am_worker`` with changes to its ``worker_config``; None removes a field."""
    config = {"worker_type": "embedding"} | changes
    return cbor2.dumps(
        {
            "type": "i_am_worker",
            "worker_secret": SECRET,
            "worker_config": {name: value for name, value in config.items() if value is not Ellipsis},
        }
    )


async def close_code(peer: ScriptedPeer) -> int | None:
    """The code with which the engine closes a connection, which it has to do soon."""
    with trio.fail_after(30):
        return (await peer.wait_lost()).code


async def refusal(fabric: Fabric, *messages: bytes) -> tuple[int | None, str]:
    """What the engine tells a newcomer who sends these."""
    peer = await fabric.fake_peer()
    for message in messages:
        peer.send(message)
    return await close_code(peer), peer.lost.reason if peer.lost else ""


# ----------------------------------------------------------------------------------------------- registration


async def test_success_of_a_registration_is_silence(autojump_clock: MockClock) -> None:
    """P-01."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker(), await fabric.fake_client()
        await trio.sleep(3600)
        for peer in (worker, client):
            assert peer.lost is None
            assert peer.raw == []
        statistics = fabric.engine.statistics()
        assert (statistics.clients, len(statistics.workers)) == (1, 1)


async def test_silent_newcomer_is_closed_after_ten_seconds(autojump_clock: MockClock) -> None:
    """P-01, B-50."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        start = trio.current_time()
        assert await refusal(fabric) == (1008, "no registration within 10 s")
        assert trio.current_time() - start == pytest.approx(10)


async def test_request_as_first_message_registers_a_client(autojump_clock: MockClock) -> None:
    """P-01: the spec's own example sends nothing before it."""
    async with open_fabric() as fabric:
        peer = await fabric.fake_peer()
        peer.send(WorkerRequest([JobRequest("a", "t", {"n": 1})]))
        worker = await fabric.fake_worker("t", max_batch_size=1)
        worker.answer(await worker.receive_batch())
        response = await peer.receive()
        assert getattr(response, "client_job_id", None) == "a"
        assert fabric.engine.statistics().clients == 1


async def test_request_as_first_message_is_refused_where_tokens_are_asked_for(
    autojump_clock: MockClock,
) -> None:
    """P-01, P-06."""
    async with open_fabric(client_tokens={"token": "tenant"}) as fabric:
        code, reason = await refusal(fabric, codec.encode(WorkerRequest([JobRequest("a", "t", {})])))
        assert (code, reason) == (1008, "worker_request is not allowed here (awaiting registration)")


@pytest.mark.parametrize(
    "message",
    [
        codec.encode(WorkerOutput([])),
        cbor2.dumps({"inputs": []}),
        cbor2.dumps({"type": "worker_response", "job_id": 1, "output": {}}),
        cbor2.dumps({"type": "hello"}),
        cbor2.dumps({}),
        cbor2.dumps({"type": None}),
        cbor2.dumps({"type": 7}),
        cbor2.dumps([]),
    ],
)
async def test_anything_but_a_registration_is_refused_as_first_message(
    autojump_clock: MockClock, message: bytes
) -> None:
    """B-42."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        assert (await refusal(fabric, message))[0] == 1008


@pytest.mark.parametrize("first", ["worker", "client"])
@pytest.mark.parametrize("second", ["worker", "client"])
async def test_second_registration_is_refused(autojump_clock: MockClock, first: str, second: str) -> None:
    """P-01, B-49: also as the other role."""
    async with open_fabric(worker_secret=SECRET) as fabric, open_neighbours(fabric):
        messages = {"worker": registration(), "client": codec.encode(RegisterClient())}
        code, reason = await refusal(fabric, messages[first], messages[second])
        assert code == 1008
        assert "not allowed here" in reason


async def test_jobs_of_a_worker_that_registers_twice_go_to_others(autojump_clock: MockClock) -> None:
    """B-49: the public engine loses them."""
    async with open_fabric() as fabric:
        first = await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client()
        client.submit("t", {"n": 1})
        await first.receive_batch()
        second = await fabric.fake_worker("t", max_batch_size=1)
        first.send(RegisterWorker(worker_type="t", worker_secret=fabric.config.worker_secret or ""))
        (job,) = await second.receive_batch()
        assert job.input == {"n": 1}


@pytest.mark.parametrize(
    "message",
    [codec.encode(WorkerRequest([JobRequest("a", "t", {})])), cbor2.dumps({"inputs": []})],
    ids=["request", "batch"],
)
async def test_worker_may_not_speak_as_client_or_engine(autojump_clock: MockClock, message: bytes) -> None:
    """B-70."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        worker = await fabric.fake_worker()
        worker.send(message)
        assert await close_code(worker) == 1008


async def test_client_may_not_speak_as_worker(autojump_clock: MockClock) -> None:
    """B-70."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        client = await fabric.fake_client()
        client.send(WorkerOutput([]))
        assert await close_code(client) == 1008


# ---------------------------------------------------------------------------------------------------- secrets


WRONG_SECRETS = {
    "wrong": "wrong",
    "missing": ...,
    "null": None,
    "empty": "",
    "long": "x" * 50_000,
    "number": 42,
    "bytes": SECRET.encode(),
    "not ASCII": "ключ\N{SNOWMAN}",
    "prefix": SECRET[:-1],
    "longer": SECRET + "x",
}


@pytest.mark.parametrize("secret", WRONG_SECRETS.values(), ids=WRONG_SECRETS.keys())
async def test_every_wrong_secret_is_refused_with_the_same_words(
    autojump_clock: MockClock, secret: Any
) -> None:
    """B-43, P-06: and after the same time."""
    message = {"type": "i_am_worker", "worker_secret": secret, "worker_config": {"worker_type": "embedding"}}
    if secret is ...:
        del message["worker_secret"]
    async with open_fabric(worker_secret=SECRET) as fabric, open_neighbours(fabric):
        start = trio.current_time()
        assert await refusal(fabric, cbor2.dumps(message)) == (1008, "worker_secret is not the engine's")
        assert trio.current_time() - start == pytest.approx(0.01)
        assert fabric.engine.statistics().registrations_refused == 1


async def test_secret_need_not_be_ascii(autojump_clock: MockClock) -> None:
    async with open_fabric(worker_secret="ключ") as fabric:
        assert (await fabric.fake_worker()).lost is None


async def test_engine_told_to_do_without_a_secret_takes_any(autojump_clock: MockClock) -> None:
    """P-06, B-44."""
    async with open_fabric(Config(insecure_no_secret=True)) as fabric:
        for secret in ("", "any"):
            assert (await fabric.fake_worker(worker_secret=secret)).lost is None


async def test_each_wrong_secret_from_an_address_makes_its_next_refusal_slower(
    autojump_clock: MockClock,
) -> None:
    """B-50: while its neighbours are served at once; a good registration begins anew."""
    async with open_fabric(worker_secret=SECRET) as fabric, open_neighbours(fabric) as neighbours:

        async def guess() -> float:
            start = trio.current_time()
            worker = await fabric.fake_worker(worker_secret="wrong")
            await worker.wait_lost()
            return trio.current_time() - start

        delays = [await guess() for _ in range(110)]
        assert delays[:3] == pytest.approx([0.01, 0.02, 0.03])
        assert delays[-10:] == pytest.approx([1] * 10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guess)
            await neighbours.check()
            assert (await fabric.fake_worker()).lost is None
        assert await guess() < 0.1


async def test_only_so_many_guessing_addresses_are_remembered(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orbtrio.engine.sessions._REFUSALS_REMEMBERED", 2)
    async with open_fabric(worker_secret=SECRET) as fabric, trio.open_nursery() as nursery:
        delays = []
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"):
            peer = await fabric.fake_peer(f"{address}:1000")
            start = trio.current_time()
            peer.send(RegisterWorker(worker_type="embedding", worker_secret="wrong"))
            await peer.wait_lost()
            delays.append(trio.current_time() - start)
        assert delays == pytest.approx([0.01] * 4)
        nursery.cancel_scope.cancel()


# -------------------------------------------------------------------------------------------- worker settings


@pytest.mark.parametrize(
    ("patterns", "worker_type", "recognised"),
    [
        (None, "embedding", True),
        (None, "llm_fast", True),
        (None, "embeddings", False),
        (None, "*", False),
        (("*",), "anything", True),
        (("et:*", "llm"), "et:42", True),
        (("et:*", "llm"), "llm", True),
        (("et:*", "llm"), "LLM", False),
        (("et:*", "llm"), "vlm", False),
    ],
)
async def test_worker_types_are_recognised_by_patterns(
    autojump_clock: MockClock, patterns: tuple[str, ...] | None, worker_type: str, recognised: bool
) -> None:
    """P-05, B-46: the reason says which setting to change."""
    settings = {} if patterns is None else {"worker_types": patterns}
    async with open_fabric(Config(worker_secret=SECRET), **settings) as fabric:
        worker = await fabric.fake_worker(worker_type)
        if recognised:
            assert worker.lost is None
        else:
            lost = await worker.wait_lost()
            assert lost.code == 1008
            assert "WORKER_TYPES" in lost.reason


@pytest.mark.parametrize(
    "worker_type",
    [..., None, "", 7, "x" * 1000, "a/b", "a\0b", "line\nbreak", "x" * 129],
    ids=["missing", "null", "empty", "number", "long", "slash", "NUL", "line break", "129 characters"],
)
async def test_impossible_worker_types_are_refused(autojump_clock: MockClock, worker_type: Any) -> None:
    """B-45."""
    async with open_fabric(worker_secret=SECRET) as fabric, open_neighbours(fabric):
        assert (await refusal(fabric, registration(worker_type=worker_type)))[0] == 1008


@pytest.mark.parametrize("config", [..., None, [], "embedding", 7])
async def test_registration_without_a_worker_config_is_refused(
    autojump_clock: MockClock, config: Any
) -> None:
    """B-45: the public engine ignores it silently."""
    message = {"type": "i_am_worker", "worker_secret": SECRET, "worker_config": config}
    if config is ...:
        del message["worker_config"]
    async with open_fabric(worker_secret=SECRET) as fabric, open_neighbours(fabric):
        assert (await refusal(fabric, cbor2.dumps(message)))[0] == 1008


@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), float("inf"), "many", True, [], -(2**64)])
@pytest.mark.parametrize("field", ["max_batch_size", "max_latency_ms"])
async def test_numbers_that_are_none_are_refused(autojump_clock: MockClock, field: str, value: Any) -> None:
    """P-11, B-47, B-48."""
    async with open_fabric(worker_secret=SECRET) as fabric, open_neighbours(fabric):
        assert (await refusal(fabric, registration(**{field: value})))[0] == 1008


@pytest.mark.parametrize("value", [..., None, cbor2.undefined], ids=["absent", "null", "undefined"])
async def test_absent_numbers_have_the_defaults_of_the_spec(autojump_clock: MockClock, value: Any) -> None:
    """P-11, B-39, B-47: 32 jobs, 30 seconds."""
    async with open_fabric(worker_secret=SECRET) as fabric:
        peer = await fabric.fake_peer()
        peer.send(registration(max_batch_size=value, max_latency_ms=value))
        client = await fabric.fake_client()
        client.submit("embedding", *({"n": n} for n in range(33)))
        start = trio.current_time()
        sizes = [len(getattr(await peer.receive(), "jobs", ())) for _ in range(2)]
        assert sizes == [32, 1]
        assert trio.current_time() - start == pytest.approx(30)


async def test_whole_floats_are_numbers(autojump_clock: MockClock) -> None:
    """P-11, B-39: JavaScript has no others."""
    async with open_fabric(worker_secret=SECRET) as fabric:
        peer = await fabric.fake_peer()
        peer.send(registration(max_batch_size=2.0, max_latency_ms=5000.0))
        client = await fabric.fake_client()
        client.submit("embedding", {}, {})
        assert len(getattr(await peer.receive(), "jobs", ())) == 2


async def test_sizes_above_a_thousand_are_clamped(autojump_clock: MockClock) -> None:
    """P-11, B-47."""
    async with open_fabric(worker_secret=SECRET, max_queued_jobs=3000) as fabric:
        peer = await fabric.fake_peer()
        peer.send(registration(max_batch_size=2**64 - 1))
        client = await fabric.fake_client()
        client.submit("embedding", *({} for _ in range(1001)))
        assert len(getattr(await peer.receive(), "jobs", ())) == 1000


@pytest.mark.parametrize(("latency_ms", "accepted"), [(300_000, True), (300_001, False), (10**12, False)])
async def test_latency_above_the_job_timeout_is_refused(
    autojump_clock: MockClock, latency_ms: int, accepted: bool
) -> None:
    """P-11, B-48."""
    async with open_fabric(worker_secret=SECRET) as fabric:
        peer = await fabric.fake_peer()
        peer.send(registration(max_latency_ms=latency_ms))
        await wait_until_idle()
        if accepted:
            assert peer.lost is None
        else:
            assert await close_code(peer) == 1008


async def test_default_latency_is_no_mistake_where_jobs_time_out_sooner(autojump_clock: MockClock) -> None:
    """P-11: a stock worker that names none must not be refused for ours."""
    async with open_fabric(worker_secret=SECRET, job_timeout=10) as fabric:
        peer = await fabric.fake_peer()
        peer.send(registration())
        await wait_until_idle()
        assert peer.lost is None
        assert (await refusal(fabric, registration(max_latency_ms=10_001)))[0] == 1008


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eager", 1),
        ("max_unanswered_batches", 0),
        ("max_message_bytes", -1),
        ("extensions", "drain"),
        ("extensions", [1]),
    ],
)
async def test_extensions_of_the_wrong_kind_are_refused(
    autojump_clock: MockClock, field: str, value: Any
) -> None:
    async with open_fabric(worker_secret=SECRET) as fabric:
        assert (await refusal(fabric, registration(**{field: value})))[0] == 1008


async def test_unknown_fields_and_extensions_are_tolerated(autojump_clock: MockClock) -> None:
    """So that old engines and new peers mix freely."""
    async with open_fabric(worker_secret=SECRET) as fabric:
        worker, client = await fabric.fake_peer(), await fabric.fake_peer()
        worker.send(registration(gpu="yes", extensions=["teleport"]))
        client.send(cbor2.dumps({"type": "i_am_server", "version": 7, "extensions": ["x"], "more": {}}))
        await wait_until_idle()
        assert (worker.lost, client.lost) == (None, None)


# --------------------------------------------------------------------------------------------- tokens, limits


@pytest.mark.parametrize("token", [None, "", "wrong", "token-", "token-aa"])
async def test_wrong_tokens_are_refused_with_the_same_words(
    autojump_clock: MockClock, token: str | None
) -> None:
    """P-06."""
    async with open_fabric(client_tokens={"token-a": "a", "token-b": "b"}) as fabric:
        client = await fabric.fake_client(token=token)
        lost = await client.wait_lost()
        assert (lost.code, lost.reason) == (1008, "token is not one of the engine's CLIENT_TOKENS")


async def test_tokens_choose_the_tenant(autojump_clock: MockClock) -> None:
    """P-06, P-42: the tenant's name is in the path of its files."""
    async with open_fabric(client_tokens={"token-a": "tenant-a", "token-b": "tenant-b"}) as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        for letter in "ab":
            client = await fabric.fake_client(token=f"token-{letter}")
            client.submit("t", {"text": reference("r")}, resources=[Resource("r", "document", b"text")])
            (job,) = await worker.receive_batch()
            path = trio.Path(job.input["text"]).relative_to(fabric.config.store_root)
            assert path.parts[:3] == (f"tenant-{letter}", "files", "frames")


async def test_clients_without_tokens_are_tenants_of_their_own(autojump_clock: MockClock) -> None:
    """P-06: and their directories go with them."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        tenants = set()
        for _ in range(2):
            client = await fabric.fake_client()
            client.submit("t", {"text": reference("r")}, resources=[Resource("r", "document", b"text")])
            (job,) = await worker.receive_batch()
            tenants.add(trio.Path(job.input["text"]).relative_to(fabric.config.store_root).parts[0])
            worker.answer(job)
            await client.close()
        assert len(tenants) == 2
        await trio.sleep(1)
        await wait_until_idle()
        left = [path.name for path in await trio.Path(fabric.config.store_root).iterdir()]
        assert tenants.isdisjoint(left)


def reference(resource_id: str) -> dict[str, str]:
    return {"__type": "resource-ref", "id": resource_id}


@pytest.mark.parametrize("role", ["worker", "client"])
async def test_only_so_many_of_a_kind_are_admitted(autojump_clock: MockClock, role: str) -> None:
    async with open_fabric(max_workers=1, max_clients=1) as fabric:
        connect = fabric.fake_worker if role == "worker" else fabric.fake_client
        first, second = await connect(), await connect()
        lost = await second.wait_lost()
        assert lost.code == 1008
        assert f"ORB_MAX_{role.upper()}S" in lost.reason
        await first.close()
        await wait_until_idle()
        assert (await connect()).lost is None


async def test_requests_that_come_together_find_the_room_that_they_would_find_one_by_one(
    autojump_clock: MockClock,
) -> None:
    """P-14: what a worker takes at once is not queued, however much of it one read brings."""
    async with open_fabric(worker_secret=SECRET, max_queued_jobs=100) as fabric:
        await fabric.fake_worker("t", max_batch_size=10)
        client = await fabric.fake_client(engine_errors=True)
        jobs = [JobRequest(number, "t", {}) for number in range(600)]
        for first in range(0, 600, 20):
            client.send(WorkerRequest(jobs[first : first + 20]))
        await wait_until_idle()
        assert fabric.engine.statistics().refused == {}
        assert fabric.engine.statistics().accepted == 600


async def test_much_that_one_read_brings_is_done_in_several_turns(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost or refused where a session lets others go on: requests, and a worker's outputs."""
    entered: list[None] = []

    async def enter(turns: Turns) -> None:
        entered.append(None)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Turns, "over", True)
    monkeypatch.setattr(Turns, "enter", enter)
    async with open_fabric(worker_secret=SECRET) as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=300)
        client = await fabric.fake_client(engine_errors=True)
        jobs = [JobRequest(number, "t", {}) for number in range(600)]
        for first in range(0, 600, 300):
            client.send(WorkerRequest(jobs[first : first + 300]))
        await wait_until_idle()
        assert fabric.engine.statistics().accepted == 600
        assert fabric.engine.statistics().refused == {}
        requests = len(entered)
        assert requests > 0
        for _ in range(2):
            worker.answer(await worker.receive_batch())
        await wait_until_idle()
        assert fabric.engine.statistics().answered == 600
        assert len(entered) > requests


async def test_first_message_may_have_64_kib(autojump_clock: MockClock) -> None:
    """P-52, B-51."""
    async with open_fabric(worker_secret=SECRET) as fabric, open_neighbours(fabric):
        room = 64 * 1024 - len(registration(padding=b"")) - 2
        peer = await fabric.fake_peer()
        peer.send(registration(padding=bytes(room)))
        await wait_until_idle()
        assert peer.lost is None
        assert (await refusal(fabric, registration(padding=bytes(room + 1))))[0] == 1009


@pytest.mark.parametrize(("role", "limit"), [("worker", 16 * MIB), ("client", 32 * MIB)])
async def test_messages_above_the_limit_of_the_role_close_1009(
    autojump_clock: MockClock, role: str, limit: int
) -> None:
    """P-52."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        peer = await (fabric.fake_worker() if role == "worker" else fabric.fake_client())
        head = cbor2.dumps({"type": "of the future", "data": b""})[:-1]
        peer.send(head + b"\x5a" + (limit - len(head) - 5).to_bytes(4, "big") + bytes(limit - len(head) - 5))
        await wait_until_idle()
        assert peer.lost is None
        peer.send(bytes(limit + 1))
        assert await close_code(peer) == 1009


# ------------------------------------------------------------------------------------------- unknown messages


@pytest.mark.parametrize("role", ["worker", "client"])
async def test_messages_of_unknown_type_are_ignored_but_not_a_hundred_a_minute(
    autojump_clock: MockClock, role: str
) -> None:
    """P-53, B-71."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        peer = await (fabric.fake_worker() if role == "worker" else fabric.fake_client())
        for _ in range(3):
            for _ in range(100):
                peer.send(cbor2.dumps({"type": "of the future", "with": ["anything"]}))
            await wait_until_idle()
            assert peer.lost is None
            await trio.sleep(61)
        for _ in range(101):
            peer.send(cbor2.dumps({"type": "of the future"}))
        assert await close_code(peer) == 1008


# ----------------------------------------------------------------------------------------------- hostile CBOR


def nested(head: bytes, depth: int, innermost: bytes = b"\x00") -> bytes:
    return head * depth + innermost


# Items that break the decoding profile, each to be put where a value may stand. The numbers are those of
# robustness.md.
HOSTILE: Mapping[str, bytes] = {
    "B-23 nothing": b"",
    "B-23 truncated text": b"\x65hell",
    "B-23 truncated array": b"\x82\x01",
    "B-23 truncated number": b"\x1b\x00\x00",
    **{
        f"B-23 reserved head {head:02x}": bytes([head])
        for head in (0x1C, 0x3D, 0x5C, 0x7E, 0x9C, 0xBD, 0xDC, 0xFC)
    },
    "B-23 lone break": b"\xff",
    "B-23 break in a definite array": b"\x82\x01\xff",
    "B-24 bytes behind the item": b"\x01\x01",
    "B-25 65 arrays": nested(b"\x81", 65),
    "B-25 65 maps": nested(b"\xa1\x61x", 65),
    "B-25 65 tags": nested(b"\xd8\x64", 65),
    "B-25 60,000 arrays": nested(b"\x81", 60_000),
    "B-25 60,000 tags": nested(b"\xc1", 60_000),
    **{
        f"B-26 {kind} of 2^{bits}": bytes([head | 0x1B]) + (2**bits - (bits == 64)).to_bytes(8, "big")
        for kind, head in {"bytes": 0x40, "text": 0x60, "array": 0x80, "map": 0xA0}.items()
        for bits in (32, 63, 64)
    },
    "B-28 bytes of unknown length": b"\x5f\x41a\xff",
    "B-28 text of unknown length": b"\x7f\x61a\xff",
    "B-28 array of unknown length": b"\x9f\x01\xff",
    "B-28 map of unknown length": b"\xbf\x61a\x01\xff",
    "B-28 ten thousand chunks": b"\x7f" + b"\x61a" * 10_000 + b"\xff",
    "B-33 shared value": b"\xd8\x1c\x81\x01",
    "B-33 reference to a shared value": b"\xd8\x1d\x00",
    "B-33 value inside itself": b"\xd8\x1c\x81\xd8\x1d\x00",
    "B-34 string reference": b"\xd9\x01\x00\x82\x63abc\xd8\x19\x00",
    "B-37 integer key": b"\xa1\x01\x01",
    "B-37 array key": b"\xa1\x81\x01\x01",
    "B-37 bytes key": b"\xa1\x41a\x01",
    "B-37 null key": b"\xa1\xf6\x01",
    "B-38 key twice": b"\xa2\x61a\x01\x61a\x02",
    "B-40 invalid UTF-8": b"\x62\xc3\x28",
    "B-40 surrogate": b"\x63\xed\xa0\x80",
}

# Tags that decoders like to make something of. Allowed where values only pass through, nowhere else.
TAGGED: Mapping[str, bytes] = {
    "B-29 bignum": b"\xc2" + cbor2.dumps(b"\xff" * 1000),
    "B-29 negative bignum": b"\xc3" + cbor2.dumps(b"\xff" * 1000),
    "B-30 decimal fraction": b"\xc4\x82\x1a\x3b\x9a\xca\x00\x01",
    "B-30 decimal fraction with a bignum": b"\xc4\x82\x01\xc2" + cbor2.dumps(b"\xff" * 1000),
    "B-31 bigfloat": b"\xc5\x82\x1a\x00\x0f\x42\x40\x01",
    "B-32 rational": b"\xd8\x1e\x82\x01\x00",
    "B-32 regular expression": b"\xd8\x23" + cbor2.dumps("(a+)+$" * 100),
    "B-32 MIME": b"\xd8\x24" + cbor2.dumps("Content-Type: text/plain\n" * 50),
    "B-32 date": b"\xc0\x61x",
    "B-32 epoch": b"\xc1" + cbor2.dumps(1.5e300),
    "B-32 UUID": b"\xd8\x25\x41\x00",
    "B-32 address": b"\xd9\x01\x04\x41\x00",
    "B-35 typed array of a map": b"\xd8\x40\xa0",
    "B-35 set": b"\xd9\x01\x02\x82\x01\x01",
    "B-35 error object": b"\xd8\x1b\x81\x65Error",
    "B-35 record": b"\xd9\xe0\x00\x81\x01",
    "B-36 unknown tag": b"\xd9\xff\xff\x00",
    "B-36 tag 2^64-1": b"\xdb" + b"\xff" * 8 + b"\x00",
}

SELF_DESCRIBED = b"\xd9\xd9\xf7"


async def all_sorts(fabric: Fabric) -> list[tuple[ScriptedPeer, bytes]]:
    """A newcomer, a worker and a client, each with the beginning of a message whose last value is missing."""
    return [
        (await fabric.fake_peer(), b"\xa2\x64type\x6bi_am_server\x65token"),
        (await fabric.fake_worker(), b"\xa2\x64type\x6dworker_output\x66output"),
        (await fabric.fake_client(), b"\xa2\x64type\x6eworker_request\x64jobs"),
    ]


@pytest.mark.parametrize("item", [*HOSTILE.values(), *TAGGED.values()], ids=[*HOSTILE, *TAGGED])
async def test_hostile_item_closes_1008(autojump_clock: MockClock, item: bytes) -> None:
    """As a field that is read and as a message, before and after registration, at no great cost."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        as_field = await all_sorts(fabric)
        as_message = [(peer, b"") for peer, _ in await all_sorts(fabric)]
        for peer, beginning in as_field + as_message:
            started = time.thread_time()
            peer.send(beginning + item)
            assert await close_code(peer) == 1008
            assert time.thread_time() - started < 1
        assert fabric.engine.statistics().peer_errors == 6


@pytest.mark.parametrize(
    "item",
    [
        b"\x9a" + (2_000_000).to_bytes(4, "big") + b"\x80" * 2_000_000,
        b"\x9a" + (2_000_000).to_bytes(4, "big") + b"\xa0" * 2_000_000,
        b"\x9a" + (15 * MIB).to_bytes(4, "big") + b"\x80" * 15 * MIB,
        nested(b"\x81", MIB),
        b"\x7f" + b"\x61a" * MIB + b"\xff",
        b"\xc2" + cbor2.dumps(b"\xff" * 2 * MIB),
        b"\xc4\x82\x01\xc2" + cbor2.dumps(b"\xff" * MIB),
        b"\xa1" + b"\x61a\x01" * 500_000,
    ],
    ids=[
        *("B-27 2 M empty arrays", "B-27 2 M empty maps", "B-27 15 M empty arrays", "B-25 1 M arrays"),
        *(
            "B-28 1 M chunks",
            "B-29 bignum of 2 MiB",
            "B-30 fraction with a bignum of 1 MiB",
            "B-24 1.5 MB behind",
        ),
    ],
)
async def test_large_hostile_message_costs_little_before_it_is_refused(
    autojump_clock: MockClock, item: bytes
) -> None:
    """Before registration they are too big at all, P-52."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        for peer, beginning in await all_sorts(fabric):
            newcomer = "i_am_server" in beginning.decode("latin-1")
            started = time.thread_time()
            peer.send(beginning + item)
            assert await close_code(peer) == (1009 if newcomer else 1008)
            assert time.thread_time() - started < 3


@pytest.mark.parametrize("item", TAGGED.values(), ids=TAGGED.keys())
async def test_tags_travel_through_the_engine_unchanged(autojump_clock: MockClock, item: bytes) -> None:
    """P-50, P-51: a JavaScript Date, Set or typed array must arrive, in a job's input and in a result."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.send(
            b"\xa2\x64type\x6eworker_request\x64jobs\x81\xa3\x66job_id\x61j\x6bworker_type\x61t\x65input\xa1\x61x"
            + item
        )
        (job,) = await worker.receive_batch()
        assert worker.raw[0].endswith(b"\xa1\x61x" + item)
        worker.send(
            b"\xa2\x64type\x6dworker_output\x66output\x81\xa2\x62id"
            + cbor2.dumps(job.job_id)
            + b"\x61x"
            + item
        )
        await client.receive_response()
        assert client.raw[0].endswith(b"\x61x" + item)


async def test_message_may_say_that_it_is_cbor(autojump_clock: MockClock) -> None:
    """P-50, B-35: tag 55799, once, around the whole."""
    async with open_fabric(worker_secret=SECRET) as fabric:
        peer = await fabric.fake_peer()
        peer.send(SELF_DESCRIBED + registration())
        await wait_until_idle()
        assert peer.lost is None
        assert (await refusal(fabric, SELF_DESCRIBED * 2 + registration()))[0] == 1008


async def test_heads_need_not_be_the_shortest(autojump_clock: MockClock) -> None:
    """P-50: cbor-x writes every map with sixteen bits of size."""
    async with open_fabric() as fabric:
        peer = await fabric.fake_peer()
        peer.send(b"\xb9\x00\x01\x78\x04type\x79\x00\x0bi_am_server")
        await wait_until_idle()
        assert peer.lost is None


async def test_random_and_mutated_messages_end_their_connection_at_most(autojump_clock: MockClock) -> None:
    """B-41."""
    rng = random.Random(20261121)
    good = [
        registration(max_batch_size=2),
        codec.encode(RegisterClient(extensions=frozenset({"engine_errors"}))),
        codec.encode(WorkerOutput([("id", codec.output_entry("id", {"x": [1.5, "text", None]}))])),
        codec.encode(
            WorkerRequest(
                [JobRequest("a", "embedding", {"x": reference("r"), "y": [1, 2.5, {"z": "ü"}]})],
                [],
                (Resource("r", "image", b"\x89PNG"),),
            )
        ),
    ]
    codes = set()
    async with open_fabric(worker_secret=SECRET) as fabric, open_neighbours(fabric):
        for number in range(50):
            for peer, _ in await all_sorts(fabric):
                message = bytearray(rng.choice(good) if number % 3 else rng.randbytes(rng.randrange(60)))
                for _ in range(rng.randrange(1, 4)):
                    if message:
                        message[rng.randrange(len(message))] = rng.randrange(256)
                peer.send(bytes(message))
                await wait_until_idle()
                if peer.lost is None:
                    await peer.close()
                codes.add(peer.lost and peer.lost.code)
        assert codes <= {1000, 1008, 1009}


# --------------------------------------------------------------------------------------------- worker outputs


OUTPUTS: Mapping[str, tuple[Any, int | None]] = {
    "missing": (..., 1008),
    "null": (None, 1008),
    "map": ({"id": "x"}, 1008),
    "text": ("output", 1008),
    "empty": ([], None),
    "entries that are no maps": ([1, None, "x", []], None),
    "entries without an id": ([{}, {"result": 1}], None),
    "ids that are no text": ([{"id": 7}, {"id": None}, {"id": b"x"}], None),
    "unknown ids": ([{"id": f"{number}"} for number in range(1000)], None),
}


@pytest.mark.parametrize(("output", "code"), OUTPUTS.values(), ids=OUTPUTS.keys())
async def test_odd_outputs_are_skipped_and_no_list_is_refused(
    autojump_clock: MockClock, output: Any, code: int | None
) -> None:
    """B-66, B-67, P-23."""
    message = {"type": "worker_output", "output": output}
    if output is ...:
        del message["output"]
    async with open_fabric() as fabric, open_neighbours(fabric):
        worker = await fabric.fake_worker()
        worker.send(cbor2.dumps(message))
        await wait_until_idle()
        if code is None:
            assert worker.lost is None
            assert fabric.engine.statistics().outputs_dropped == len(output)
        else:
            assert await close_code(worker) == code


async def test_million_entries_are_refused_by_their_budget(autojump_clock: MockClock) -> None:
    """B-66."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        worker = await fabric.fake_worker()
        worker.send(
            b"\xa2\x64type\x6dworker_output\x66output\x9a"
            + (10**6).to_bytes(4, "big")
            + b"\xa1\x62id\x61x" * 10**6
        )
        assert await close_code(worker) == 1008


# ---------------------------------------------------------------------------------------------------- endings


async def lose_by_cut(peer: ScriptedPeer) -> None:
    peer.link.cut()


async def lose_by_fin(peer: ScriptedPeer) -> None:
    peer.link.hang_up()


async def lose_by_close(peer: ScriptedPeer) -> None:
    await peer.close()


async def lose_by_half_a_message(peer: ScriptedPeer) -> None:
    peer.link.to_engine.cut_after(5)
    peer.send(b"half of this")


@pytest.mark.parametrize("lose", [lose_by_cut, lose_by_fin, lose_by_close, lose_by_half_a_message])
async def test_end_of_a_connection_is_noticed_at_once_however_it_ends(
    autojump_clock: MockClock, lose: Callable[[ScriptedPeer], Any]
) -> None:
    """B-22, F-04."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        for peer in (await fabric.fake_worker(), await fabric.fake_client()):
            await lose(peer)
            await peer.wait_lost()
        await wait_until_idle()
        statistics = fabric.engine.statistics()
        assert (statistics.clients, len(statistics.workers)) == (1, 1)
        assert statistics.connections_lost == (0 if lose is lose_by_close else 2)
        assert trio.current_time() < 1


async def test_half_open_connection_is_found_by_pings(autojump_clock: MockClock) -> None:
    """P-22, F-06, F-10: after 20 s of silence and 20 more without an answer."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        worker = await fabric.fake_worker()
        worker.link.stall()
        await trio.sleep(39)
        assert len(fabric.engine.statistics().workers) == 2
        await trio.sleep(2)
        assert len(fabric.engine.statistics().workers) == 1


async def test_worker_stopped_for_a_while_keeps_its_jobs(autojump_clock: MockClock) -> None:
    """F-11: nobody died, so nothing is sent twice."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.submit("t", {})
        jobs = await worker.receive_batch()
        worker.link.stall()
        await trio.sleep(3)
        worker.link.resume()
        worker.answer(jobs)
        await client.receive_response()
        assert fabric.engine.statistics().redelivered == 0


async def test_message_that_stops_half_way_closes_1008(autojump_clock: MockClock) -> None:
    """B-21."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        client = await fabric.fake_client()
        client.link.to_engine.largest_read = 1
        client.send(b"some message")
        client.link.to_engine.delay = 1000
        client.link.to_engine.stall()
        await trio.sleep(25)
        assert fabric.engine.statistics().clients == 2
        await trio.sleep(20)
        assert fabric.engine.statistics().clients == 1


async def test_client_that_does_not_read_is_cut_and_keeps_no_worker_waiting(
    autojump_clock: MockClock,
) -> None:
    """F-07, F-19, B-73: its worker goes on being read, others are served."""
    async with open_fabric() as fabric, open_neighbours(fabric) as neighbours, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        nursery.start_soon(worker.answer_all, {"large": "x" * 100_000})
        deaf, client = await fabric.fake_client(), await fabric.fake_client()
        deaf.link.to_peer.stall()
        deaf.submit("t", *({} for _ in range(60)))
        client.submit("t", {})
        with trio.fail_after(1):
            await client.receive_response()
        await neighbours.check()
        assert fabric.engine.statistics().clients == 3
        await trio.sleep(11)
        assert fabric.engine.statistics().clients == 2
        nursery.cancel_scope.cancel()


async def test_client_that_lets_too_much_gather_is_cut(autojump_clock: MockClock) -> None:
    """B-73: memory of a connection has an end."""
    async with (
        open_fabric(max_buffered_bytes=4 * MIB) as fabric,
        open_neighbours(fabric),
        trio.open_nursery() as nursery,
    ):
        worker = await fabric.fake_worker("t", max_batch_size=1)
        nursery.start_soon(worker.answer_all, {"large": "x" * 100_000})
        deaf = await fabric.fake_client()
        deaf.link.to_peer.stall()
        deaf.submit("t", *({} for _ in range(60)))
        await wait_until_idle()
        assert fabric.engine.statistics().clients == 1
        nursery.cancel_scope.cancel()
