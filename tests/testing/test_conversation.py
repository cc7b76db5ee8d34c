"""The conversation with one fault: it ends well, and whoever breaks a promise is found."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.client.outbox import Outbox
from orbtrio.engine.resources import ResourceStore
from orbtrio.testing import conversation as module
from orbtrio.testing.conversation import Conversation, Failed, play, settings
from orbtrio.testing.faults import Sweep, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orbtrio.testing.conversation import Handler


def texts(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from texts(each)
    else:
        yield str(error)


def problem_of(conversation: Conversation, seed: int = 0) -> str:
    with pytest.raises((Failed, ExceptionGroup)) as caught:
        play(conversation, seed)
    return "; ".join(texts(caught.value))


@pytest.mark.parametrize("seed", range(8))
def test_undisturbed_each_job_is_done_once(seed: int, tmp_path: Path) -> None:
    cameras: list[trio.lowlevel.Task] = []

    async def handler(job: dict[str, Any]) -> dict[str, Any]:
        if "camera" in job:
            cameras.append(trio.lowlevel.current_task())  # each worker calls it in a task of its own
        return await module._handle(job)

    conversation = Conversation(settings(tmp_path), handler=handler)
    play(conversation, seed)
    assert (conversation.announced, conversation.struck) == (False, False)
    assert conversation.seen == dict.fromkeys(range(7), 1)
    assert [wire.name for wire in conversation.wires] == ["worker:0", "survivor:1", "client:2"]
    # Both workers have their share, and the two jobs of a camera the same one.
    assert min(wire.to_engine.carried for wire in conversation.wires) > 400
    assert len(cameras) == 2
    assert len(set(cameras)) == 1


@pytest.mark.parametrize("direction", ["to_engine", "to_peer"])
@pytest.mark.parametrize("victim", ["client", "worker"])
def test_positions_are_those_of_each_byte(victim: str, direction: str, tmp_path: Path) -> None:
    conversation = Conversation(settings(tmp_path), Sweep(victim, direction, "fin"))
    play(conversation)
    carried = conversation.first_wire(victim).way(direction).carried
    assert conversation.positions == range(carried)
    assert carried > 300


def test_positions_are_the_same_in_every_run_of_a_seed(tmp_path: Path) -> None:
    def count(seed: int) -> list[int]:
        conversations = [
            Conversation(settings(tmp_path), Sweep(victim, "", "cancel")) for victim in ("engine", "client")
        ]
        for conversation in conversations:
            play(conversation, seed)
        counts = [len(conversation.positions) for conversation in conversations]
        wires = conversations[0].wires
        return counts + [way.carried for wire in wires for way in (wire.to_engine, wire.to_peer)]

    assert count(1) == count(1)
    assert len({tuple(count(seed)) for seed in range(4)}) > 1


def test_seed_of_others_is_left_alone(tmp_path: Path) -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    play(Conversation(settings(tmp_path)))
    assert random.random() == expected


def test_fault_that_never_strikes_is_a_failure(tmp_path: Path) -> None:
    far = Conversation(settings(tmp_path), Sweep("client", "to_peer", "reset"), 10**6)
    assert problem_of(far) == "the fault: expected: it strikes; seen: it never did"


@pytest.mark.parametrize("manner", ["reset", "fin", "silence"])
def test_lost_worker_comes_back_and_its_job_is_done_again(manner: str, tmp_path: Path) -> None:
    whole = Conversation(settings(tmp_path), Sweep("worker", "to_peer", manner))
    play(whole)
    # Behind the upgrade's answer, which is half of the bytes, and inside the batches.
    conversation = Conversation(
        settings(tmp_path), Sweep("worker", "to_peer", manner), len(whole.positions) * 3 // 4
    )
    play(conversation)
    assert conversation.struck
    names = [wire.name.partition(":")[0] for wire in conversation.wires]
    assert (names.count("worker"), names.count("client")) == (2, 1)


def test_cancelled_engine_has_a_successor(tmp_path: Path) -> None:
    conversation = Conversation(settings(tmp_path), Sweep("engine", "", "cancel"), 60)
    play(conversation)
    assert conversation.struck
    names = [wire.name.partition(":")[0] for wire in conversation.wires]
    assert names.count("worker") == 2


# --- Whoever breaks a promise.


async def wrong(job: dict[str, Any]) -> dict[str, Any]:
    return await module._handle(job) | {"n": 6}


async def noisy(job: dict[str, Any]) -> dict[str, Any]:
    logging.getLogger("orbtrio.somewhere").error("something is %s", "wrong")
    return await module._handle(job)


async def leaky(job: dict[str, Any]) -> dict[str, Any]:
    trio.lowlevel.spawn_system_task(trio.sleep_forever)
    return await module._handle(job)


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (wrong, "answers: expected: [(0, {'n': 0, 'text': 'shared by two jobs'}), (1,"),
        (noisy, "errors logged: expected: []; seen: ['orbtrio.somewhere: something is wrong', "),
        (leaky, "tasks left: expected: 0; seen: 7"),
    ],
)
def test_worker_that_errs_is_found(handler: Handler, problem: str, tmp_path: Path) -> None:
    assert problem_of(Conversation(settings(tmp_path), handler=handler)).startswith(problem)


def test_job_that_is_done_too_often_is_found(tmp_path: Path) -> None:
    conversation = Conversation(settings(tmp_path))
    conversation.seen[3] = 2
    assert problem_of(conversation) == "executions of job 3: expected: 1 to 2; seen: 3"


def test_client_that_forgets_what_a_lost_link_carried_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Outbox, "link_lost", lambda self, refusal="": None)
    conversation = Conversation(settings(tmp_path), Sweep("client", "to_peer", "reset"), 250)
    assert "no answer within 310 s" in problem_of(conversation)


def test_engine_that_keeps_files_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ResourceStore, "release", lambda self, files: None)
    text = "files and bytes in the store's books: expected: (0, 0); seen: (1, 18)"
    assert problem_of(Conversation(settings(tmp_path))) == text


def test_end_of_a_wire_that_is_not_closed_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    conversation = Conversation(settings(tmp_path))
    conversation.wires.append(Wire("nobody:0"))
    assert problem_of(conversation) == "wires left open: expected: []; seen: ['nobody:0']"


def test_conversation_without_end_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def forever(job: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(module, "_TOO_LONG", 50.0)
    text = "expected: an end within 50 virtual seconds; seen: none"
    assert problem_of(Conversation(settings(tmp_path), handler=forever)) == text
