"""The extensions, as the model engine has them: rules for those who asked, each again a method of its own.

Progress, cancelling, draining, files that travel with a batch, answers that travel together, a job's own
deadline, and typed arrays. A part of the model engine, between what becomes of jobs (`dispatch`) and what
peers say (`engine`).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import cbor2

from orbtrio.conformance.zoo.dispatch import Client, DispatchRules, Job, Worker
from orbtrio.conformance.zoo.wire import Connection, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orbtrio.conformance.zoo.files import Resource

__all__ = ["EXTENSIONS", "NUMBERS", "ExtensionRules", "tags_in"]

EXTENSIONS: Final = frozenset(
    {"batched_responses", "cancel", "drain", "engine_errors", "inline_resources", "progress", "typed_arrays"}
)
# By tag, how a number of a typed array lies in its bytes.
NUMBERS: Final = {81: ">f", 82: ">d", 85: "<f", 86: "<d"}
# Of a file in a batch, besides its bytes and its path: the entry's heads and names.
ENTRY_OVERHEAD: Final = 32


class ExtensionRules(DispatchRules):
    """What is only for those who asked for it."""

    max_job_timeout = 300.0

    # --- negotiation ----------------------------------------------------------------------------------------

    def announced(self) -> Iterable[str]:
        """What it understands."""
        return EXTENSIONS

    def headers(self) -> list[tuple[bytes, bytes]]:
        names = ", ".join(sorted(self.announced()))
        return [(b"orb-extensions", names.encode())] if names else []

    def asked_in(self, names: Any) -> frozenset[str]:
        """The extensions that a registration asks for."""
        if type(names) is not list:
            return frozenset()
        return EXTENSIONS & {name for name in names if type(name) is str}

    def on_extension_message(self, connection: Connection, kind: Any, message: dict[str, Any]) -> None:
        """Of a peer that is registered; unless it asked, later versions may know what it means."""
        role = connection.role
        if kind == "worker_progress" and self.may_use(role, Worker, "progress"):
            self.on_progress(role, message)
        elif kind == "worker_drain" and self.may_use(role, Worker, "drain"):
            self.on_drain(role)
        elif kind == "cancel_request" and self.may_use(role, Client, "cancel"):
            self.on_cancel_request(role, message)

    def may_use(self, role: Any, kind: type[Any], name: str) -> bool:
        """Whether it is of this kind and asked."""
        return isinstance(role, kind) and name in role.asked

    # --- progress -------------------------------------------------------------------------------------------

    def on_progress(self, worker: Worker, message: dict[str, Any]) -> None:
        """Each good entry is passed on."""
        entries = message.get("progress")
        if type(entries) is not list:
            raise Refused("output is not valid")
        for entry in entries:
            if type(entry) is dict and type(entry.get("id")) is str:
                self.on_report(worker, entry)

    def on_report(self, worker: Worker, entry: dict[str, Any]) -> None:
        """The owner's, of a job that is open."""
        job = self.job_of(entry)
        if job is not None and self.may_report(worker, job) and not self.is_broken(worker, entry):
            self.on_alive(job)
            if job.client is not None and self.wants_progress(job.client):
                entry = self.reported_to(job.client, worker, entry)
                self.send(job.client.connection, self.report_for(job, entry))

    def may_report(self, worker: Worker, job: Job) -> bool:
        """Only who has it."""
        return job.owner is worker

    def wants_progress(self, client: Client) -> bool:
        """Who did not ask hears nothing of it."""
        return "progress" in client.asked

    def report_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        """The message."""
        fields = {name: value for name, value in entry.items() if name != "id"}
        return {
            "type": "worker_progress",
            "job_id": job.client_id,
            "progress": fields,
            **self.attempt_of(job),
        }

    def attempt_of(self, job: Job) -> dict[str, Any]:
        """That a report is not of the job's first worker."""
        return {"attempt": job.deliveries} if job.deliveries > 1 else {}

    # --- heartbeats -----------------------------------------------------------------------------------------

    def hand_over(self, job: Job, worker: Worker) -> None:
        super().hand_over(job, worker)
        self.on_alive(job)

    def on_alive(self, job: Job) -> None:
        """From now on its heartbeat counts anew."""
        self.stop_heartbeat(job)
        if job.heartbeat is not None:
            when = self.host.now() + job.heartbeat
            job.heartbeat_timer = self.host.call_at(when, lambda: self.on_heartbeat_over(job))

    def stop_heartbeat(self, job: Job) -> None:
        """Nobody has to report on it now."""
        if job.heartbeat_timer is not None:
            job.heartbeat_timer.cancel()
            job.heartbeat_timer = None

    def on_heartbeat_over(self, job: Job) -> None:
        """Its worker has said nothing of it for too long."""
        self.end_in_hand(job, "heartbeat_timeout", "no progress for too long")

    def take_from_owner(self, job: Job) -> None:
        self.stop_heartbeat(job)
        super().take_from_owner(job)

    # --- a job's own deadline -------------------------------------------------------------------------------

    def own_problem_of(self, client: Client, wire: dict[str, Any]) -> str | None:
        """What is wrong with the times that a job asks for, if its client knows of them."""
        for name, wanted in (("timeout_ms", "engine_errors"), ("heartbeat_ms", "progress")):
            value = wire.get(name)
            given = wanted in client.asked and value is not None and value is not cbor2.undefined
            if given and not self.is_valid_time(value):
                return f"{name} must be a number above 0"
        return None

    def is_valid_time(self, value: Any) -> bool:
        """A positive number."""
        return type(value) in (int, float) and value > 0

    def set_times(self, job: Job, client: Client, wire: dict[str, Any]) -> None:
        """The times that a job asks for, if its client knows of them."""
        if "engine_errors" in client.asked and wire.get("timeout_ms"):
            job.own_timeout = min(wire["timeout_ms"] / 1000, self.longest_timeout())
        if "progress" in client.asked and wire.get("heartbeat_ms"):
            job.heartbeat = wire["heartbeat_ms"] / 1000

    def longest_timeout(self) -> float:
        """What a job may ask for."""
        return max(self.max_job_timeout, self.job_timeout)

    def deadline_for(self, job: Job) -> float:
        """One clock per job, from acceptance to its end."""
        return job.queued_at + (job.own_timeout or self.job_timeout)

    # --- cancelling -----------------------------------------------------------------------------------------

    def on_cancel_request(self, client: Client, message: dict[str, Any]) -> None:
        """Its open jobs of these names end."""
        names = message.get("job_ids")
        if type(names) is not list:
            raise Refused("request is not valid")
        for name in names:
            job = self.job_to_cancel(client, name)
            if job is not None:
                self.cancel(job)
        self.send_all_due()

    def job_to_cancel(self, client: Client, name: Any) -> Job | None:
        """Its own of that name, if that is open."""
        return client.open.get(cbor2.dumps(name))

    def cancel(self, job: Job) -> None:
        """Nobody wants it any more."""
        self.fail(job, "cancelled", "cancelled by the client")

    def end_in_hand(self, job: Job, kind: str, text: str) -> None:
        """The engine ends a job that a worker has: that may get another batch now."""
        owner = job.owner
        self.fail(job, kind, text)
        if owner is not None:
            self.send_due(owner)

    def fail(self, job: Job, kind: str, text: str) -> None:
        owner = job.owner
        if owner is not None and "cancel" in owner.asked:
            self.keep_entry(job, owner)
        super().fail(job, kind, text)
        if owner is not None:
            self.recall(job, owner, kind)

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        """Its worker need not go on."""
        if "cancel" in worker.asked:
            self.send(worker.connection, {"type": "cancel_jobs", "ids": [job.id]})

    def keep_entry(self, job: Job, worker: Worker) -> None:
        """It will still answer, and until then the batch is not."""
        worker.recalled.add(job.id)
        self.host.call_at(self.host.now() + self.job_timeout, lambda: self.on_no_answer(worker, job.id))

    def close_entry(self, worker: Worker, job_id: str) -> None:
        if job_id not in worker.recalled:
            super().close_entry(worker, job_id)

    def on_no_answer(self, worker: Worker, job_id: str) -> None:
        """It has not answered in the time of a whole job: it is not waited for any longer."""
        self.on_recalled(worker, job_id)
        if worker in self.workers:
            self.send_due(worker)
            self.on_answered(worker)

    def on_recalled(self, worker: Worker, job_id: str) -> None:
        """It has answered what it was told to stop, or never will."""
        if job_id in worker.recalled:
            worker.recalled.discard(job_id)
            self.close_entry(worker, job_id)

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        if self.is_broken(worker, entry):
            return
        self.on_recalled(worker, entry["id"])
        job = self.job_of(entry)
        client = job.client if job is not None else None
        super().on_result(worker, entry if client is None else self.entry_to(client, worker, entry))

    def abandon(self, job: Job) -> None:
        owner = job.owner
        super().abandon(job)
        if owner is not None:
            self.recall(job, owner, "client gone")

    # --- draining -------------------------------------------------------------------------------------------

    def on_drain(self, worker: Worker) -> None:
        """It wants to go: nothing new for it, and what it has not been sent is for others."""
        worker.draining = True
        self.release_keys(worker)
        jobs = list(worker.queue)
        worker.queue.clear()
        self.requeue(jobs)
        self.on_answered(worker)

    def release_keys(self, worker: Worker) -> None:
        """Whose jobs it had may go elsewhere."""
        self.bound = {key: other for key, other in self.bound.items() if other is not worker}

    def candidates(self, job: Job) -> list[Worker]:
        return [worker for worker in super().candidates(job) if not worker.draining]

    def on_output(self, worker: Worker, message: dict[str, Any]) -> None:
        super().on_output(worker, message)
        for client in list(self.clients):
            self.flush(client)
        self.on_answered(worker)

    def on_answered(self, worker: Worker) -> None:
        """Who wants to go, goes when it has answered everything."""
        if worker.draining and self.is_idle(worker):
            self.refuse(worker.connection, "drained")

    def is_idle(self, worker: Worker) -> bool:
        """Nothing is in flight."""
        return not worker.batches

    # --- files that travel with a batch ---------------------------------------------------------------------

    def beside(self, worker: Worker, jobs: list[Job]) -> dict[str, Any]:
        if "inline_resources" not in worker.asked:
            return {}
        return {"resources": [self.entry_for(resource) for resource in self.files_of(jobs)]}

    def entry_for(self, resource: Resource) -> dict[str, Any]:
        """A file, as it travels."""
        return {"path": self.path_for(resource), "data": self.content(resource)}

    def files_of(self, jobs: list[Job]) -> list[Resource]:
        """Each once."""
        return list({id(resource): resource for job in jobs for resource in job.resources}.values())

    def size_for(self, worker: Worker, job: Job, others: list[Job]) -> int:
        size = super().size_for(worker, job, others)
        if "inline_resources" not in worker.asked:
            return size
        there = {id(resource) for resource in self.files_of(others)}
        return size + sum(
            len(self.content(resource)) + len(str(resource.path)) + ENTRY_OVERHEAD
            for resource in job.resources
            if id(resource) not in there
        )

    # --- answers that travel together -----------------------------------------------------------------------

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        if self.wants_batches(client):
            client.unsent.append(self.response_for(job, entry))
        else:
            super().answer(client, job, entry)

    def wants_batches(self, client: Client) -> bool:
        """Who did not ask gets each answer in a message of its own."""
        return "batched_responses" in client.asked

    def flush(self, client: Client) -> None:
        """Send what has come together."""
        responses, client.unsent = client.unsent, []
        if len(responses) == 1:
            self.send(client.connection, responses[0])
        elif responses:
            self.send(client.connection, self.together(responses))

    def together(self, responses: list[dict[str, Any]]) -> dict[str, Any]:
        """The message."""
        parts = [{"job_id": response["job_id"], "output": response["output"]} for response in responses]
        return {"type": "worker_responses", "responses": parts}

    # --- typed arrays ---------------------------------------------------------------------------------------

    def makes_arrays(self, worker: Worker) -> bool:
        """Whether its tags are typed arrays; of others they are tags like any other."""
        return "typed_arrays" in worker.asked

    def takes_arrays(self, client: Client) -> bool:
        """Who did not ask gets lists."""
        return "typed_arrays" in client.asked

    def is_broken(self, worker: Worker, entry: dict[str, Any]) -> bool:
        """Whether an entry has a typed array that is none: it does not count."""
        return self.makes_arrays(worker) and any(not self.is_whole(tag) for tag in tags_in(entry))

    def is_whole(self, tag: cbor2.CBORTag) -> bool:
        """Bytes of whole numbers."""
        return type(tag.value) is bytes and not len(tag.value) % struct.calcsize(NUMBERS[tag.tag])

    def entry_to(self, client: Client, worker: Worker, entry: dict[str, Any]) -> dict[str, Any]:
        """An entry as its client is to get it."""
        if not self.makes_arrays(worker) or self.takes_arrays(client):
            return entry
        lists: dict[str, Any] = self.with_lists(entry)
        return lists

    def reported_to(self, client: Client, worker: Worker, entry: dict[str, Any]) -> dict[str, Any]:
        """Likewise, of progress."""
        return self.entry_to(client, worker, entry)

    def with_lists(self, value: Any) -> Any:
        """Lists in place of typed arrays, at any depth."""
        if isinstance(value, dict):
            return {name: self.with_lists(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self.with_lists(member) for member in value]
        if not isinstance(value, cbor2.CBORTag):
            return value
        if value.tag in NUMBERS:
            return self.numbers_in(value)
        return cbor2.CBORTag(value.tag, self.with_lists(value.value))

    def numbers_in(self, tag: cbor2.CBORTag) -> list[float]:
        """The numbers of a typed array."""
        return [number for (number,) in struct.iter_unpack(NUMBERS[tag.tag], tag.value)]


def tags_in(value: Any) -> Iterator[cbor2.CBORTag]:
    """The typed arrays in a value, whole or not."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for member in value:
            yield from tags_in(member)
    elif isinstance(value, cbor2.CBORTag):
        if value.tag in NUMBERS:
            yield value
        yield from tags_in(value.value)
