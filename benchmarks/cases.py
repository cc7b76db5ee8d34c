"""What is measured, and what is sent for it.

Every job is recognisable: its id and its input hold its number, and so does the right answer, so that two
results that changed places are found. The workers only echo; what a model costs is no business of the
engine.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import cbor2

from benchmarks import wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BYSTANDER_TYPE", "CASES", "QUICK", "Case", "Work", "job_name", "request"]

# Two of the types that every engine recognises without being told.
WORKER_TYPE: Final = "embedding"
BYSTANDER_TYPE: Final = "llm"


class Work(Protocol):
    """What jobs ask for, and what workers answer."""

    def resources(self, number: int) -> list[dict[str, Any]]:
        """The resources that the request of this job brings along."""

    def input(self, number: int) -> dict[str, Any]:
        """The input of this job."""

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        """The worker's answer, encoded."""

    def expected(self, number: int) -> dict[str, Any]:
        """The fields of the right answer, ``id`` left out."""


@attrs.frozen
class Echo:
    """Text of `size` bytes, there and back."""

    size: int

    def resources(self, number: int) -> list[dict[str, Any]]:
        return []

    def input(self, number: int) -> dict[str, Any]:
        return {"text": _text(number, self.size)}

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        return cbor2.dumps({"id": job_id, "text": input["text"]})

    def expected(self, number: int) -> dict[str, Any]:
        return self.input(number)


@attrs.frozen
class Vector:
    """A hundred bytes of text there, 768 floats back, as embedding workers send them."""

    _vectors: tuple[list[float], ...] = attrs.field(init=False)
    _encoded: tuple[bytes, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # A prime number of them, so that neighbours in a batch differ.
        chance = random.Random(768)
        vectors = tuple([chance.gauss(0, 0.05) for _ in range(768)] for _ in range(61))
        object.__setattr__(self, "_vectors", vectors)
        object.__setattr__(self, "_encoded", tuple(cbor2.dumps(vector) for vector in vectors))

    def resources(self, number: int) -> list[dict[str, Any]]:
        return []

    def input(self, number: int) -> dict[str, Any]:
        return {"text": _text(number, 100)}

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        number = int(input["text"].partition(" ")[0])
        encoded = self._encoded[number % len(self._encoded)]
        # Encoding a vector takes longer than all that the engine does with it.
        return b"\xa3\x62id%b\x69embedding%b\x65shape\x81\x19\x03\x00" % (cbor2.dumps(job_id), encoded)

    def expected(self, number: int) -> dict[str, Any]:
        return {"embedding": self._vectors[number % len(self._vectors)], "shape": [768]}


@attrs.frozen
class Image:
    """An image of `size` bytes per job, as a resource; back comes what the worker found in the file."""

    size: int
    _noise: bytes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_noise", os.urandom(self.size))

    def resources(self, number: int) -> list[dict[str, Any]]:
        head = b"\x89PNG\r\n\x1a\n" + number.to_bytes(8, "big")
        return [{"id": f"frame-{number}", "type": "image", "data": head + self._noise[len(head) :]}]

    def input(self, number: int) -> dict[str, Any]:
        return {"filepath": {"__type": "resource-ref", "id": f"frame-{number}"}}

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        path = Path(input["filepath"])
        with path.open("rb") as file:
            number = int.from_bytes(file.read(16)[8:], "big")
        return cbor2.dumps({"id": job_id, "number": number, "size": path.stat().st_size})

    def expected(self, number: int) -> dict[str, Any]:
        return {"number": number, "size": self.size}


@attrs.frozen(kw_only=True)
class Case:
    """One line of a table.

    Attributes:
        name: What ``--cases`` calls it.
        work: What the jobs are.
        jobs: How many per round.
        jobs_per_request: Jobs in one message of a client.
        clients: Connections that submit jobs.
        outstanding: Jobs of each client that are unanswered at any time, unless paced.
        workers: Connections that answer them.
        bystanders: Connections of workers of another type, which have nothing to do.
        max_batch_size: As the workers register.
        max_latency_ms: Likewise.
        eager: Likewise; a stock worker says nothing of it.
        jobs_per_second: Submit by the clock instead, whether answers come or not.
        pings: What is timed is pings that answer while the load runs, not jobs: how long the engine's loop
            lets anybody wait.
        latency: It belongs into the table of latencies, not into that of costs.
        baseline: The baseline's share of the jobs, since it takes ten times as long over them; 0 if it
            cannot do this.
    """

    name: str
    work: Work = Echo(100)
    jobs: int
    jobs_per_request: int = 1
    clients: int = 8
    outstanding: int = 64
    workers: int = 2
    bystanders: int = 0
    max_batch_size: int = 32
    max_latency_ms: float = 10
    eager: bool = False
    jobs_per_second: float | None = None
    pings: bool = False
    latency: bool = False
    baseline: float = 0.25

    @property
    def worker_config(self) -> dict[str, Any]:
        """How each worker introduces itself: a stock one unless it is eager."""
        config = {
            "worker_type": WORKER_TYPE,
            "max_batch_size": self.max_batch_size,
            "max_latency_ms": self.max_latency_ms,
        }
        return {**config, "eager": True} if self.eager else config

    def requests(self, jobs: int) -> list[tuple[range, bytes]]:
        """The job numbers and the frame of each request, `jobs` jobs in all."""
        size = self.jobs_per_request
        batches = [range(first, first + size) for first in range(0, jobs, size)]
        return [(numbers, wire.frame(cbor2.dumps(request(self.work, numbers)))) for numbers in batches]


def job_name(number: int) -> str:
    """The client's id of a job."""
    return f"job-{number:08}"


def request(work: Work, numbers: Sequence[int]) -> dict[str, Any]:
    """A ``worker_request`` with these jobs."""
    resources = [resource for number in numbers for resource in work.resources(number)]
    jobs = [
        {"job_id": job_name(number), "worker_type": WORKER_TYPE, "input": work.input(number)}
        for number in numbers
    ]
    message: dict[str, Any] = {"type": "worker_request"}
    return {**message, "resources": resources, "jobs": jobs} if resources else {**message, "jobs": jobs}


def _text(number: int, size: int) -> str:
    return (f"{number:08} " * (size // 9 + 1))[:size]


def _costs() -> list[Case]:
    cases = []
    for title, work, jobs in (("100B", Echo(100), 19_200), ("10KB", Echo(10_000), 4_800)):
        for jobs_per_request in (1, 8, 32):
            for max_batch_size in (1, 32):
                cases.append(
                    Case(
                        name=f"{title}-req{jobs_per_request}-batch{max_batch_size}",
                        work=work,
                        jobs=jobs,
                        jobs_per_request=jobs_per_request,
                        max_batch_size=max_batch_size,
                    )
                )
    vectors = Case(name="768floats-req32-batch32", work=Vector(), jobs=4_800, jobs_per_request=32)
    images = Case(name="1MB-image", work=Image(1 << 20), jobs=96, outstanding=2, baseline=0)
    crowd = Case(name="100B-req32-1000idle", jobs=19_200, jobs_per_request=32, bystanders=1000, baseline=0)
    return [*cases, vectors, images, crowd]


def _latencies() -> list[Case]:
    lone = Case(name="lone-eager", jobs=1_000, clients=1, outstanding=1, workers=1, eager=True, latency=True)
    paced = attrs.evolve(lone, name="paced-100/s", eager=False, max_latency_ms=20, jobs_per_second=100)
    loaded = Case(name="ping-under-load", jobs=76_800, jobs_per_request=32, pings=True, latency=True)
    return [
        attrs.evolve(paced, jobs=300, baseline=1),
        attrs.evolve(lone, baseline=0),
        attrs.evolve(lone, name="lone-batch1", eager=False, max_batch_size=1),
        loaded,
    ]


CASES: Final = (*_costs(), *_latencies())

# For CI: the figures of most users, and whatever a careless change would spoil first.
QUICK: Final = frozenset(
    {
        "100B-req1-batch32",
        "100B-req32-batch32",
        "10KB-req8-batch32",
        "768floats-req32-batch32",
        "paced-100/s",
        "lone-eager",
    }
)
