"""Peers that ask for extensions, and what cases about them demand. The first case: asking itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.resources import LATENCY_MS, delivered
from orbtrio.conformance.model import case
from orbtrio.conformance.notation import diagnostic
from orbtrio.conformance.stage import PROMPTLY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import Delivery, Job, SuiteClient, SuiteWorker

__all__ = [
    "LONG_MS",
    "all_delivered",
    "asking_client",
    "asking_worker",
    "expect_done",
    "expect_ended",
    "target_ms",
]

# A latency within which no case ends: what is queued for such a worker stays there until its batch is full.
LONG_MS: Final = 60_000


def asking_worker(
    stage: EngineStage, *names: str, worker_type: str | None = None, **config: Any
) -> SuiteWorker:
    """A worker that asks for these extensions; the case is skipped if the target does not announce them."""
    stage.need_extensions(*names)
    config = {"size": 1, "latency_ms": LATENCY_MS, "extensions": list(names), **config}
    return stage.worker(worker_type, **config)


def asking_client(stage: EngineStage, *names: str) -> SuiteClient:
    """A client that does."""
    stage.need_extensions(*names)
    return stage.client(extensions=names)


def target_ms(stage: EngineStage, ms: float) -> int:
    """Milliseconds of ours, as many as they are by the target's clock."""
    return round(ms * stage.conditions.rate)


def all_delivered(stage: EngineStage, jobs: Iterable[Job]) -> list[Delivery]:
    """The last delivery of each job, once there is one."""
    return [delivered(stage, job) for job in jobs]


def expect_ended(
    stage: EngineStage, jobs: Sequence[Job], kind: str, why: str, *, within: float = PROMPTLY
) -> None:
    """Demand that the engine answers these jobs itself, once, by an error of this kind."""
    for job in jobs:
        stage.expect(
            lambda job=job: bool(job.responses),  # type: ignore[misc]
            f"{job}, {why}, is answered by an error of the kind {kind!r}",
            lambda job=job: (  # type: ignore[misc]
                f"{job.client.name} {job.client.closed}" if job.client.closed else "no answer"
            ),
            within=within,
        )
        output = job.responses[0].output
        stage.demand(
            job.errors == [kind] and isinstance(output, dict) and isinstance(output.get("error"), str),
            f"{job}, {why}, is answered by {{error: <a text>, error_kind: {kind!r}}}",
            diagnostic(output),
        )


def expect_done(stage: EngineStage, jobs: Sequence[Job], why: str) -> None:
    """Demand that each job has been answered, once, with what its worker said: the input that it got."""

    def answered(job: Job) -> bool:
        said = [delivery.input for delivery in job.deliveries]
        return any(isinstance(r.output, dict) and r.output.get("echo") in said for r in job.responses)

    for job in jobs:
        stage.expect(
            lambda job=job: answered(job),  # type: ignore[misc]
            f"{job}, {why}, is answered as its worker answered it",
            lambda job=job: (  # type: ignore[misc]
                f"{job.client.name} {job.client.closed}"
                if job.client.closed
                else diagnostic([response.output for response in job.responses])
            ),
        )
        stage.demand(
            len(job.responses) == 1, f"{job} is answered exactly once", f"{len(job.responses)} responses"
        )


_UNKNOWN: Final = st.sampled_from(["no_such_extension", "", "PROGRESS", "x" * 200, "progress "])


@case(
    "ORB-EXT-01",
    "Who asks for extensions that the engine does not know is served all the same",
    sentences=("X0.1", "X0.2"),
    plans=st.fixed_dictionaries(
        {"worker": st.lists(_UNKNOWN, max_size=3), "client": st.lists(_UNKNOWN, max_size=3)}
    ),
    examples=[{"worker": ["no_such_extension"], "client": ["no_such_extension"]}],
)
def unknown_names_are_ignored(stage: EngineStage, plan: Plan) -> None:
    """A worker and a client register and ask for extensions by names that no engine knows, beside
    `engine_errors`. They must be accepted, a job must be done, and of another one, whose worker_type is
    empty, the client must be told. Newer peers ask older engines for what those have never heard of; who
    refuses them cannot be updated last.
    """
    stage.need_extensions("engine_errors")
    worker = stage.worker(size=1, latency_ms=LATENCY_MS, extensions=plan["worker"])
    client = stage.client(extensions=(*plan["client"], "engine_errors"))
    job = client.submit()
    worker.answer(delivered(stage, job))
    expect_done(stage, [job], f"of a client that also asks for {diagnostic(plan['client'])}")
    bad = client.job(extra={"worker_type": ""})
    client.request([bad])
    expect_ended(stage, [bad], "invalid_job", f"of a client that also asks for {diagnostic(plan['client'])}")
