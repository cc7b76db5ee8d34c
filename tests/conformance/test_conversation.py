"""Whole conversations: drawn, played, judged; each promise is broken once by an engine of the zoo."""

from __future__ import annotations

import collections
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import find, settings

from orbtrio.conformance.conversation import _STEPS, Conversation, programs
from orbtrio.conformance.model import Violation
from orbtrio.conformance.selftest import zoo_engine

if TYPE_CHECKING:
    from pathlib import Path

SUBMIT: dict[str, Any] = {"do": "submit", "client": 0, "jobs": [{"type": 0, "resource": 0}] * 3}
WORKER: dict[str, Any] = {"do": "worker", "type": 0, "size": 2, "latency_ms": 10}
ANSWER: dict[str, Any] = {"do": "answer", "worker": 0, "count": 6, "order": 1, "split": True, "error": False}
AGAIN: dict[str, Any] = {"do": "again", "worker": 0}
FOREIGN: dict[str, Any] = {"do": "foreign", "worker": 1, "job": 0}
WAIT: dict[str, Any] = {"do": "wait", "ms": 60}
DROP: dict[str, Any] = {"do": "drop worker", "worker": 0, "how": "cut", "at": 9}


def play(folder: Path, program: list[dict[str, Any]], *mutants: str) -> Conversation:
    conversation = Conversation(zoo_engine(mutants, folder).stage(collections.Counter()))
    conversation.play(program)
    conversation.heal()
    return conversation


def test_the_model_keeps_every_promise(tmp_path: Path) -> None:
    program = [
        WORKER,
        WORKER,
        SUBMIT,
        WAIT,
        ANSWER,
        AGAIN,
        FOREIGN,
        {"do": "pause", "worker": 1},
        DROP,
        {"do": "resume", "worker": 1},
        {"do": "client"},
        {"do": "junk", "what": "no CBOR", "registered": True},
        {"do": "junk", "what": "nothing", "registered": False},
        {"do": "junk", "what": "unknown type", "registered": False},
        SUBMIT,
        {"do": "drop client", "client": 0, "how": "close", "at": 0},
        SUBMIT,
    ]
    assert {step["do"] for step in program} == set(_STEPS)
    assert play(tmp_path, program).open_jobs() == []


def test_steps_without_anybody_to_do_them_are_nothing(tmp_path: Path) -> None:
    nobody = [{**step, "worker": 3} for step in (ANSWER, DROP)]
    others = [
        {"do": "again", "worker": 0},
        {"do": "foreign", "worker": 0, "job": 1},
        {"do": "pause", "worker": 0},
        {"do": "drop client", "client": 2, "how": "RST", "at": 0},
    ]
    assert play(tmp_path, [*nobody, *others]).open_jobs() == []


def test_programs_are_json_and_of_the_kinds_asked_for() -> None:
    program = find(
        programs("worker", "submit", most=5),
        lambda program: len({step["do"] for step in program}) == 2,
        settings=settings(database=None),
    )
    assert json.loads(json.dumps(program)) == program


@pytest.mark.parametrize(
    ("mutant", "program", "promise"),
    [
        (
            "duplicates-delivered",
            [WORKER, SUBMIT, WAIT, ANSWER, {"do": "again", "worker": 0}],
            "is answered once",
        ),
        ("size-off-by-one", [WORKER, SUBMIT, SUBMIT, WAIT], "has 1 to 2 jobs"),
    ],
)
def test_a_broken_promise_is_named(
    tmp_path: Path, mutant: str, program: list[dict[str, Any]], promise: str
) -> None:
    with pytest.raises(Violation, match=promise):
        play(tmp_path, program, mutant)


def test_jobs_that_a_lost_worker_had_are_told_from_those_that_only_waited(tmp_path: Path) -> None:
    conversation = play(tmp_path, [WORKER, SUBMIT, WAIT, DROP], "jobs-in-hand-lost")
    assert {job.number for job in conversation.open_jobs()} <= conversation.moved


def test_an_answer_of_another_is_noticed_and_left_to_the_profile(tmp_path: Path) -> None:
    program = [WORKER, SUBMIT, WAIT, WORKER, FOREIGN]
    assert play(tmp_path, program, "foreign-answers").foreign_taken
    assert not play(tmp_path, program).foreign_taken
