"""What is known of a worker: its links and answers, the inputs that it can do, and two pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from orbtrio.conformance.examples import PICTURE
from orbtrio.conformance.notation import encode
from orbtrio.conformance.peer import Message, WireLog
from orbtrio.conformance.worker_bench import IMAGE, OTHER_PICTURE, Bench, WorkerLink, WorkJob
from tests.conformance.pipes import MemoryPipe

if TYPE_CHECKING:
    from pathlib import Path


def link() -> WorkerLink:
    return WorkerLink(MemoryPipe(), WireLog(lambda: 1.0), "link#1")


def say(link: WorkerLink, *values: object) -> None:
    for value in values:
        link.received(Message(0.0, value, encode(value)))


def test_the_pictures_can_be_read_and_differ() -> None:
    grey, white = (Image.open(io.BytesIO(data)).convert("L") for data in (PICTURE, OTHER_PICTURE))
    assert grey.size == white.size == (16, 16)
    assert white.getextrema() == (255, 255)
    assert grey.getextrema() != white.getextrema()


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"max_batch_size": 5}, 5),
        ({"max_batch_size": 5.0}, 5),
        ({}, 32),
        ({"max_batch_size": 0}, 32),
        ({"max_batch_size": "5"}, 32),
    ],
)
def test_the_batch_size_is_the_registered_one_or_the_default(config: dict[str, object], size: int) -> None:
    known = link()
    say(known, {"type": "i_am_worker", "worker_config": config})
    assert known.max_batch_size == size


@pytest.mark.parametrize("first", [None, 7, {"worker_config": 7}])
def test_what_is_no_registration_has_no_config(first: object) -> None:
    known = link()
    assert known.registered_as == {}
    say(known, first)
    assert known.registered_as == {}
    assert known.has_spoken()


def test_messages_are_sorted() -> None:
    known = link()
    say(
        known,
        {"type": "i_am_worker"},
        {"type": "worker_output", "output": [{"id": "a", "x": 1}, {"id": "a", "error": "no"}, 3]},
        {"type": "worker_output", "output": None},
        {"type": "else"},
        5,
    )
    job = WorkJob("a", {"id": "a"}, known)
    assert [answer.failed for answer in job.answers] == [False, True]
    assert WorkJob("a", {}).answers == []
    assert len(known.outputs) == 2
    assert [message.value for message in known.stray] == [{"type": "else"}, 5]


def test_a_link_that_is_taken_over_remembers_its_registration_only() -> None:
    known = link()
    say(known, {"type": "i_am_worker"}, {"type": "worker_output", "output": [{"id": "a"}]})
    log = WireLog(lambda: 2.0)
    known.take_over(log, "link#2")
    assert known.answers == {}
    assert (known.outputs, known.messages, known.pongs) == ([], [], [])
    assert [event.peer for event in log.events()] == ["link#2", "link#2"]
    assert '"i_am_worker"' in log.events()[1].text
    WorkerLink(MemoryPipe(), log, "silent").take_over(log, "link#3")
    assert len(log.events()) == 3


def test_samples_are_those_of_the_type(tmp_path: Path) -> None:
    bench = Bench(folder=tmp_path, worker_type="embedding")
    assert len(bench.inputs(IMAGE)) == 4
    assert bench.inputs("a.png")[3] == {"filepath": "a.png"}
    assert bench.inputs(IMAGE)[0] == {"text": "hello world", "prompt_name": "query"}


def test_given_inputs_replace_samples(tmp_path: Path) -> None:
    bench = Bench(folder=tmp_path, given=({"parts": [{"image": "{image}"}, "{image}"], "n": 1},))
    assert bench.inputs("a.png") == [{"parts": [{"image": "a.png"}, "a.png"], "n": 1}]


def test_messages_of_extensions_are_sorted_where_they_were_announced() -> None:
    reports, drain = {"type": "worker_progress", "progress": []}, {"type": "worker_drain"}
    stock = link()
    asked = WorkerLink(
        MemoryPipe(), WireLog(lambda: 1.0), "link#2", announces=frozenset({"progress", "drain"})
    )
    for known in (stock, asked):
        say(known, {"type": "i_am_worker", "worker_config": {"extensions": ["drain", 7]}}, reports, drain)
        assert known.asked == {"drain"}
    assert [message.value for message in stock.stray] == [reports, drain]
    assert [message.value for message in (*asked.reports, *asked.drains)] == [reports, drain]
    asked.take_over(WireLog(lambda: 1.0), "link#3")
    assert asked.reports == asked.drains == []


def test_who_asks_for_nothing_has_asked_for_nothing() -> None:
    known = link()
    say(known, {"type": "i_am_worker", "worker_config": {"extensions": "drain"}})
    assert known.asked == frozenset()
