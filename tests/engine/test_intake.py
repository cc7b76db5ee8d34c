"""What a job may ask for itself. What else is accepted or refused is in test_exchange.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio

from orbtrio.engine.intake import client_key
from orbtrio.protocol.messages import JobRequest, WorkerRequest
from orbtrio.testing import open_fabric, wait_until_idle
from tests.engine.extended import extended_client, extended_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from orbtrio.testing import FakeClient


def submit(client: FakeClient, *extras: Mapping[str, Any], first: int = 0) -> None:
    client.send(WorkerRequest([JobRequest(n, "t", {}, dict(extra)) for n, extra in enumerate(extras, first)]))


def kinds(client: FakeClient) -> dict[Any, str]:
    return {job_id: output["error_kind"] for job_id, output in client.outputs}


def test_every_kind_of_id_is_a_key() -> None:
    ids = ["a", b"a", 1, 1.0, None, [1], {"a": 1}, cbor2.CBORTag(1, 1)]
    assert len({client_key(value) for value in ids}) == len(ids)


@pytest.mark.parametrize(
    ("timeout_ms", "seconds"),
    [(1500, 1.5), (0.5, 0.0005), (20_000, 20), (1e300, 25), (2**64 - 1, 25), (float("inf"), 25), (None, 10)],
)
async def test_a_job_may_have_a_timeout_of_its_own(
    autojump_clock: MockClock, timeout_ms: float | None, seconds: float
) -> None:
    """Shorter than the engine's or longer, but no longer than the engine allows."""
    async with open_fabric(job_timeout=10, max_job_timeout=25) as fabric:
        client = await extended_client(fabric)
        start = trio.current_time()
        submit(client, {"timeout_ms": timeout_ms})
        response = await client.receive_response()
        assert response.output == {"error": f"no answer within {seconds:g} s", "error_kind": "timeout"}
        assert trio.current_time() - start == pytest.approx(seconds, abs=1e-6)


async def test_the_usual_timeout_is_never_too_long(autojump_clock: MockClock) -> None:
    async with open_fabric(job_timeout=500) as fabric:
        client = await extended_client(fabric)
        start = trio.current_time()
        submit(client, {"timeout_ms": 400_000})
        await client.receive_response()
        assert trio.current_time() - start == pytest.approx(400)


@pytest.mark.parametrize(
    "value", [0, -1, -0.0, float("nan"), True, "5", b"6", [], {}, cbor2.CBORTag(2, b"\x05")]
)
@pytest.mark.parametrize("name", ["timeout_ms", "heartbeat_ms"])
async def test_what_is_no_duration_is_refused(autojump_clock: MockClock, name: str, value: Any) -> None:
    async with open_fabric() as fabric:
        client = await extended_client(fabric, "progress")
        worker = await extended_worker(fabric)
        submit(client, {name: value}, {name: 1000})
        response = await client.receive_response()
        assert response.client_job_id == 0
        assert response.output["error_kind"] == "invalid_job"
        assert response.output["error"] == f"{name}: expected a positive number of milliseconds"
        assert len(await worker.receive_batch()) == 1


@pytest.mark.parametrize("value", [None, cbor2.undefined])
async def test_null_and_undefined_ask_for_nothing(autojump_clock: MockClock, value: Any) -> None:
    async with open_fabric() as fabric:
        client = await extended_client(fabric, "progress")
        submit(client, {"timeout_ms": value, "heartbeat_ms": value})
        await trio.sleep(299)
        assert kinds(client) == {}
        await trio.sleep(1)
        await wait_until_idle()
        assert kinds(client) == {0: "timeout"}


async def test_both_fields_reach_the_worker(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client, worker = await extended_client(fabric, "progress"), await extended_worker(fabric)
        extra = {"timeout_ms": 1000, "heartbeat_ms": 500, "priority": 1}
        submit(client, extra)
        (job,) = await worker.receive_batch()
        assert job.extra == extra


async def test_to_others_they_are_fields_like_any_other(autojump_clock: MockClock) -> None:
    """A stock client may call its own fields as it likes."""
    async with open_fabric(job_timeout=10) as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        stock, plain = await fabric.fake_client(), await extended_client(fabric)
        submit(stock, {"timeout_ms": "soon", "heartbeat_ms": 1})
        await wait_until_idle()
        submit(plain, {"heartbeat_ms": "often"})
        assert (await worker.receive_batch())[0].extra == {"timeout_ms": "soon", "heartbeat_ms": 1}
        assert (await worker.receive_batch())[0].extra == {"heartbeat_ms": "often"}
        await trio.sleep(9)
        assert fabric.engine.statistics().open_jobs == 2


async def test_deadlines_hold_whatever_their_order(autojump_clock: MockClock) -> None:
    async with open_fabric(job_timeout=10, max_job_timeout=20) as fabric:
        client = await extended_client(fabric)
        submit(client, *({"timeout_ms": seconds * 1000} for seconds in (12, 3, 10, 7, 1, 20)), {})
        ends: dict[Any, float] = {}
        start = trio.current_time()
        for _ in range(7):
            response = await client.receive_response()
            ends[response.client_job_id] = round(trio.current_time() - start, 6)
        assert ends == {0: 12, 1: 3, 2: 10, 3: 7, 4: 1, 5: 20, 6: 10}


async def test_a_deadline_that_comes_first_wakes_the_engine(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client = await extended_client(fabric)
        submit(client, {})
        await trio.sleep(100)
        submit(client, {"timeout_ms": 5000}, first=1)
        await trio.sleep(5)
        await wait_until_idle()
        assert kinds(client) == {1: "timeout"}
