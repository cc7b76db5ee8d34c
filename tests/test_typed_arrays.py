"""Vectors from a worker's memory to a client's, through an engine: P-61 as people use it."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from orbtrio.client import Job
from orbtrio.protocol import codec
from orbtrio.testing import open_fabric
from tests.engine.extended import extended_client

if TYPE_CHECKING:
    from trio.testing import MockClock

VECTORS = np.linspace(-1, 1, 6 * 768, dtype=np.float32).reshape(6, 768)


def embed(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"embedding": VECTORS[one["n"]], "rows": VECTORS[:2, :3], "shape": [768]} for one in inputs]


async def test_vectors_arrive_as_arrays_lists_and_ordinary_cbor(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        await fabric.start_worker(embed, "embedding", batched=True)
        with_arrays = await fabric.connect(arrays=True)
        with_lists = await fabric.connect()
        stock = await extended_client(fabric)
        jobs = [Job("embedding", {"n": n}, tag=n) for n in range(6)]
        async for result in with_arrays.submit_many(jobs):
            embedding = result.output["embedding"]
            assert type(embedding) is array
            assert embedding.typecode == "f"
            assert np.array_equal(np.asarray(embedding), VECTORS[result.job.tag])
            assert result.output["rows"] == [array("f", VECTORS[row, :3]) for row in (0, 1)]
        stock.submit("embedding", {"n": 5})
        expected = {"embedding": VECTORS[5].tolist(), "rows": VECTORS[:2, :3].tolist(), "shape": [768]}
        output = (await stock.receive_response()).output
        assert {**output, "id": None} == {**expected, "id": None}
        assert b"\xd8\x55" not in stock.raw[-1]
        assert await with_lists.submit("embedding", {"n": 5}) == expected
        assert await fabric.engine.submit("embedding", {"n": 5}) == expected
        inside = await fabric.engine.submit("embedding", {"n": 5}, arrays=True)
        assert inside["embedding"] == array("f", VECTORS[5])


@pytest.mark.parametrize("arrays", [False, True])
async def test_vectors_among_progress_arrive_likewise(autojump_clock: MockClock, arrays: bool) -> None:
    vector = array("d", [0.25] * 20)

    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", eager=True, extensions=frozenset({"progress", "typed_arrays"}))
        client = await fabric.connect(arrays=arrays)
        async with client.stream("t", {}) as stream:
            (job,) = await worker.receive_batch()
            for field, kind in (("progress", "worker_progress"), ("output", "worker_output")):
                entry = {"id": job.job_id, "v": vector}
                worker.send(codec.encode_value({"type": kind, field: [entry]}, typed_arrays=True))
            pieces = [piece async for piece in stream]
        expected = {"v": vector if arrays else vector.tolist()}
        assert pieces == [expected]
        assert stream.output == expected
