"""The whole fabric in one process and in no time: for tests of handlers, and of programs that submit jobs.

The engine, the client and the workers are the real ones; the wires between them are memory. Run under Trio's
`MockClock` (pytest-trio has it as the fixture ``autojump_clock``), a test of the five-minute timeout takes
milliseconds. A file of tests, complete:

```python
import pytest
import trio

from orbtrio.errors import JobFailed, JobTimedOut
from orbtrio.testing import open_fabric


def count_words(job):  # your handler
    if not job["text"]:
        raise ValueError("an empty text has no words")
    return {"words": len(job["text"].split())}


async def test_counts_words(autojump_clock):
    async with open_fabric() as fabric:
        await fabric.start_worker(count_words, "words")
        client = await fabric.connect()
        assert await client.submit("words", {"text": "to be or not"}) == {"words": 4}
        with pytest.raises(JobFailed, match="an empty text has no words"):
            await client.submit("words", {"text": ""})


async def test_job_of_a_lost_worker_is_done_by_another(autojump_clock):
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        client = await fabric.connect()
        doomed = await fabric.fake_worker("words")
        nursery.start_soon(client.submit, "words", {"text": "to be"})
        assert [job.input for job in await doomed.receive_batch()] == [{"text": "to be"}]
        await fabric.start_worker(count_words, "words")
        doomed.link.cut()


async def test_gives_up_after_five_minutes(autojump_clock):
    async with open_fabric() as fabric:
        client = await fabric.connect()
        with pytest.raises(JobTimedOut):
            await client.submit("words", {"text": "nobody serves this type"})
        assert trio.current_time() >= 300
```

| you have | you want | take |
|---|---|---|
| a handler | to call it as the engine would | `Fabric.start_worker` |
| a program that submits jobs | workers that fail, are slow or die | `Fabric.connect`, `Fabric.fake_worker` |
| settings for an engine | peers that do what no good peer does | `fake_worker`, `fake_client`, `fake_peer` |
| a worker or client of your own | an engine to hold it against | `Fabric.open_stream` |
| the same | an engine that does what no good engine does | `open_fake_engine` |
| any connection | it cut, slow or stuck | its `Link` |

**Virtual time.** A sync handler runs in a thread here as it does in production, and virtual time stands
still while any thread works: however long the handler computes, no timeout strikes. So a handler that takes
a minute of virtual time is an async one with `trio.sleep`, and a thread must not wait for anything that
time would bring. With a `MockClock` that does not jump by itself, move it on and call `wait_until_idle`.
"""

from __future__ import annotations

from orbtrio.testing.clock import wait_until_idle
from orbtrio.testing.fabric import Fabric, RunningWorker, open_fabric
from orbtrio.testing.fake_engine import EngineEnd, FakeEngine, open_fake_engine
from orbtrio.testing.links import Direction, Link
from orbtrio.testing.peers import FakeClient, FakeWorker, Outcome, ScriptedPeer

__all__ = [
    "Direction",
    "EngineEnd",
    "Fabric",
    "FakeClient",
    "FakeEngine",
    "FakeWorker",
    "Link",
    "Outcome",
    "RunningWorker",
    "ScriptedPeer",
    "open_fabric",
    "open_fake_engine",
    "wait_until_idle",
]
