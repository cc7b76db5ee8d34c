"""The client: submit jobs to an engine over one connection that heals itself.

    async with orbtrio.connect("ws://localhost:5000/ws") as client:
        output = await client.submit("embedding", {"text": "hello"})
        async for result in client.submit_many(jobs):
            ...
        async for piece in client.stream("llm", {"messages": messages}):
            ...

Three tasks serve any number of jobs, all in the nursery of `connect`:

    submit ---ticket---> Outbox ---requests---> Link's writer ----> engine
      ^                    |                                           |
      +--pieces, outcome---+----answers---- Link's reader <------------+
                           +----deadlines-- Client's clock

| module | what it hides |
|---|---|
| `tickets` | how a job is told to an engine that knows less than we do |
| `outbox` | what waits, what the engine has, which job it will not take; pure, time is an argument |
| `link` | that connections end, why they do, and what follows |
| `many` | a source that is slow, a consumer that is slow, and a loop that is left early |
| `stream` | that a ticket may have an owner who reads in pieces; for them see `orbtrio.streams` |
| `client` | how an input becomes a ticket, and a ticket an output or an exception |

What is submitted in the same turn of the event loop is packed into one request, because the writer runs after
the tasks that woke it; a lone job leaves without delay all the same. Tables change in plain functions, where
nothing can be cancelled half way.

A lost connection is nobody's business but ours: it is opened again, and what was not answered is sent again
under the same id. Deadlines count from the submit. Whether such a job is run twice is up to the engine; that
it is *answered* twice is impossible, for its id leaves the table with the first answer.

Engines differ. All are asked for the same extensions, and what an engine answered to that is known before the
first job leaves (`Transport.announced`): one that announced nothing is sent what the spec knows, no field and
no message more. One that announced ``cancel`` is told of every job that it has and nobody waits for any more,
whether its caller was cancelled, its deadline has passed, or its loop was left: all of a turn in one message.

Rejected: a task per job (60 us and 3.6 kB each); a channel between submit and writer (the table is needed
anyway, and a channel cannot forget a cancelled job); failing jobs when the connection is lost (every caller
would write the same loop around `submit`).
"""

from __future__ import annotations

from orbtrio.client.client import Client, ClientStatistics, connect
from orbtrio.client.link import ClientLimits
from orbtrio.client.many import Job, JobResult, JobResults
from orbtrio.streams import JobStream

__all__ = [
    "Client",
    "ClientLimits",
    "ClientStatistics",
    "Job",
    "JobResult",
    "JobResults",
    "JobStream",
    "connect",
]
