"""orbtrio: a worker fabric on Trio that feeds model workers in batches, over the ORB Worker Protocol.

Follow one job through the code:

| | where | what comes out |
|---|---|---|
| 1 | `transport.Transport.receive` | bytes of whole messages |
| 2 | `protocol.codec.decode` | `WorkerRequest`, valid by construction |
| 3 | `protocol.connection.Connection.receive` | the same, legal in this state |
| 4 | `engine.sessions.Sessions` | a client's request, handed on |
| 5 | `engine.resources.ResourceStore.hold` | resources as files, with claims |
| 6 | `engine.intake.Intake.accept` | `Job`s, QUEUED, in their encoded wire form, deadline running |
| 7 | `engine.dispatch.Dispatcher` | dealt to the queue of one worker |
| 8 | `engine.queues.WorkerQueue.send_due` | jobs IN_FLIGHT, a batch for one worker |
| 9 | `transport.Flusher.flush` | bytes to the worker |
| 10 | `worker.run_worker` | handler(inputs) -> outputs, as bytes back |
| 11 | `engine.exchange.Exchange.answer`, `engine.jobs.JobTable.answer` | SETTLED; handed back, once |
| 12 | `engine.clients.RemoteClient.deliver` | the response as bytes, joined with its neighbours |
| 13 | `client.Client.submit` | the output, or an exception |

What a worker tells of a job before it is done (`worker.Job.report`) goes the same way, from 10 to 13, through
`engine.exchange.Exchange.report`, and comes out of `client.Client.stream` piece by piece:

    async with orbtrio.connect("ws://localhost:5000/ws") as client:
        messages = [{"role": "user", "content": "Why is the sky blue?"}]
        async with client.stream("llm", {"messages": messages}) as stream:
            async for piece in stream:
                print(piece["text"], end="", flush=True)
        print(stream.output["response"])

That nobody waits for a job any more goes down, from 13 (`client.outbox.Outbox.forget`) through
`engine.exchange.Exchange.cancel` to 10 (`worker.Job.cancelled`), wherever the job is by then. Both take an
engine and a worker that know how; what each knows, they tell each other when they connect
(`Transport.announced`, `Connection.extensions`).
"""

from __future__ import annotations

from orbtrio._polling import busy_polling
from orbtrio.client import Client, ClientLimits, ClientStatistics, Job, JobResult, JobStream, connect
from orbtrio.engine.config import Config
from orbtrio.engine.server import Engine, open_engine
from orbtrio.engine.statistics import EngineStatistics
from orbtrio.errors import (
    ConfigError,
    ConnectionLost,
    InvalidMessage,
    JobError,
    JobFailed,
    JobRefused,
    JobTimedOut,
    OrbError,
    ProtocolError,
    ResourceRejected,
)
from orbtrio.inputs import Document, Image
from orbtrio.worker import JobCancelled, WorkerSettings, run_program, run_worker

__all__ = [
    "Client",
    "ClientLimits",
    "ClientStatistics",
    "Config",
    "ConfigError",
    "ConnectionLost",
    "Document",
    "Engine",
    "EngineStatistics",
    "Image",
    "InvalidMessage",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobRefused",
    "JobResult",
    "JobStream",
    "JobTimedOut",
    "OrbError",
    "ProtocolError",
    "ResourceRejected",
    "WorkerSettings",
    "busy_polling",
    "connect",
    "open_engine",
    "run_program",
    "run_worker",
]
