"""Realistic results of runs that never took place: every verdict, failures with their wire logs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.model import (
    Case,
    CaseResult,
    Counterexample,
    Level,
    Role,
    SuiteResult,
    Verdict,
    WireEvent,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

AREAS: Final = {
    "HSK": 8,
    "REG": 13,
    "BAT": 13,
    "OUT": 12,
    "RES": 17,
    "LIF": 4,
    "REC": 6,
    "MUL": 3,
    "SES": 8,
    "SEC": 16,
}

TITLES: Final = (
    "Jobs of a lost worker move to another worker of the same type",
    "The first job of a batch waits no longer than max_latency_ms, however many follow it",
    "A worker with a wrong secret is refused with close code 1008",
    "No batch is larger than max_batch_size",
    "Each job is answered once",
    "A resource's file is deleted after the last job that refers to it",
    "An output from a worker that does not own the job is dropped",
    "A ping is answered while the engine is busy",
)

SENTENCES: Final = {
    "S7.4": ("Connection Lifecycle", "On disconnect: all queued jobs reassigned to other workers"),
    "S2.3": (
        "Job Accumulation Rules",
        "Engine accumulates jobs until either max_batch_size is reached or max_latency_ms has passed since "
        "the first job",
    ),
    "S5.1": ("Worker Output", "id: string, // Must match job ID from input"),
    "P-22": ("ruling P-22", "A late answer is dropped, silently"),
}

EXPLANATION: Final = (
    "Two workers register, one of them gets jobs and is reset. Its jobs, whether queued or in flight, must "
    "reach the other one within the time that the protocol allows. If they do not, the jobs of a crashed "
    "worker are lost until they time out, five minutes later."
)


def quote(sentence_id: str) -> str:
    return SENTENCES[sentence_id][1]


def section(sentence_id: str) -> str:
    return SENTENCES[sentence_id][0]


def make_case(case_id: str = "ORB-REC-01", **changes: Any) -> Case:
    arguments: dict[str, Any] = {
        "case_id": case_id,
        "role": Role.ENGINE,
        "title": TITLES[0],
        "level": Level.MUST,
        "sentences": ("S7.4",),
        "explanation": EXPLANATION,
        "readings": {},
        "plans": st.none(),
        "play": lambda stage, plan: None,
        **changes,
    }
    return Case(**arguments)


EVENTS: Final = (
    WireEvent(
        at=0.0,
        peer="worker#3",
        kind="->",
        text='{"type": "i_am_worker", "worker_secret": "(masked)", "worker_config": {"worker_type": "t", '
        '"max_batch_size": 2, "max_latency_ms": 10}}',
    ),
    WireEvent(
        at=0.0004,
        peer="worker#5",
        kind="->",
        text='{"type": "i_am_worker", "worker_secret": "(masked)", "worker_config": {"worker_type": "t"}}',
    ),
    WireEvent(
        at=0.001,
        peer="client#1",
        kind="->",
        text='{"type": "worker_request", "jobs": [{"job_id": "j6", "worker_type": "t", '
        '"input": {"n": "j6"}}]}',
    ),
    WireEvent(
        at=0.0123,
        peer="worker#3",
        kind="<-",
        text='{"type": "job_batch", "inputs": [{"id": "01JD8Q", "input": {"n": "j6"}}]}',
    ),
    WireEvent(at=0.013, peer="worker#3", kind="x", text="RST"),
    WireEvent(at=0.014, peer="", kind="--", text="the link of worker#3 is dead; its job must move"),
)

PLAN: Final = {
    "workers": [{"type": "t", "size": 2, "latency": 10}],
    "steps": [["submit", 1], ["drop", "RST"]],
}


def make_failure(**changes: Any) -> Counterexample:
    arguments: dict[str, Any] = {
        "plan": PLAN,
        "expected": "j6 in a batch to worker#5",
        "seen": "nothing",
        "at": 1.5,
        "events": EVENTS,
        "failures": 3,
        "repetitions": 3,
        **changes,
    }
    return Counterexample(**arguments)


def make_result(verdict: Verdict = Verdict.PASS, case: Case | None = None, **changes: Any) -> CaseResult:
    chosen = case or make_case()
    arguments: dict[str, Any] = {
        "case": chosen,
        "level": chosen.level,
        "verdict": verdict,
        "examples": 37,
        "seconds": 1.25,
        "close": Verdict.PASS,
    }
    match verdict:
        case Verdict.FAIL:
            arguments |= {"counterexample": make_failure()}
        case Verdict.FLAKY:
            arguments |= {
                "counterexample": make_failure(failures=1),
                "reason": "failed again in 1 of 3 repetitions",
            }
        case Verdict.INCONCLUSIVE:
            arguments |= {
                "reason": "the machine answered canaries in 0.9 s: too slow to tell 10 ms from nothing"
            }
        case Verdict.SKIP:
            arguments |= {
                "reason": "needs the directory of resource files: give it with --resources DIR",
                "close": None,
                "examples": 0,
                "seconds": 0.0,
            }
        case Verdict.NON_STRICT:
            arguments |= {
                "reason": "the job is answered with an error at once",
                "reading": "refused",
                "close": Verdict.NON_STRICT,
                "close_reason": "worker#3 ended without a close frame",
                "events": EVENTS,
            }
        case Verdict.INFO:
            arguments |= {
                "reason": "the engine deals jobs out in turn",
                "reading": "round robin",
                "events": EVENTS,
            }
        case _:
            arguments |= {"events": EVENTS}
    return CaseResult(**(arguments | changes))


def make_suite(results: Sequence[CaseResult] = (), **changes: Any) -> SuiteResult:
    arguments: dict[str, Any] = {
        "target": "node engine.js --port 5000",
        "role": Role.ENGINE,
        "profile": "spec",
        "seed": 20261121,
        "started": "2026-11-21T13:05:11+00:00",
        "seconds": 83.4,
        "slack": 0.15,
        "versions": {"python": "3.11.2", "orbtrio": "0.1.0", "hypothesis": "6.140.1", "wsproto": "1.2.0"},
        "results": tuple(results),
        "counters": {"redelivery": 12, "late answer": 3, "full queue": 0, "partial batch by timer": 141},
        **changes,
    }
    return SuiteResult(**arguments)


def generate_suite(seed: int = 1, *, failing: float = 0.06, **changes: Any) -> SuiteResult:
    """A run of 100 cases, with every verdict in it."""
    source = random.Random(seed)
    common = (Verdict.NON_STRICT, Verdict.INFO, Verdict.SKIP, Verdict.FLAKY, Verdict.INCONCLUSIVE)
    results: list[CaseResult] = []
    for area, count in AREAS.items():
        for number in range(1, count + 1):
            title = TITLES[(len(results)) % len(TITLES)]
            sentences = source.sample(list(SENTENCES), source.choice((1, 1, 2)))
            level = source.choice((Level.MUST, Level.MUST, Level.MUST, Level.SHOULD, Level.MAY))
            readings = {
                "refused": "the job is answered with an error at once",
                "round robin": "workers get jobs in turn",
            }
            case = make_case(
                f"ORB-{area}-{number:02}", title=title, sentences=sentences, level=level, readings=readings
            )
            draw = source.random()
            if len(results) < len(Verdict):
                verdict = list(Verdict)[len(results)]
            elif draw < failing:
                verdict = Verdict.FAIL
            elif draw < failing + 0.15:
                verdict = source.choice(common)
            else:
                verdict = Verdict.PASS
            seconds = 0.0 if verdict is Verdict.SKIP else source.uniform(0.1, 3.0)
            results.append(make_result(verdict, case, seconds=seconds))
    return make_suite(results, **changes)
