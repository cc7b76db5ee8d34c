"""A small engine that is right, to be made wrong.

It follows the spec and the rulings P-01 to P-53 in the plainest way that works: everything is a dictionary
or a deque, each decision a method of its own. `wire` has what is about frames, `files` what is about
resources, `dispatch` what becomes of jobs, `extensions` what is for those who ask; here is what peers say.
A faulty engine of the zoo overrides one of them, often in one line, and a class that inherits from several
faulty ones has all their faults.

Not here: flat jobs (P-04) and client tokens.
"""

from __future__ import annotations

import fnmatch
import hmac
import math
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cbor2

from orbtrio.conformance.zoo.dispatch import Client, Job, Worker
from orbtrio.conformance.zoo.extensions import ExtensionRules
from orbtrio.conformance.zoo.files import Resource, find_references
from orbtrio.conformance.zoo.wire import Connection, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DOCUMENTED_TYPES", "ModelEngine"]

DOCUMENTED_TYPES: Final = (
    "embedding",
    "llm",
    "vlm",
    "caption",
    "object_detection",
    "segmentation",
    "video_segmentation",
    "motion_energy",
    "fast_embedding",
    "llm_fast",
)
# Fields of a job's input that bind jobs to one worker, by worker type.
AFFINITY: Final = {"video_segmentation": "cross_job_id", "motion_energy": "media_id"}
OWN_FIELDS: Final = frozenset({"job_id", "worker_type", "input", "id"})


def given(value: Any) -> bool:
    """Whether a field is there: JavaScript's undefined is not."""
    return value is not None and value is not cbor2.undefined


class ModelEngine(ExtensionRules):
    """The model engine, a `Target`.

    Args:
        root: Resources are stored below it (``XDG_DATA_HOME``).
        secret: What workers must know.
        worker_types: Patterns of the recognised types.
        job_timeout: Seconds that a job may take altogether.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        secret: str = "conformance-secret",
        worker_types: Iterable[str] = DOCUMENTED_TYPES,
        job_timeout: float = 300.0,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.secret = secret
        self.worker_types = tuple(worker_types)
        self.job_timeout = job_timeout

    # --- messages -------------------------------------------------------------------------------------------

    def on_message(self, connection: Connection, message: dict[str, Any]) -> None:
        """Who may say what."""
        kind = message.get("type")
        if connection.role is None:
            self.on_first_message(connection, kind, message)
        elif kind in ("i_am_worker", "i_am_server"):
            self.on_second_registration(connection, message)
        elif kind == "worker_output" and isinstance(connection.role, Worker):
            self.on_output(connection.role, message)
        elif kind == "worker_request" and isinstance(connection.role, Client):
            self.on_worker_request(connection.role, message)
        elif kind in ("worker_output", "worker_request"):
            self.on_foreign_message(connection)
        else:
            self.on_extension_message(connection, kind, message)

    def on_first_message(self, connection: Connection, kind: Any, message: dict[str, Any]) -> None:
        """It decides what the peer is."""
        if kind == "i_am_worker":
            self.add_worker(connection, message)
        elif kind == "i_am_server":
            self.add_client(connection, message)
        elif kind == "worker_request":
            self.on_worker_request(self.add_client(connection, {}), message)
        else:
            self.on_unregistered(connection, message)

    def on_unregistered(self, connection: Connection, message: dict[str, Any]) -> None:
        """Something else came first."""
        raise Refused("not a registration")

    def on_second_registration(self, connection: Connection, message: dict[str, Any]) -> None:
        """It is something already."""
        raise Refused("registered twice")

    def on_foreign_message(self, connection: Connection) -> None:
        """A worker sent jobs, or a client results."""
        raise Refused("not a message of this role")

    # --- registration ---------------------------------------------------------------------------------------

    def add_worker(self, connection: Connection, message: dict[str, Any]) -> Worker:
        """Check everything, then give it work."""
        if not self.secret_is_right(message.get("worker_secret")):
            raise Refused("worker_secret is not right")
        config = message.get("worker_config")
        if type(config) is not dict:
            raise Refused("worker_config is not valid")
        worker_type = self.worker_type_of(config)
        if not self.recognises(worker_type):
            raise Refused("worker_type is not recognised, see WORKER_TYPES")
        worker = Worker(
            connection,
            worker_type,
            max_batch_size=self.batch_size_of(config),
            max_latency=self.latency_of(config),
            max_open_batches=self.number(config, "max_unanswered_batches", math.inf),
            max_batch_bytes=self.number(config, "max_message_bytes", 900 * 1024),
            eager=config.get("eager") is True,
            asked=self.asked_in(config.get("extensions")),
        )
        connection.role = worker
        self.workers.append(worker)
        self.feed(worker)
        return worker

    def feed(self, worker: Worker) -> None:
        """It gets what waited for one of its type."""
        for job in self.waiting.pop(worker.worker_type, ()):
            self.put(job, self.queue_for(job))
        self.send_due(worker)

    def secret_is_right(self, secret: Any) -> bool:
        """Compared without telling by the time that it takes how much of it is right."""
        return type(secret) is str and hmac.compare_digest(
            secret.encode("utf-8", "replace"), self.secret.encode()
        )

    def worker_type_of(self, config: dict[str, Any]) -> str:
        """Its type, a text."""
        worker_type = config.get("worker_type")
        if type(worker_type) is not str or not worker_type:
            raise Refused("worker_config is not valid")
        return worker_type

    def recognises(self, worker_type: str) -> bool:
        """Whether the engine knows this type of worker."""
        return any(fnmatch.fnmatchcase(worker_type, pattern) for pattern in self.worker_types)

    def batch_size_of(self, config: dict[str, Any]) -> int:
        """Jobs; 32 if it does not say."""
        return int(min(self.number(config, "max_batch_size", 32), self.max_queue))

    def latency_of(self, config: dict[str, Any]) -> float:
        """Seconds; 30 if it does not say."""
        # The documented time, even if a test has set a shorter one: latencies of stock workers stay valid.
        return self.number(config, "max_latency_ms", 30000, most=max(self.job_timeout, 300) * 1000) / 1000

    def number(self, config: dict[str, Any], name: str, default: float, most: float = math.inf) -> float:
        """A whole positive number. JavaScript sends some as floats."""
        value: Any = config.get(name)
        if not given(value):
            return default
        if not self.is_valid_number(value) or value > most:
            raise Refused("worker_config is not valid")
        return float(value)

    def is_valid_number(self, value: Any) -> bool:
        """Whole and positive."""
        return type(value) in (int, float) and 0 < value < math.inf and value == int(value)

    def add_client(self, connection: Connection, message: dict[str, Any]) -> Client:
        """Everybody may be a client, each is a tenant of its own."""
        client = Client(connection, uuid.uuid4().hex, asked=self.asked_in(message.get("extensions")))
        client.wants_errors = "engine_errors" in client.asked
        connection.role = client
        self.clients.append(client)
        return client

    # --- requests -------------------------------------------------------------------------------------------

    def on_worker_request(self, client: Client, message: dict[str, Any]) -> None:
        """All of it is right, or nothing of it is kept; single jobs may be skipped."""
        wires = message.get("jobs")
        if type(wires) is not list:
            raise Refused("request is not valid")
        resources = message.get("resources")
        found = self.parse_resources(resources) if given(resources) else {}
        self.check_references(found, {name for wire in wires for name in self.references_of(wire)})
        self.store(found, client.tenant)
        for wire in wires:
            self.take_job(client, wire, found)
        for resource in found.values():
            if not resource.users:
                self.delete(resource)
        self.send_all_due()

    def references_of(self, wire: Any) -> list[str]:
        """What a job's input refers to."""
        return find_references(wire.get("input")) if type(wire) is dict else []

    def take_job(self, client: Client, wire: Any, resources: dict[str, Resource]) -> None:
        """Queue it, or skip it."""
        problem = self.problem_of(client, wire)
        if problem is not None:
            self.on_invalid_job(client, wire, *problem)
            return
        job = self.make_job(client, wire, resources)
        queue = self.queue_for(job)
        if not self.has_room(queue):
            self.tell(client, job.client_id, "queue_full", "too many jobs are queued")
            return
        for resource in job.resources:
            resource.users += 1
        client.open[cbor2.dumps(job.client_id)] = self.jobs[job.id] = job
        job.timer = self.host.call_at(self.deadline_for(job), lambda: self.on_timeout(job))
        self.put(job, queue)
        self.on_queued(job)

    def on_queued(self, job: Job) -> None:
        """A request of thousands must not fill a queue that only has to be emptied."""
        if job.queue is not None and self.queue_is_full(job.queue):
            self.send_all_due()

    def problem_of(self, client: Client, wire: Any) -> tuple[str, str] | None:
        """Why a job cannot be done: its kind and a text."""
        if type(wire) is not dict or not given(wire.get("job_id")):
            return "invalid_job", "expected a map with a job_id"
        if type(wire.get("worker_type")) is not str or not wire["worker_type"]:
            return "invalid_job", "expected a worker_type"
        if given(wire.get("input")) and type(wire["input"]) is not dict:
            return "invalid_job", "expected a map as input"
        if cbor2.dumps(wire["job_id"]) in client.open:
            return "invalid_job", "a job with this job_id is open"
        if not self.recognises(wire["worker_type"]):
            return "unknown_worker_type", "this worker_type is not recognised"
        own = self.own_problem_of(client, wire)
        return None if own is None else ("invalid_job", own)

    def on_invalid_job(self, client: Client, wire: Any, kind: str, text: str) -> None:
        """Skipped; the others of the request run."""
        if type(wire) is dict and "job_id" in wire:
            self.tell(client, wire["job_id"], kind, text)

    def make_job(self, client: Client, wire: dict[str, Any], resources: dict[str, Resource]) -> Job:
        """A job, with paths for references."""
        job_input = wire["input"] if given(wire.get("input")) else {}
        used = {
            id(resources[name]): resources[name] for name in find_references(job_input) if name in resources
        }
        job_id = self.new_id(wire)
        out = self.wire_for(job_id, self.resolve(job_input, resources), wire)
        worker_type = wire["worker_type"]
        key = job_input.get(AFFINITY.get(worker_type))
        job = Job(
            job_id,
            wire["job_id"],
            client,
            worker_type,
            (worker_type, key) if type(key) in (str, int) else None,
            out,
            len(cbor2.dumps(out)),
            self.host.now(),
            list(used.values()),
        )
        self.set_times(job, client, wire)
        return job

    def new_id(self, wire: dict[str, Any]) -> str:
        """Unique, and nobody can guess it."""
        return uuid.uuid4().hex

    def wire_for(self, job_id: str, job_input: Any, wire: dict[str, Any]) -> dict[str, Any]:
        """What the worker is sent: additional fields pass, but never shadow ours."""
        extra = {name: value for name, value in wire.items() if name not in OWN_FIELDS}
        return {"id": job_id, "input": job_input, **extra}

    # --- the end --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Nothing stays open, and no file behind."""
        for job in list(self.jobs.values()):
            self.fail(job, "engine_stopped", "the engine stops")
        for connection in list(self.connections.values()):
            if connection.opened:
                self.refuse(connection, "engine stopped")
            connection.link.close()
