"""The engine as a whole: jobs from this process, its end, its doors, and what it tells over HTTP."""

from __future__ import annotations

import json
import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio
import trustme

from orbtrio.client import connect
from orbtrio.engine.config import Config
from orbtrio.engine.server import Engine, open_engine
from orbtrio.errors import ConfigError, ConnectionLost, InvalidMessage, JobFailed, JobRefused, JobTimedOut
from orbtrio.inputs import Document, Image
from orbtrio.protocol import codec
from orbtrio.protocol.messages import RegisterClient
from orbtrio.testing import Link, open_fabric, wait_until_idle
from orbtrio.transport import open_client_transport
from tests.engine.neighbours import open_neighbours

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from orbtrio.testing import Fabric


class Outcome:
    """What became of a job submitted in a task of its own."""

    def __init__(self) -> None:
        self.output: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.ended_at = float("nan")
        self.scope = trio.CancelScope()

    async def follow(self, submit: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        with self.scope:
            try:
                self.output = await submit()
            except Exception as error:
                self.error = error
        self.ended_at = trio.current_time()

    @property
    def kind(self) -> str | None:
        return self.error.kind if isinstance(self.error, JobRefused) else None


async def start(nursery: trio.Nursery, engine: Engine, *args: Any, **options: Any) -> Outcome:
    """Submit a job in the background; returns when it has got as far as it gets."""
    outcome = Outcome()
    nursery.start_soon(outcome.follow, partial(engine.submit, *args, **options))
    await wait_until_idle()
    return outcome


# ------------------------------------------------------------------------------------- jobs from this process


async def test_submit_returns_the_workers_fields(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        outcome = await start(nursery, fabric.engine, "t", {"n": 1}, extra={"priority": 7, "id": "forged"})
        (job,) = await worker.receive_batch()
        assert (job.input, job.extra) == ({"n": 1}, {"priority": 7})
        worker.answer(job, {"result": cbor2.CBORTag(64, b"x")})
        await wait_until_idle()
        assert outcome.output == {"result": b"x"}


async def test_submit_raises_what_the_worker_answers_as_error(autojump_clock: MockClock) -> None:
    """P-24."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        outcome = await start(nursery, fabric.engine, "t", {})
        worker.fail(await worker.receive_batch(), "out of memory")
        await wait_until_idle()
        assert isinstance(outcome.error, JobFailed)
        assert outcome.error.error == "out of memory"


async def test_submit_times_out_with_the_engine(autojump_clock: MockClock) -> None:
    """P-21: after five minutes, or sooner if asked."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        patient = await start(nursery, fabric.engine, "t", {})
        hasty = await start(nursery, fabric.engine, "t", {}, timeout=5)
        hopeful = await start(nursery, fabric.engine, "t", {}, timeout=1000)
        begun = trio.current_time()
        await trio.sleep(301)
        for outcome in (patient, hasty, hopeful):
            assert isinstance(outcome.error, JobTimedOut)
        assert hasty.ended_at - begun == pytest.approx(5)
        assert hopeful.ended_at == patient.ended_at == pytest.approx(begun + 300)
        assert fabric.engine.statistics().open_jobs == 0


async def test_late_answer_to_submit_is_dropped(autojump_clock: MockClock) -> None:
    """F-43."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        outcome = await start(nursery, fabric.engine, "t", {}, timeout=5)
        jobs = await worker.receive_batch()
        await trio.sleep(6)
        worker.answer(jobs)
        await wait_until_idle()
        assert isinstance(outcome.error, JobTimedOut)
        assert fabric.engine.statistics().outputs_dropped == 1


async def test_cancelled_submit_forgets_its_job(autojump_clock: MockClock) -> None:
    """P-25: queued, it never reaches a worker; running, it finishes for nobody."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1, max_unanswered_batches=1)
        running = await start(nursery, fabric.engine, "t", {"n": 0})
        queued = await start(nursery, fabric.engine, "t", {"n": 1})
        kept = await start(nursery, fabric.engine, "t", {"n": 2})
        jobs = await worker.receive_batch()
        running.scope.cancel()
        queued.scope.cancel()
        await wait_until_idle()
        assert fabric.engine.statistics().open_jobs == 1
        worker.answer(jobs)
        (job,) = await worker.receive_batch()
        assert job.input == {"n": 2}
        worker.answer(job)
        await wait_until_idle()
        assert kept.output == {"echo": {"n": 2}}
        assert (running.output, queued.output) == (None, None)


async def test_images_and_documents_reach_the_worker_as_files(autojump_clock: MockClock) -> None:
    """P-40: until the job ends."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        job_input = {"a": [Image(b"\x89PNG")], "b": Document("text")}
        outcome = await start(nursery, fabric.engine, "t", job_input)
        (job,) = await worker.receive_batch()
        image, document = trio.Path(job.input["a"][0]), trio.Path(job.input["b"])
        assert await image.read_bytes() == b"\x89PNG"
        assert await document.read_text() == "text"
        assert image.relative_to(fabric.config.store_root).parts[0] == "local"
        worker.answer(job, {})
        await trio.sleep(1)
        await wait_until_idle()
        assert outcome.output == {}
        assert not await image.exists()
        assert not await document.exists()


async def test_cancelled_while_its_files_are_written_submit_leaves_none(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        for checkpoints in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fabric.engine.submit, "t", {"a": Image(bytes(1_000_000))})
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        await trio.sleep(1)
        await wait_until_idle()
        statistics = fabric.engine.statistics()
        assert (statistics.files, statistics.open_jobs) == (0, 0)


@pytest.mark.parametrize(
    "job_input",
    [{"x": object()}, {"x": {1, 2}}, {"x": 2**100}, {1: "x"}, {"x": "\ud800"}],
    ids=["object", "set", "number", "key", "surrogate"],
)
async def test_input_that_cbor_cannot_hold_is_the_callers_mistake(
    autojump_clock: MockClock, job_input: dict[Any, Any]
) -> None:
    """Nothing is accepted, and a worker never sees what it could not decode."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        with pytest.raises(InvalidMessage):
            await fabric.engine.submit("t", job_input)
        with pytest.raises(InvalidMessage):
            await fabric.engine.submit("t", {}, extra=job_input)
        assert fabric.engine.statistics().open_jobs == 0


async def test_submit_is_refused_with_the_engines_reason(autojump_clock: MockClock) -> None:
    """P-31, in process."""
    async with open_fabric(worker_types=("t",), max_queued_jobs=1) as fabric, trio.open_nursery() as nursery:
        unknown = await start(nursery, fabric.engine, "unknown", {})
        waiting = await start(nursery, fabric.engine, "t", {})
        full = await start(nursery, fabric.engine, "t", {})
        assert (unknown.kind, full.kind) == ("unknown_worker_type", "queue_full")
        for _ in range(3):
            worker = await fabric.fake_worker("t", max_batch_size=1)
            await worker.receive_batch()
            worker.link.cut()
            await worker.wait_lost()
        await wait_until_idle()
        assert waiting.kind == "worker_lost"


async def test_submit_before_and_after_the_engine_serves(tmp_path: Path, autojump_clock: MockClock) -> None:
    engine = Engine(Config(worker_secret="s", xdg_data_home=tmp_path), listen=False)
    with pytest.raises(JobRefused, match="does not serve yet"):
        await engine.submit("embedding", {})
    with pytest.raises(ConfigError, match="does not serve yet"):
        engine.statistics()
    await engine.stop()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.serve)
        await engine.stop()
    with pytest.raises(JobRefused, match="has stopped"):
        await engine.submit("embedding", {})
    await engine.wait_stopped()


# ---------------------------------------------------------------------------------------------------- its end


async def stop(nursery: trio.Nursery, fabric: Fabric, grace: float | None = None) -> None:
    """Begin to stop the engine, once it has dealt with everything it was sent."""
    await wait_until_idle()
    nursery.start_soon(fabric.engine.stop, grace)
    await wait_until_idle()


async def test_drain_answers_what_is_running_and_closes_1001(autojump_clock: MockClock) -> None:
    """P-26: what waits for company leaves at once; peers hear why they are sent away."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=4)
        stock, client = await fabric.fake_client(), await fabric.fake_client(engine_errors=True)
        stock.submit("t", {"n": 0})
        client.submit("t", {"n": 1})
        local = await start(nursery, fabric.engine, "t", {"n": 2})
        begun = trio.current_time()
        await stop(nursery, fabric)
        jobs = await worker.receive_batch()
        assert len(jobs) == 3
        await trio.sleep(20)
        assert worker.lost is None
        worker.answer(jobs)
        for peer in (worker, stock, client):
            lost = await peer.wait_lost()
            assert (lost.code, lost.reason) == (1001, "the engine is stopping")
        await fabric.engine.wait_stopped()
        assert trio.current_time() - begun == pytest.approx(20)
        assert [output["echo"] for _, output in stock.outputs] == [{"n": 0}]
        assert [output["echo"] for _, output in client.outputs] == [{"n": 1}]
        assert local.output == {"echo": {"n": 2}}


async def test_drain_ends_after_the_grace_period_with_engine_stopped(autojump_clock: MockClock) -> None:
    """P-26: 30 seconds; files are removed."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        stock, client = await fabric.fake_client(), await fabric.fake_client(engine_errors=True)
        stock.submit("t", {})
        client.submit("t", {})
        local = await start(nursery, fabric.engine, "t", {"x": Document("text")})
        begun = trio.current_time()
        await stop(nursery, fabric)
        await fabric.engine.wait_stopped()
        assert trio.current_time() - begun == pytest.approx(30)
        assert [output["error_kind"] for _, output in client.outputs] == ["engine_stopped"]
        assert stock.outputs == []
        assert local.kind == "engine_stopped"
        assert (await worker.wait_lost()).code == 1001
        assert [path.name for path in await trio.Path(fabric.config.store_root).iterdir()] == [".lock"]


async def test_jobs_that_no_worker_could_finish_end_at_once(autojump_clock: MockClock) -> None:
    """P-26."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        client = await fabric.fake_client(engine_errors=True)
        client.submit("nobody", {})
        begun = trio.current_time()
        await stop(nursery, fabric)
        await fabric.engine.wait_stopped()
        assert trio.current_time() == begun
        assert [output["error_kind"] for _, output in client.outputs] == ["engine_stopped"]


async def test_drain_sends_a_lost_workers_jobs_to_another_if_there_is_one(autojump_clock: MockClock) -> None:
    """P-22, P-26."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        first, second = [await fabric.fake_worker("t", max_batch_size=1) for _ in range(2)]
        client = await fabric.fake_client(engine_errors=True)
        client.submit("t", {"n": 0}, {"n": 1})
        begun = trio.current_time()
        await stop(nursery, fabric)
        await first.receive_batch()
        first.link.cut()
        for _ in range(2):
            await second.receive_batch()
        second.link.cut()
        await fabric.engine.wait_stopped()
        assert trio.current_time() == begun
        assert [output["error_kind"] for _, output in client.outputs] == ["engine_stopped"] * 2


async def test_new_jobs_are_refused_while_draining(autojump_clock: MockClock) -> None:
    """P-26: on connections that are there; new ones are sent away."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client(engine_errors=True)
        client.submit("t", {})
        await stop(nursery, fabric)
        (late,) = client.submit("t", {})
        local = await start(nursery, fabric.engine, "t", {})
        assert client.outputs[0][0] == late
        assert client.outputs[0][1]["error_kind"] == local.kind == "engine_stopped"
        newcomer = await fabric.fake_worker("t")
        assert (await newcomer.wait_lost()).code == 1001


@pytest.mark.parametrize("grace", [0, 3])
async def test_second_stop_shortens_the_grace_period(autojump_clock: MockClock, grace: float) -> None:
    """P-26: and a third, longer one does not lengthen it."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client(engine_errors=True)
        client.submit("t", {})
        begun = trio.current_time()
        await stop(nursery, fabric)
        await trio.sleep(10)
        await stop(nursery, fabric, grace)
        await stop(nursery, fabric, 1000)
        await fabric.engine.wait_stopped()
        assert trio.current_time() - begun == pytest.approx(10 + grace)
        assert [output["error_kind"] for _, output in client.outputs] == ["engine_stopped"]


async def test_connection_that_is_just_being_made_does_not_delay_the_end(autojump_clock: MockClock) -> None:
    """P-26: a peer in the middle of its HTTP head, or silent behind it, is no reason to stay."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        stream = await fabric.open_stream()
        await stream.send_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n")
        silent = await fabric.fake_peer()
        begun = trio.current_time()
        await stop(nursery, fabric)
        await fabric.engine.wait_stopped()
        assert trio.current_time() == begun
        assert (await silent.wait_lost()).code == 1001
        assert await stream.receive_some() == b""
        newcomer = await fabric.fake_client()
        assert (await newcomer.wait_lost()).code == 1001


async def test_cancelled_engine_ends_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """P-26, second signal: whoever waits is told, also where somebody else's task serves the connection."""
    engine = Engine(Config(worker_secret="s", xdg_data_home=tmp_path), listen=False)
    scope = trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[Engine]) -> None:
        with scope:
            await engine.serve(task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        local = await start(nursery, engine, "embedding", {"x": Document("text")})
        link = Link("memory:1")
        nursery.start_soon(engine.handle, link.engine_end)
        async with open_client_transport("ws://localhost/ws", open_stream=link.dial) as transport:
            transport.send(codec.encode(RegisterClient()))
            await wait_until_idle()
            begun = trio.current_time()
            scope.cancel()
            with pytest.raises(ConnectionLost) as lost:
                await transport.receive()
            assert lost.value.code == 1001
            # Measured here: the store deletes its files in a thread, and the mock clock jumps meanwhile.
            assert trio.current_time() - begun < 1
        await wait_until_idle()
        assert local.kind == "engine_stopped"
        assert [path.name for path in (tmp_path / "unblink-engine").iterdir()] == [".lock"]


# -------------------------------------------------------------------------------------------------- its doors


async def is_closed(stream: trio.abc.Stream) -> bool:
    """Whether the engine hangs up at once, without a word."""
    with trio.move_on_after(1):
        return await stream.receive_some() == b""
    return False


async def test_only_so_many_may_be_connected_without_saying_who_they_are(autojump_clock: MockClock) -> None:
    """B-13: from one address, and from all; who has registered does not count."""
    async with open_fabric(max_unregistered_per_address=2, max_unregistered=3) as fabric:
        for _ in range(4):
            await fabric.fake_client()
            await fabric.fake_worker()
        silent = [await fabric.fake_peer("10.0.0.1") for _ in range(2)]
        assert await is_closed(fabric.open_link("10.0.0.1").peer_end)
        silent.append(await fabric.fake_peer("10.0.0.2"))
        assert await is_closed(fabric.open_link("10.0.0.3").peer_end)
        silent[0].send(RegisterClient())
        await silent[1].close()
        await wait_until_idle()
        assert not await is_closed(fabric.open_link("10.0.0.1").peer_end)


async def test_place_of_a_refused_peer_is_free_after_its_refusal(autojump_clock: MockClock) -> None:
    """B-13, B-50: guessing secrets in parallel is no faster."""
    async with open_fabric(max_unregistered=1) as fabric:
        guessing = await fabric.fake_worker(worker_secret="wrong")
        assert await is_closed(fabric.open_link().peer_end)
        assert (await guessing.wait_lost()).code == 1008
        assert (await fabric.fake_worker()).lost is None


async def test_bug_that_a_peer_finds_ends_its_connection_only(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, registration: object) -> str:
        raise ZeroDivisionError

    async with open_fabric() as fabric, open_neighbours(fabric):
        monkeypatch.setattr("orbtrio.engine.sessions.Sessions._authorise_client", fail)
        client = await fabric.fake_client()
        assert (await client.wait_lost()).code == 1011
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "memory:3: the connection failed"
    assert record.exc_info


async def test_peer_that_goes_before_it_is_answered_is_no_news(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A traceback for each would be a way to fill the log."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        link = fabric.open_link()
        link.to_peer.cut_after(0)
        with pytest.raises(ConnectionLost):
            async with open_client_transport("ws://localhost/ws", open_stream=link.dial):
                pass
        await wait_until_idle()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_thousands_of_types_that_came_and_went_do_no_harm(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A type may be forgotten while dead jobs of it are still on their way to its workers."""
    monkeypatch.setattr("orbtrio.engine.dispatch._MAX_POOLS", 4)
    monkeypatch.setattr("orbtrio.engine.dispatch._SWEEP_INTERVAL", 0)
    async with open_fabric() as fabric, open_neighbours(fabric):
        for number in range(20):
            leaving, coming = await fabric.fake_client(), await fabric.fake_client()
            for client in (leaving, coming):
                client.link.stall()
            leaving.submit(f"a-{number}", {})
            leaving.send(b"no CBOR: the end, before anybody has looked at the job")
            coming.submit(f"b-{number}", {})
            await wait_until_idle()
            for client in (leaving, coming):
                client.link.resume()
            await wait_until_idle()
            await coming.close()
        assert len(fabric.engine.statistics().worker_types) <= 4


# ------------------------------------------------------------------------------------------- HTTP and sockets


async def get(fabric: Fabric, path: str) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    stream = await fabric.open_stream()
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b"".join([bytes(data) async for data in stream])
    await stream.aclose()
    head, body = answer.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers["content-type"], body


async def test_health_and_version(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        assert await get(fabric, "/healthz") == (200, "text/plain", b"ok\n")
        assert await get(fabric, "/readyz") == (200, "text/plain", b"ready\n")
        status, content_type, body = await get(fabric, "/version")
        assert (status, content_type) == (200, "application/json")
        version = json.loads(body)
        assert (version["engine"], version["protocol"]) == ("orbtrio", "1.0")
        assert (await get(fabric, "/elsewhere"))[0] == 404


async def test_draining_engine_is_healthy_but_not_ready(autojump_clock: MockClock) -> None:
    """So that whoever balances loads sends no more peers."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        await fabric.fake_worker("t", max_batch_size=1)
        (await fabric.fake_client()).submit("t", {})
        await stop(nursery, fabric)
        assert (await get(fabric, "/healthz"))[0] == 200
        assert await get(fabric, "/readyz") == (503, "text/plain", b"stopping\n")


async def test_metrics_over_http(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        await fabric.fake_worker("t")
        status, content_type, body = await get(fabric, "/metrics")
        assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b'orb_workers{type="t"} 1.0\n' in body


async def test_metrics_are_not_computed_for_each_of_many_who_ask(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last answer is given again until ten times its work have passed, waiting not counted."""
    now = worked = 0.0

    def render(statistics: object) -> bytes:
        nonlocal now, worked
        now += 100
        worked += 1
        return b"%d" % worked

    monkeypatch.setattr("orbtrio.engine.server.time.perf_counter", lambda: now)
    monkeypatch.setattr("orbtrio.engine.server.time.thread_time", lambda: worked)
    monkeypatch.setattr("orbtrio.engine.server.render_metrics", render)
    async with open_fabric() as fabric:
        bodies = []
        for _ in range(3):
            bodies.append((await get(fabric, "/metrics"))[2])
            now += 6
        assert bodies == [b"1", b"1", b"2"]


async def test_sockets_of_both_families_until_the_block_is_left(tmp_path: Path) -> None:
    """F-46: localhost is 127.0.0.1 and ::1, and both have the same port."""
    config = Config(worker_secret="s", server_port=0, xdg_data_home=tmp_path)
    async with open_engine(config) as engine:
        assert engine.addresses[0].startswith("ws://127.0.0.1:")
        assert len({address.rpartition(":")[2] for address in engine.addresses}) == 1
        for address in engine.addresses:
            async with connect(address) as client:
                with pytest.raises(JobRefused, match="unknown_worker_type"):
                    await client.submit("unknown", {})
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream(
            "127.0.0.1", int(engine.addresses[0].rpartition(":")[2].removesuffix("/ws"))
        )


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    config = Config(
        worker_secret="s",
        server_port=0,
        xdg_data_home=tmp_path,
        tls_certificate=tmp_path / "chain.pem",
        tls_key=tmp_path / "key.pem",
    )
    async with open_engine(config) as engine:
        address = engine.addresses[0].replace("127.0.0.1", "localhost")
        assert address.startswith("wss://")
        async with connect(address, ssl_context=trusting) as client:
            with pytest.raises(JobRefused, match="unknown_worker_type"):
                await client.submit("unknown", {})


async def test_port_that_is_taken_is_an_error_before_the_block(tmp_path: Path) -> None:
    """F-42."""
    config = Config(worker_secret="s", server_port=0, xdg_data_home=tmp_path / "first")
    async with open_engine(config) as engine:
        port = int(engine.addresses[0].rpartition(":")[2].removesuffix("/ws"))
        second = Config(worker_secret="s", server_port=port, xdg_data_home=tmp_path / "second")
        with pytest.raises(OSError, match="already in use"):
            async with open_engine(second):
                pass


async def test_engine_without_a_secret_does_not_start(tmp_path: Path) -> None:
    """P-06, B-44."""
    with pytest.raises(ConfigError, match="WORKER_SECRET"):
        Engine(Config(xdg_data_home=tmp_path))


async def test_peer_that_is_gone_before_it_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B-02: the system has no address for it any more."""
    config = Config(worker_secret="s", server_port=0, xdg_data_home=tmp_path)
    monkeypatch.setattr("orbtrio.engine.server.peer_address", lambda stream: None)
    async with open_engine(config) as engine:
        stream = await trio.open_tcp_stream("127.0.0.1", int(engine.addresses[0].split(":")[2].split("/")[0]))
        with trio.fail_after(50):
            assert await stream.receive_some() == b""
        await stream.aclose()
