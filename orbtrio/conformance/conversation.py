"""Whole conversations: programs of steps, drawn at random, played against an engine, and judged by what every
engine must keep however it schedules its work.

A program is data: a list of steps that name peers by number, *modulo* those who are there. So any part of
a program is a program, which is what makes shrinking and replaying work. Nothing is predicted: whoever gets
a job, and when, is the engine's affair. What is judged is the history:

- *Safety*, after each step: a job is answered at most once, to the client that submitted it, and with what
  the worker that owned it said; it is never with two live workers at once; a batch is as the worker asked.
- *Progress*, at the end: every fault is healed, each type gets a fresh worker, everybody answers, and then no
  job of a client that is still there may be open.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
from hypothesis import strategies as st

from orbtrio.conformance.players import SuiteWorker
from orbtrio.conformance.stage import PROMPTLY

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.peer import Peer
    from orbtrio.conformance.players import Delivery, Job, SuiteClient

__all__ = ["Conversation", "programs"]

_ENDS: Final = ["RST", "FIN", "close", "cut"]
_PICTURE: Final = b"\x89PNG\r\n\x1a\n" + bytes(40)
_JUNK: Final[dict[str, Any]] = {
    "no CBOR": b"\xff\xff\xff",
    "nothing": b"",
    "a list": [1, 2, 3],
    "unknown type": {"type": "no_such_message"},
    "output without entries": {"type": "worker_output", "output": [None, 7, {}]},
    "unknown id": {"type": "worker_output", "output": [{"id": "nobody's", "echo": 1}]},
}

# What a worker says about a job of another's. Whether that counts is for the profile to say.
_BY_ANOTHER: Final = "by another"

# Longer than any latency here.
_LONG_WAIT: Final = {"do": "wait", "ms": 60}

_peer = st.integers(0, 3)


def _step(do: str, **fields: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"do": st.just(do), **fields})


_job = st.fixed_dictionaries({"type": st.integers(0, 1), "resource": st.sampled_from([None, None, 0, 1])})

_STEPS: Final[dict[str, SearchStrategy[dict[str, Any]]]] = {
    "worker": _step(
        "worker",
        type=st.integers(0, 1),
        size=st.sampled_from([1, 2, 3, 8]),
        latency_ms=st.sampled_from([1, 10, 40]),
    ),
    "client": _step("client"),
    "submit": _step("submit", client=_peer, jobs=st.lists(_job, min_size=1, max_size=6)),
    "answer": _step(
        "answer",
        worker=_peer,
        count=st.integers(1, 6),
        order=st.integers(0, 5),
        split=st.booleans(),
        error=st.booleans(),
    ),
    "again": _step("again", worker=_peer),
    "foreign": _step("foreign", worker=_peer, job=st.integers(0, 9)),
    "pause": _step("pause", worker=_peer),
    "resume": _step("resume", worker=_peer),
    "drop worker": _step("drop worker", worker=_peer, how=st.sampled_from(_ENDS), at=st.integers(0, 60)),
    "drop client": _step("drop client", client=_peer, how=st.sampled_from(_ENDS), at=st.integers(0, 60)),
    "junk": _step("junk", what=st.sampled_from(sorted(_JUNK)), registered=st.booleans()),
    "wait": _step("wait", ms=st.sampled_from([0, 5, 20, 60])),
}


def programs(*kinds: str, most: int = 25) -> SearchStrategy[list[dict[str, Any]]]:
    """Programs of steps of these kinds (all, if none are named); a kind named twice comes twice as often.

    Most begin with workers that have jobs in hand: what goes wrong goes wrong behind that.
    """
    chosen = [_STEPS[kind] for kind in kinds or _STEPS]
    steps = st.lists(st.one_of(chosen), min_size=1, max_size=most)
    submit = st.lists(_STEPS["submit"], min_size=1, max_size=2)
    opening = st.tuples(st.lists(_STEPS["worker"], min_size=1, max_size=3), submit, st.just([_LONG_WAIT]))
    return st.tuples(st.one_of(st.just(()), opening, opening), steps).map(
        lambda parts: [step for part in (*parts[0], parts[1]) for step in part]
    )


@attrs.define(eq=False)
class _Answers:
    # What a job may be answered with: each answer that its owner gave has a token of its own.
    right: set[str] = attrs.field(factory=set)
    sent: int = 0


class Conversation:
    """Plays one program and judges its history.

    Args:
        stage: Where.

    Attributes:
        moved: Jobs that were with a worker when it went: in flight, not only queued.
        foreign_taken: A job was answered by a worker that it was not with.
    """

    def __init__(self, stage: EngineStage) -> None:
        self.moved: set[int] = set()
        self.foreign_taken = False
        self._stage = stage
        self._types = [stage.main_type, stage.other_type()]
        self._workers: list[SuiteWorker] = []
        self._clients: list[SuiteClient] = []
        self._answers: dict[int, _Answers] = {}
        self._answered_by: dict[int, set[str]] = {}
        self._judged = 0
        self._tokens = 0
        self._steps: dict[str, Callable[[dict[str, Any]], None]] = {
            "worker": self._worker,
            "client": self._client,
            "submit": self._submit,
            "answer": self._answer,
            "again": self._again,
            "foreign": self._foreign,
            "pause": lambda step: self._pause(step, paused=True),
            "resume": lambda step: self._pause(step, paused=False),
            "drop worker": self._drop_worker,
            "drop client": self._drop_client,
            "junk": self._junk,
            "wait": lambda step: self._stage.sleep(step["ms"] / 1000),
        }

    def play(self, program: list[dict[str, Any]]) -> None:
        """Play the steps, checking safety after each.

        Raises:
            Violation: a promise was broken.
        """
        for step in program:
            self._steps[step["do"]](step)
            self._stage.sleep(0)
            self.check()

    def heal(self) -> None:
        """Let every fault end, and have everything answered.

        Raises:
            Violation: a promise was broken on the way.
        """
        for worker in self._live(self._workers):
            worker.pipe.paused = False
            self._answer_from_now_on(worker)
        for worker_type in sorted({job.worker_type for job in self._jobs()}):
            fresh = self._stage.worker(worker_type, size=8, latency_ms=5)
            self._workers.append(fresh)
            self._answer_from_now_on(fresh)
        self._stage.wait(lambda: not self.open_jobs(), PROMPTLY)
        self._stage.quiet()
        self.check()

    def open_jobs(self) -> list[Job]:
        """Jobs of clients that are still there, without an answer."""
        return [job for job in self._jobs() if job.client.closed is None and not job.responses]

    # --- Safety ---

    def check(self) -> None:
        """Judge what has been seen since the last time.

        Raises:
            Violation: a promise was broken.
        """
        for job in self._jobs():
            for delivery in job.deliveries:
                self._check_delivery(delivery)
            self._check_owners(job)
            self._check_responses(job)
        for worker in self._workers:
            for batch in worker.batches:
                size = len(batch.message.value["inputs"])
                limit = worker.max_batch_size
                self._stage.demand(
                    0 < size <= limit,
                    f"a batch for {worker.name} has 1 to {limit} jobs",
                    f"at t={batch.at:.3f} it has {size}",
                )

    def _check_delivery(self, delivery: Delivery) -> None:
        worker = delivery.worker
        self._stage.demand(
            delivery.job.worker_type == worker.worker_type,
            f"{delivery.job} goes to a worker of type {delivery.job.worker_type!r}",
            f"{worker.name}, which registered as {worker.worker_type!r}, got it at t={delivery.at:.3f}",
        )

    def _check_owners(self, job: Job) -> None:
        for earlier, later in zip(job.deliveries, job.deliveries[1:], strict=False):
            # That the engine closed one connection may be seen here after what it then sent on another.
            self._stage.wait(lambda worker=earlier.worker: worker.closed is not None, 0)  # type: ignore[misc]
            gone = earlier.worker.closed
            self._stage.demand(
                gone is not None and gone.at <= later.at + self._stage.slack,
                f"{job} is with one live worker at a time",
                f"{later.worker.name} got it at t={later.at:.3f}, while {earlier.worker.name}, which got it "
                f"at t={earlier.at:.3f}, was still connected",
            )

    def _check_responses(self, job: Job) -> None:
        if not job.responses:
            return
        self._stage.demand(
            len(job.responses) == 1,
            f"{job} is answered once",
            f"{len(job.responses)} answers, at "
            + ", ".join(f"t={response.at:.3f}" for response in job.responses),
        )
        output = job.responses[0].output
        token = output.get("said") if isinstance(output, dict) else None
        if token == _BY_ANOTHER:
            self.foreign_taken = True
            return
        self._stage.demand(
            token in self._of(job).right,
            f"{job} is answered with what the worker that owned it said",
            f"its answer is {str(output)[:300]}",
        )

    # --- Steps ---

    def _worker(self, step: dict[str, Any]) -> None:
        worker = self._stage.worker(
            self._types[step["type"]], size=step["size"], latency_ms=step["latency_ms"], settle=False
        )
        self._workers.append(worker)

    def _client(self, step: dict[str, Any]) -> None:
        self._clients.append(self._stage.client())

    def _submit(self, step: dict[str, Any]) -> None:
        if not self._live(self._clients):
            self._client(step)
        client = self._pick(self._clients, step["client"])
        assert client is not None
        resources: dict[int, dict[str, Any]] = {}
        jobs = []
        for wanted in step["jobs"]:
            fields: dict[str, Any] = {}
            number = wanted["resource"]
            if number is not None:
                name = f"picture-{number}"
                resources[number] = {"id": name, "type": "image", "data": _PICTURE + bytes([number])}
                fields["filepath"] = {"__type": "resource-ref", "id": name}
            jobs.append(client.job(fields, worker_type=self._types[wanted["type"]]))
        client.request(jobs, list(resources.values()) if resources else None)

    def _answer(self, step: dict[str, Any]) -> None:
        worker = self._pick(self._workers, step["worker"])
        if worker is None:
            return
        mine = [delivery for delivery in worker.deliveries if not self._has_answered(delivery)]
        if step["order"] % 2:
            mine.reverse()
        mine = mine[step["order"] // 2 :][: step["count"]]
        entries = [self._entry(delivery, error=step["error"]) for delivery in mine]
        for part in [[entry] for entry in entries] if step["split"] else [entries]:
            if part:
                worker.output(part)

    def _again(self, step: dict[str, Any]) -> None:
        worker = self._pick(self._workers, step["worker"])
        done = [delivery for delivery in worker.deliveries if self._has_answered(delivery)] if worker else []
        if worker is not None and done:
            worker.output([{"id": done[-1].id, "said": "once more"}])

    # Only where it is certain that the job is not just on its way to this worker.
    def _foreign(self, step: dict[str, Any]) -> None:
        worker = self._pick(self._workers, step["worker"])
        others = [
            job.deliveries[-1]
            for job in self._jobs()
            if job.deliveries
            and (job.responses or job.deliveries[-1].worker.closed is None)
            and all(known.worker is not worker for known in job.deliveries)
        ]
        if worker is not None and others:
            delivery = others[step["job"] % len(others)]
            worker.output([{"id": delivery.id, "said": _BY_ANOTHER}])
            if delivery.worker.closed is not None:
                self._stage.count("late answer")

    def _pause(self, step: dict[str, Any], *, paused: bool) -> None:
        worker = self._pick(self._workers, step["worker"])
        if worker is not None:
            worker.pipe.paused = paused

    def _drop_worker(self, step: dict[str, Any]) -> None:
        worker = self._pick(self._workers, step["worker"])
        if worker is not None:
            self.moved.update(
                delivery.job.number for delivery in worker.deliveries if not delivery.job.responses
            )
            self._drop(worker, step)

    def _drop_client(self, step: dict[str, Any]) -> None:
        client = self._pick(self._clients, step["client"])
        if client is not None:
            if any(
                "filepath" in job.input for job in self._jobs() if job.client is client and not job.responses
            ):
                self._stage.count("client loss with files")
            self._drop(client, step)

    def _drop(self, peer: Peer, step: dict[str, Any]) -> None:
        if step["how"] == "cut":
            peer.cut(
                {"type": "worker_output", "output": [{"id": "never whole", "echo": "x" * 40}]}, step["at"]
            )
        else:
            peer.drop(step["how"])

    def _junk(self, step: dict[str, Any]) -> None:
        if step["registered"]:
            peer: Peer = self._stage.worker(self._types[0], size=1, latency_ms=1000, settle=False)
            assert isinstance(peer, SuiteWorker)
            # It may be given a job before the junk ends it, which is then redelivered.
            self._workers.append(peer)
        else:
            peer = self._stage.peer("stranger")
        peer.send(_JUNK[step["what"]])
        self._stage.wait(lambda: peer.closed is not None, 0)
        if isinstance(peer, SuiteWorker):
            self.moved.update(delivery.job.number for delivery in peer.deliveries)
        if peer.closed is None:
            peer.drop("close")

    # --- Bookkeeping ---

    def _jobs(self) -> list[Job]:
        return [job for job in self._stage.jobs if job.submitted is not None]

    def _live(self, peers: list[Any]) -> list[Any]:
        return [peer for peer in peers if peer.closed is None]

    def _pick(self, peers: list[Any], number: int) -> Any | None:
        live = self._live(peers)
        return live[number % len(live)] if live else None

    def _of(self, job: Job) -> _Answers:
        return self._answers.setdefault(job.number, _Answers())

    def _has_answered(self, delivery: Delivery) -> bool:
        return delivery.worker.name in self._answered_by.get(delivery.job.number, ())

    def _entry(self, delivery: Delivery, *, error: bool = False) -> dict[str, Any]:
        self._tokens += 1
        token = f"{delivery.worker.name}'s {self._tokens}"
        self._of(delivery.job).right.add(token)
        self._answered_by.setdefault(delivery.job.number, set()).add(delivery.worker.name)
        if len(delivery.job.deliveries) > 1:
            self._stage.count("redelivery")
        self._check_file(delivery)
        return {"id": delivery.id, "said": token, **({"error": "no such luck"} if error else {})}

    # Of a client that is gone nobody needs the answer, nor the file.
    def _check_file(self, delivery: Delivery) -> None:
        path = delivery.input.get("filepath") if isinstance(delivery.input, dict) else None
        if not self._stage.conditions.files or path is None or delivery.job.client.closed is not None:
            return
        self._stage.demand(
            isinstance(path, str) and Path(path).is_file(),
            f"the file of {delivery.job} is there until the job is answered",
            f"{delivery.worker.name} finds no file at {path!r}, which it was given",
        )

    def _answer_from_now_on(self, worker: SuiteWorker) -> None:
        def answer(deliveries: list[Delivery]) -> None:
            entries = [self._entry(delivery) for delivery in deliveries if not self._has_answered(delivery)]
            if entries:
                worker.output(entries)

        worker.auto = answer
        answer(worker.deliveries)
