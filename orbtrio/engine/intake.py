"""The door: which jobs of a request are accepted, and what is written down of each.

Whatever a client may send comes through here, and what cannot be run is refused here, job by job, with a kind
and a text (P-31). All of it is synchronous but for writing resources, so a request is accepted whole between
two checkpoints (P-20).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from orbtrio.engine.jobs import Job
from orbtrio.engine.resources import StoreError
from orbtrio.engine.watches import Watch
from orbtrio.protocol import codec, references, splice

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

    from orbtrio.engine.config import Config
    from orbtrio.engine.dispatch import Dispatcher, Pool
    from orbtrio.engine.jobs import JobTable, Requester
    from orbtrio.engine.resources import HeldFile, ResourceStore
    from orbtrio.protocol.messages import JobRequest, WorkerRequest

__all__ = ["Counters", "Intake", "client_key"]

# A client's id is kept while its job is open, and what is not text twice.
_MAX_JOB_ID_BYTES: Final = 1024

# A text of fewer characters cannot have too many bytes.
_LONG_JOB_ID: Final = 200

# Affinity keys are kept as long as their worker lives; longer ones are kept as digests.
_MAX_KEY_LENGTH: Final = 64

_NO_FILES: Final[Mapping[str, HeldFile]] = {}

# Beyond this, durations of any kind mean the same.
_FOREVER_MS: Final = 1e15


@attrs.define
class Counters:
    """What has happened since the engine started; see `statistics.EngineStatistics`."""

    accepted: int = 0
    answered: int = 0
    abandoned: int = 0
    redelivered: int = 0
    outputs_dropped: int = 0
    progress: int = 0
    cancels_sent: int = 0
    ended: dict[str, int] = attrs.Factory(dict)
    refused: dict[str, int] = attrs.Factory(dict)


def client_key(client_job_id: Any) -> Hashable:
    """A client's id of a job as a dictionary key."""
    return client_job_id if type(client_job_id) is str else codec.response_head(client_job_id)


class Intake:
    """Accepts jobs into a table and hands them to the dispatcher.

    Attributes:
        closed: Whether the engine is stopping.
    """

    def __init__(
        self,
        config: Config,
        store: ResourceStore,
        table: JobTable,
        dispatcher: Dispatcher,
        counters: Counters,
        recognises: Callable[[str], bool],
    ) -> None:
        self.closed = False
        self._config = config
        self._store = store
        self._table = table
        self._dispatcher = dispatcher
        self._counters = counters
        self._recognises = recognises
        # Unguessable across restarts: a worker of an earlier engine cannot hit a job of this one by accident.
        self._id_prefix = secrets.token_hex(8) + "-"
        self._next_number = itertools.count(1).__next__

    async def accept(self, requester: Requester, tenant: str, request: WorkerRequest) -> None:
        """Accept the jobs of a request, and refuse those that cannot be.

        Waits only while resources are written; cancelled there, nothing is accepted and nothing kept.

        Spec: "Full Request/Response Cycle", steps 2 to 4.
        """
        for invalid in request.invalid:
            self._refuse(requester, invalid.client_job_id, "invalid_job", invalid.reason)
        if not request.resources or self.closed:
            self.accept_jobs(requester, request.jobs)
            return
        try:
            files = await self._store.hold(tenant, request.resources)
        except StoreError as error:
            for job in request.jobs:
                self._refuse(requester, job.client_job_id, self._store_trouble(), str(error))
            return
        try:
            self.accept_jobs(requester, request.jobs, files)
        finally:
            self.release(files.values())

    def release(self, files: Collection[HeldFile]) -> None:
        """A job that named these files has ended."""
        for file in files:
            self._store.release(file)

    def accept_jobs(
        self,
        requester: Requester,
        requests: list[JobRequest],
        files: Mapping[str, HeldFile] = _NO_FILES,
    ) -> None:
        """Accept jobs whose resources are written; of one request, or of several without resources."""
        now = trio.current_time()
        deadline = now + self._config.job_timeout
        max_open_bytes = self._config.max_open_bytes
        table, closed = self._table, self.closed
        next_number, id_prefix = self._next_number, self._id_prefix
        open_jobs = requester.open_jobs
        jobs: list[Job] = []
        worker_type, pool = None, None
        for request in requests:
            client_job_id = request.client_job_id
            key: Hashable
            if type(client_job_id) is str:
                key = client_job_id
                too_long = len(key) > _LONG_JOB_ID and len(codec.response_head(key)) > _MAX_JOB_ID_BYTES
            else:
                key = codec.response_head(client_job_id)
                too_long = len(key) > _MAX_JOB_ID_BYTES
            if request.worker_type != worker_type:
                worker_type = request.worker_type
                pool = self._dispatcher.pool(worker_type)
            affinity = None
            if pool is not None and pool.affinity_field is not None:
                affinity = _affinity(request.input.get(pool.affinity_field))
            watch = None
            if request.extra is not None and requester.extensions:
                try:
                    watch = self._watch(request.extra, requester.extensions, now)
                except ValueError as error:
                    self._refuse(requester, client_job_id, "invalid_job", str(error))
                    continue
            if (
                pool is None
                or key in open_jobs
                or closed
                or too_long
                or table.size_bytes >= max_open_bytes
                or not pool.has_room(affinity)
            ):
                reason = self._why_not(
                    request.worker_type, pool, too_long=too_long, duplicate=key in open_jobs
                )
                self._refuse(requester, client_job_id, *reason)
                continue
            job_files: tuple[HeldFile, ...] = ()
            job_input: dict[str, Any] = request.input
            if request.references:
                job_files = tuple(files[name] for name in request.references)
                job_input = references.replace(
                    job_input, {name: files[name].path for name in request.references}
                )
            number = next_number()
            job_id = id_prefix + str(number)
            if pool.flat:
                wire = codec.encode_flat_job(job_id, job_input, request.extra, time.time() * 1000)
            elif request.encoded is not None:
                wire = splice.batch_job(job_id.encode(), request.encoded)
            else:
                wire = codec.encode_job(job_id, job_input, request.extra)
            for file in job_files:
                self._store.retain(file)
            pool.enter()
            # In order, for names would cost half a microsecond: a twentieth of all the work for a job.
            job = Job(
                job_id,
                client_job_id,
                key,
                requester,
                request.worker_type,
                affinity,
                wire,
                now,
                deadline,
                job_files,
                pool,
            )
            if watch is not None:
                watch.job_id, watch.number = job_id, number
                job.watch, job.deadline = watch, watch.deadline
            table.accept(job)
            jobs.append(job)
        if jobs:
            self._counters.accepted += len(jobs)
            self._dispatcher.submit(jobs)

    # What a job asks for itself: its deadline, and for how long its worker may be silent; None for what is
    # usual. To a client that asked for neither extension the two names are fields like any other.
    def _watch(self, extra: Mapping[str, Any], extensions: frozenset[str], now: float) -> Watch | None:
        usual = self._config.job_timeout
        timeout = heartbeat = None
        if "engine_errors" in extensions:
            timeout = _seconds(extra, "timeout_ms")
        if "progress" in extensions:
            heartbeat = _seconds(extra, "heartbeat_ms")
        timeout = usual if timeout is None else min(timeout, max(usual, self._config.max_job_timeout))
        if timeout == usual and heartbeat is None:
            return None
        return Watch("", 0, now + timeout, math.inf if heartbeat is None else heartbeat)

    # The store is full or broken, or gone because the engine stops.
    def _store_trouble(self) -> str:
        return "engine_stopped" if self.closed else "queue_full"

    # Why a job is not accepted: kind and text of P-31.
    def _why_not(
        self, worker_type: str, pool: Pool | None, *, too_long: bool, duplicate: bool
    ) -> tuple[str, str]:
        if self.closed:
            return "engine_stopped", "the engine is stopping"
        if too_long:
            return "invalid_job", f"job_id is longer than {_MAX_JOB_ID_BYTES} bytes"
        if duplicate:
            return "invalid_job", "job_id is that of a job which is still open; use a new one"
        name = worker_type[:60]
        if pool is not None and self._table.size_bytes < self._config.max_open_bytes:
            waiting = f"{pool.jobs_queued} jobs wait for {len(pool.workers)} workers of type {name!r}"
            return "queue_full", f"{waiting}; submit later or add workers"
        if pool is not None:
            return "queue_full", "open jobs take all the memory that ORB_MAX_OPEN_BYTES allows; submit later"
        if self._recognises(worker_type):
            return "queue_full", f"jobs wait for too many types without workers to take in {name!r}"
        return "unknown_worker_type", f"{name!r} is not recognised; the engine's WORKER_TYPES lists what is"

    def _refuse(self, requester: Requester, client_job_id: Any, kind: str, text: str) -> None:
        self._counters.refused[kind] = self._counters.refused.get(kind, 0) + 1
        requester.refuse(client_job_id, kind, text)


# A duration in milliseconds, in seconds; None if it is absent.
def _seconds(extra: Mapping[str, Any], name: str) -> float | None:
    value: Any = extra.get(name)
    if codec.is_absent(value):
        return None
    if type(value) not in (int, float) or not value > 0:
        raise ValueError(f"{name}: expected a positive number of milliseconds")
    return min(float(value), _FOREVER_MS) / 1000


# Numbers and byte strings name a stream as well as text does; whatever else stands there is no name. P-12.
def _affinity(value: Any) -> str | None:
    if type(value) is str:
        if len(value) <= _MAX_KEY_LENGTH:
            return value
        value = value.encode()
    if type(value) is bytes:
        return hashlib.blake2b(value, digest_size=16).hexdigest()
    return repr(value) if type(value) in (int, float, bool) else None
