"""What is measured: the lines of the table.

A name says the payload, the jobs in one message of a client, and the largest batch of a worker. Unless a case
says otherwise eight clients keep 64 jobs each unanswered, and two workers echo them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import cbor2

from benchmarks import wire
from benchmarks.bars import FLAT, RATIO_REQ1, RATIO_REQ32, STALL, Bar
from benchmarks.work import Detections, Echo, Image, TokenUsage, Vector, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BYSTANDER_TYPE", "CASES", "QUICK", "Case", "job_name", "request"]

# Two of the types that every engine recognises without being told.
WORKER_TYPE: Final = "embedding"
BYSTANDER_TYPE: Final = "llm"


@attrs.frozen(kw_only=True)
class Case:
    """One line of the table.

    Attributes:
        name: What ``--cases`` calls it.
        work: What the jobs are.
        jobs: How many per round.
        jobs_per_request: Jobs in one message of a client.
        clients: Connections that submit jobs.
        outstanding: Jobs of each client that are unanswered at any time, unless paced.
        held: Of those, the jobs that workers keep to themselves until more come, all together: so many are
            open in the engine at any time, not on their way.
        workers: Connections that answer jobs.
        bystanders: Connections of workers of another type, which have nothing to do.
        max_batch_size: As the workers register.
        max_latency_ms: Likewise.
        eager: Likewise; a stock worker says nothing of it.
        progress: Reports on each job before its answer (extension ``progress``).
        batched: Answers that are ready together come in one message (extension ``batched_responses``).
        jobs_per_second: Submit by the clock instead, whether answers come or not.
        idle_seconds: Submit nothing, and measure the engine for so long with everybody connected.
        latency: What matters is how long jobs take, not what they cost.
        settings: Of the engine, by the names of its environment.
        baseline: The baseline's share of the jobs, since it takes ten times as long over them; 0 if it
            cannot do this.
        reference: A case that should cost the same, and what it is called: measured in turn with this one.
        bars: What the engine has to reach.
    """

    name: str
    work: Work = attrs.Factory(lambda: Echo(100))
    jobs: int = 19_200
    jobs_per_request: int = 1
    clients: int = 8
    outstanding: int = 64
    held: int = 0
    workers: int = 2
    bystanders: int = 0
    max_batch_size: int = 32
    max_latency_ms: float = 10
    eager: bool = False
    progress: int = 0
    batched: bool = False
    jobs_per_second: float | None = None
    idle_seconds: float = 0
    latency: bool = False
    settings: tuple[tuple[str, str], ...] = ()
    baseline: float = 0.25
    reference: tuple[str, Case] | None = None
    bars: tuple[Bar, ...] = ()

    @property
    def worker_config(self) -> dict[str, Any]:
        """How each worker introduces itself: a stock one, unless it is eager or reports."""
        config: dict[str, Any] = {
            "worker_type": WORKER_TYPE,
            "max_batch_size": self.max_batch_size,
            "max_latency_ms": self.max_latency_ms,
        }
        if self.eager:
            config["eager"] = True
        return {**config, "extensions": ["progress"]} if self.progress else config

    @property
    def client_extensions(self) -> tuple[str, ...]:
        """What each client asks for."""
        return ("progress",) * bool(self.progress) + ("batched_responses",) * self.batched

    @property
    def has_floor(self) -> bool:
        """Whether its CPU is that of its messages, and not that of waiting and waking."""
        return not self.latency and not self.idle_seconds

    def whole(self, share: float) -> int:
        """That share of its jobs, in whole requests and as many for every client."""
        step = self.jobs_per_request * self.clients
        return max(int(share * self.jobs) // step, 1) * step if self.jobs else 0

    def numbers(self, jobs: int) -> list[range]:
        """The job numbers of each request, `jobs` jobs in all."""
        size = self.jobs_per_request
        return [range(first, first + size) for first in range(0, jobs, size)]

    def requests(self, jobs: int) -> list[tuple[range, bytes]]:
        """The job numbers and the frame of each request, `jobs` jobs in all."""
        return [
            (numbers, wire.frame(cbor2.dumps(request(self.work, numbers)))) for numbers in self.numbers(jobs)
        ]


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


def _costs() -> list[Case]:
    bars: dict[tuple[str, int, int], tuple[Bar, ...]] = {
        ("100B", 1, 32): (RATIO_REQ1, Bar("cpu", 22, decides=False)),
        ("100B", 32, 32): (RATIO_REQ32, Bar("cpu", 14, decides=False)),
        ("10KB", 1, 32): (Bar("cpu", 45),),
        ("10KB", 8, 32): (Bar("cpu", 45),),
        ("10KB", 32, 32): (Bar("cpu", 45),),
    }
    cases = []
    for title, work, jobs in (("100B", Echo(100), 19_200), ("10KB", Echo(10_000), 4_800)):
        for jobs_per_request in (1, 8, 32):
            for max_batch_size in (1, 32):
                key = (title, jobs_per_request, max_batch_size)
                cases.append(
                    Case(
                        name=f"{title}-req{jobs_per_request}-batch{max_batch_size}",
                        work=work,
                        jobs=jobs,
                        jobs_per_request=jobs_per_request,
                        max_batch_size=max_batch_size,
                        bars=(*bars.get(key, ()), *((STALL,) if title == "100B" else ())),
                    )
                )
    return [
        *cases,
        Case(
            name="768floats-req32-batch32",
            work=Vector(),
            jobs=4_800,
            jobs_per_request=32,
            bars=(Bar("cpu", 50),),
        ),
        Case(name="detections-req32-batch32", work=Detections(), jobs=9_600, jobs_per_request=32),
        Case(name="usage-req32-batch32", work=TokenUsage(), jobs=9_600, jobs_per_request=32),
        Case(name="100KB-image", work=Image(100 << 10), jobs=480, outstanding=8, baseline=0),
        Case(
            name="1MB-image",
            work=Image(1 << 20),
            jobs=96,
            outstanding=2,
            baseline=0,
            bars=(Bar("cpu", 1600),),
        ),
    ]


def _scaling() -> list[Case]:
    plain = Case(name="100B-req32-batch32", jobs_per_request=32, bars=(STALL,), baseline=0)
    room = (("ORB_MAX_QUEUED_JOBS", "200000"),)
    # Two batches for each of a thousand workers.
    deep = attrs.evolve(plain, jobs=128_000, outstanding=8_000, settings=room)
    # All but what is on its way to and fro.
    held = attrs.evolve(plain, jobs=200_000, settings=room)
    little = attrs.evolve(held, outstanding=256, held=1_000)
    flat = (FLAT, STALL)
    return [
        attrs.evolve(plain, name="100B-req32-4workers", workers=4, baseline=0.25),
        attrs.evolve(
            plain, name="100B-req1-64clients", jobs_per_request=1, clients=64, outstanding=8, baseline=0.25
        ),
        attrs.evolve(
            plain, name="100B-req32-1000idle", bystanders=1000, reference=("no others", plain), bars=flat
        ),
        attrs.evolve(
            deep,
            name="100B-req32-1000workers",
            workers=1000,
            reference=("1 worker", attrs.evolve(deep, workers=1)),
            bars=flat,
        ),
        attrs.evolve(
            held,
            name="100B-req32-100k-open",
            outstanding=12_800,
            held=100_000,
            reference=("1k open", little),
            bars=(*flat, Bar("rss", 200)),
        ),
        Case(
            name="5000idle-peers",
            jobs=0,
            clients=4_000,
            workers=0,
            bystanders=1_000,
            idle_seconds=20,
            baseline=0,
        ),
        attrs.evolve(plain, name="progress4-req32", jobs=9_600, progress=4),
        attrs.evolve(plain, name="batched-req32", batched=True),
    ]


def _latencies() -> list[Case]:
    lone = Case(
        name="lone-eager",
        jobs=1_000,
        clients=1,
        outstanding=1,
        workers=1,
        eager=True,
        latency=True,
        baseline=0,
        bars=(Bar("p50", 1),),
    )
    paced = attrs.evolve(
        lone, name="paced-100/s", eager=False, max_latency_ms=20, jobs_per_second=100, jobs=300, baseline=1
    )
    return [
        attrs.evolve(paced, bars=(Bar("p99", 25),)),
        attrs.evolve(paced, name="paced-1000/s", jobs_per_second=1_000, jobs=2_000, bars=()),
        attrs.evolve(paced, name="paced-5000/s", jobs_per_second=5_000, jobs=10_000, bars=()),
        lone,
        attrs.evolve(lone, name="lone-batch1", eager=False, max_batch_size=1, baseline=0.25, bars=()),
    ]


CASES: Final = (*_costs(), *_scaling(), *_latencies())

# The figures of most users, and whatever a careless change would spoil first.
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
