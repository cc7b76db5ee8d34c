"""What a client lives through: strange messages, a lost engine, jobs that fail (ORB-CLI-07 to ORB-CLI-10)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from orbtrio.conformance.model import Level, Role, case

if TYPE_CHECKING:
    from orbtrio.conformance.client_players import SubmittedJob, SuiteEngine
    from orbtrio.conformance.client_stage import ClientStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.world import Pipe

__all__: list[str] = []

_ENDINGS: Final = st.sampled_from(["RST", "FIN", "1001", "1011"])

# Attempts to connect that are refused, and what "growing" means of the pauses between them: the last two
# together are so many times the first two. Random spreading of steady pauses does not come near that.
_ATTEMPTS: Final = 6
_GROWTH: Final = 1.5
# On average. Whoever pauses less does not pause.
_LEAST_PAUSE: Final = 0.02

# Within which the unanswered jobs must have come again: some clients try one after the other, suspecting
# that one of them has ended their connection.
_RETRIES: Final = 8.0

# How long a client is waited for in virtual time.
_LONGEST_PAUSE: Final = 65.0

_REFUSAL: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def _end(engine: SuiteEngine, how: str) -> None:
    if how in ("RST", "FIN"):
        engine.drop(how)
    else:
        engine.close(int(how), "engine stopped")
        engine.pipe.finish()
        engine.ended_by_us = True


class _Doorman:
    """Refuses every connection, and takes down when it came."""

    def __init__(self, stage: ClientStage, how: str) -> None:
        self.times: list[float] = []
        self._stage = stage
        self._how = how

    def __call__(self, pipe: Pipe) -> None:
        self.times.append(self._stage.now())
        self._stage.note(f"connection attempt {len(self.times)}, refused with {self._how}")
        if self._how == "503":
            pipe.listener = lambda: self._refuse(pipe)
            if pipe.received:
                self._refuse(pipe)
        elif self._how == "FIN":
            pipe.close()
        else:
            pipe.reset()

    def _refuse(self, pipe: Pipe) -> None:
        if b"\r\n\r\n" in pipe.received and not pipe.ended:
            pipe.received.clear()
            pipe.send(_REFUSAL)
            pipe.close()


_STRANGE: Final = (
    "unknown type",
    "unknown job",
    "unknown kind of job",
    "answered twice",
    "extra fields",
)


@case(
    "ORB-CLI-07",
    "A client lives through messages that it does not know, and answers that it does not wait for",
    role=Role.CLIENT,
    sentences=("P-0", "P-53"),
    plans=st.fixed_dictionaries(
        {"strange": st.lists(st.sampled_from(_STRANGE), min_size=1, max_size=6), "first": st.booleans()}
    ),
    examples=(
        {"strange": list(_STRANGE), "first": False},
        *({"strange": [name], "first": first} for name in _STRANGE for first in (False, True)),
    ),
)
def strange_messages_are_survived(stage: ClientStage, plan: Plan) -> None:
    """The client gets messages of types that it cannot know, answers with a job_id that is not open, one
    answer twice, and answers with more fields than it expects, while it waits for its jobs. It must stay
    connected, and where it submitted more jobs before it must still do so: otherwise each new feature of an
    engine, and each answer that comes a moment too late, ends it."""
    goes_on = stage.goes_on()
    engine = stage.client(2)
    if not plan["first"]:
        # Something that it knows comes before.
        engine.answer(engine.open_jobs[0])
        engine = stage.client()
    for strange in plan["strange"]:
        _send_strange(engine, strange)
    stage.settle(engine)
    what = ", ".join(dict.fromkeys(plan["strange"]))
    _demand_alive(stage, engine, f"the client stays connected after strange messages ({what})")
    _demand_going_on(stage, engine, f"strange messages ({what})", goes_on=goes_on)


def _send_strange(engine: SuiteEngine, strange: str) -> None:
    match strange:
        case "unknown type":
            engine.send({"type": "engine_notice", "text": "the model will be replaced tonight", "at": 1.5})
        case "unknown job":
            engine.respond("no-such-job", {"id": "orb-x", "result": 1})
        case "unknown kind of job":
            engine.respond([7, {"x": None}], {"id": "orb-x", "result": 1})
        case "answered twice" if engine.answered:
            engine.respond(engine.answered[-1].job_id, {"id": "orb-x", "result": "again"})
        case "extra fields" if engine.open_jobs:
            job = engine.open_jobs.pop(0)
            engine.answered.append(job)
            engine.respond(job.job_id, {"id": "orb-x", "result": 1, "more": [None]}, engine="busy", at=1.5)


def _demand_alive(stage: ClientStage, engine: SuiteEngine, expected: str) -> None:
    stage.demand(
        # A program that wants nothing more may leave.
        engine.closed is None or (not engine.open_jobs and engine.left_politely),
        expected,
        f"{engine.name} {engine.closed}{stage.obituary()}",
    )


def _demand_going_on(stage: ClientStage, engine: SuiteEngine, after: str, *, goes_on: bool) -> None:
    before = len(engine.jobs)
    engine.answer_all()
    if goes_on:
        stage.expect(
            lambda: len(engine.jobs) > before or (engine.left_politely and not engine.open_jobs),
            f"the client submits jobs after {after}, as it did before",
            lambda: f"none{'' if engine.closed is None else f'; it {engine.closed}'}{stage.obituary()}",
        )
    else:
        stage.settle(engine)
        _demand_alive(stage, engine, f"the client stays connected, or leaves with 1000, after {after}")


@case(
    "ORB-CLI-08",
    "A client that loses its engine comes back, after pauses that grow",
    role=Role.CLIENT,
    level=Level.SHOULD,
    sentences=("S9.9",),
    plans=st.fixed_dictionaries({"how": _ENDINGS, "refused": st.sampled_from(["RST", "FIN", "503"])}),
    examples=({"how": "RST", "refused": "RST"}, {"how": "1001", "refused": "503"}),
    readings={
        "grows": "it connects again, and its pauses grow while it is refused",
        "steady": "it connects again, after pauses that do not grow",
        "ends": "it does not come back",
    },
    seconds=2.0,
)
def pauses_between_attempts_grow(stage: ClientStage, plan: Plan) -> str:
    """The connection is ended while jobs wait, and then each attempt to connect is refused at once, as by an
    engine that is being started anew behind a proxy. The pauses between the attempts are measured. They
    should grow: hundreds of clients that hammer at an engine's door, or come all together each second, keep
    it from ever getting up. A client that pauses not at all fails."""
    engine = stage.client()
    # Whatever went before: this connection has been of use.
    engine.answer(engine.open_jobs[0])
    stage.settle(engine)
    doorman = _Doorman(stage, plan["refused"])
    stage.doorman = doorman
    _end(engine, plan["how"])
    longest = _LONGEST_PAUSE if stage.world.virtual else stage.conditions.patience
    start = stage.now()
    while len(doorman.times) < _ATTEMPTS and stage.now() < start + longest:
        known = len(doorman.times)
        if (
            not stage.wait(
                lambda known=known: len(doorman.times) > known or bool(stage.obituary()),  # type: ignore[misc]
                start + longest - stage.now(),
            )
            or len(doorman.times) == known
        ):
            break
    times = doorman.times
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    stage.note("pauses: " + (", ".join(f"{pause:.3f} s" for pause in pauses) or "none") + stage.obituary())
    if len(pauses) < 2:
        return "ends" if not times or stage.obituary() else "steady"
    mean = sum(pauses) / len(pauses)
    stage.demand(
        mean >= _LEAST_PAUSE,
        "some time between two attempts to connect to an engine that refuses each of them",
        f"{len(times)} attempts within {times[-1] - times[0]:.3f} s",
    )
    return "grows" if sum(pauses[-2:]) >= _GROWTH * sum(pauses[:2]) else "steady"


@case(
    "ORB-CLI-09",
    "What was not answered when the connection ended is submitted again, and nothing else",
    role=Role.CLIENT,
    sentences=("S9.9",),
    plans=st.fixed_dictionaries({"jobs": st.integers(1, 8), "answered": st.integers(0, 3), "how": _ENDINGS}),
    examples=({"jobs": 4, "answered": 1, "how": "RST"}, {"jobs": 4, "answered": 2, "how": "1001"}),
    readings={
        "again": "all that was not answered is submitted again, and nothing that was",
        "some": "some of what was not answered is submitted again, some is not",
        "never": "nothing is submitted again: whoever waited is told, or waits on",
        "answered too": "jobs that were answered are submitted again",
        "alike": "its jobs cannot be told apart, so nobody knows",
        "ends": "it does not come back",
    },
    seconds=1.5,
)
def unanswered_jobs_come_again(stage: ClientStage, plan: Plan) -> str:
    """Some of the client's jobs are answered, then the connection is ended, and the next one is watched.
    Jobs that come again are recognised by their job_id together with their input, or by an input that only
    one job has. The spec recommends to retry, and demands nothing; but a job that has been answered must not
    be done twice because of it."""
    engine = stage.client(plan["jobs"])
    for job in engine.open_jobs[: min(plan["answered"], len(engine.open_jobs) - 1)]:
        engine.answer(job)
    stage.settle(engine)
    if engine.closed is not None:
        # It had enough.
        return "ends"
    unanswered, answered = list(engine.open_jobs), list(engine.answered)
    known = len(stage.engines)
    if not unanswered:
        stage.too_slow("all jobs were answered before the connection could be ended")
    _end(engine, plan["how"])
    longest = _LONGEST_PAUSE if stage.world.virtual else stage.conditions.patience
    stage.wait(lambda: len(stage.engines) > known or bool(stage.obituary()), longest)
    if len(stage.engines) == known:
        return "ends"

    contents = [job.content for job in engine.jobs]

    def came_again(job: SubmittedJob, *, by_input: bool = True) -> bool:
        by_input = by_input and contents.count(job.content) == 1
        return any(
            job.content == other.content and (by_input or job.key == other.key)
            for later in stage.engines[known:]
            for other in later.jobs
        )

    stage.wait(lambda: all(came_again(job) for job in unanswered), _RETRIES)
    stage.sleep(stage.slack)
    twice = [job for job in answered if came_again(job, by_input=False)]
    if twice:
        stage.note(f"{', '.join(repr(job.job_id) for job in twice)}: submitted again although answered")
        return "answered too"
    again = [job for job in unanswered if came_again(job)]
    if len(again) == len(unanswered):
        stage.count("resubmission")
        return "again"
    missing = [job for job in unanswered if job not in again]
    if any(contents.count(job.content) > 1 for job in missing):
        return "alike"
    stage.note(f"{', '.join(repr(job.job_id) for job in missing)}: not submitted again")
    return "some" if again else "never"


@case(
    "ORB-CLI-10",
    "A job that fails ends neither the client nor its other jobs",
    role=Role.CLIENT,
    sentences=("S9.10", "S3.11", "P-24"),
    plans=st.fixed_dictionaries(
        {
            "errors": st.lists(
                st.sampled_from(
                    [
                        "Model failed to process input: invalid format",
                        "",
                        "x" * 5000,
                        "Zu groß: 图像太大 \N{PILE OF POO}",
                        "line one\nline two\x00",
                    ]
                ),
                min_size=1,
                max_size=4,
            ),
            "last": st.booleans(),
        }
    ),
    examples=({"errors": ["Image too large"], "last": False},),
    readings={"goes on": "it goes on", "ends": "it says good-bye while it has open jobs"},
)
def errors_are_lived_through(stage: ClientStage, plan: Plan) -> str:
    """Some of the client's jobs are answered with an output that has an `error` instead of results, the
    others as usual. The client must stay connected while it has open jobs, and where it submitted more jobs
    before it must still do so: one bad picture must not stop the other cameras. A program that leaves
    politely after an error is told apart from one that falls over."""
    goes_on = stage.goes_on()
    engine = stage.client(len(plan["errors"]) + 1)
    for error in plan["errors"]:
        if engine.open_jobs:
            engine.answer(engine.open_jobs[-1 if plan["last"] else 0], error=error)
    stage.settle(engine)
    before = len(engine.jobs)
    early = engine.closed is not None and bool(engine.open_jobs)
    engine.answer_all()
    if goes_on:
        stage.wait(lambda: len(engine.jobs) > before or engine.closed is not None)
        if engine.closed is None:
            stage.demand(
                len(engine.jobs) > before,
                f"the client submits jobs after {len(plan['errors'])} of its jobs failed, as it did before",
                "none",
            )
    else:
        stage.settle(engine)
    if engine.closed is None:
        return "goes on"
    crashed = not stage.world.alive() or not engine.left_politely
    if crashed:
        stage.fail(
            "the client goes on, or leaves with 1000, after a job of it failed",
            f"{engine.name} {engine.closed}{stage.obituary()}",
        )
    return "ends" if early else "goes on"
