"""A stage holds answers against jobs, and believes no system that does not do the work."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.peers import stage
from benchmarks.peers.servers import ServerFailed, Servers
from benchmarks.peers.stage import measure, wait_until_it_answers
from benchmarks.peers.system import Answers
from benchmarks.peers.work import Echo, WrongAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.peers.cpu import Meter


class Asked:
    """Answers by itself, in batches of three."""

    def __init__(self) -> None:
        self._echo = Echo()

    def __call__(self, texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
        answers = [
            answer for first in range(0, len(texts), 3) for answer in self._echo(texts[first : first + 3])
        ]
        return Answers(answers, [0.5] * len(texts))


class Cached(Asked):
    """Answers rightly, but without its worker."""

    def __call__(self, texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
        if len(texts) == 1:
            return super().__call__(texts, in_flight, meter)
        return Answers(list(texts), [0.5] * len(texts))


class Confused(Asked):
    def __call__(self, texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
        answers = super().__call__(texts, in_flight, meter)
        return Answers(answers.texts[::-1], answers.seconds)


def test_figures_are_those_of_these_jobs_alone() -> None:
    ask = Asked()
    measure(ask, 0, jobs=9, size=100, in_flight=3)
    figures = measure(ask, 9, jobs=7, size=100, in_flight=3)
    assert figures["jobs_per_batch"] == pytest.approx(7 / 3)
    assert figures["latencies"] == [0.5] * 7


def test_answers_of_others_are_found() -> None:
    with pytest.raises(WrongAnswer, match="was answered"):
        measure(Confused(), 0, jobs=2, size=100, in_flight=2)


def test_answers_that_no_worker_gave_are_found() -> None:
    with pytest.raises(WrongAnswer, match="2 jobs were asked for, and the worker did 0"):
        measure(Cached(), 0, jobs=2, size=100, in_flight=2)


def test_numbers_of_jobs_go_on_from_order_to_order(tmp_path: Path) -> None:
    orders = io.StringIO('{"jobs": 3, "size": 100, "in_flight": 2}\n' * 2)
    answers: list[dict[str, Any]] = []
    stage._obey(orders, Asked(), Servers(tmp_path), lambda **fields: answers.append(fields))
    assert [len(answer["latencies"]) for answer in answers] == [3, 3]
    assert all(json.dumps(answer) for answer in answers)


def test_a_connection_that_breaks_is_told_with_what_the_servers_said(tmp_path: Path) -> None:
    def broken(texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
        raise ConnectionResetError("reset by peer")

    (tmp_path / "log").write_text("out of memory")
    orders = io.StringIO('{"jobs": 3, "size": 100, "in_flight": 2}\n')
    with pytest.raises(WrongAnswer, match="reset by peer; out of memory"):
        stage._obey(orders, broken, Servers(tmp_path), lambda **fields: None)


def test_servers_are_waited_for_until_a_job_is_answered(tmp_path: Path) -> None:
    problems = iter([ConnectionRefusedError("refused"), WrongAnswer("HTTP 503")])

    class Slow(Asked):
        def __call__(self, texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
            for problem in problems:
                raise problem
            return super().__call__(texts, in_flight, meter)

    wait_until_it_answers(Slow(), Servers(tmp_path))
    assert next(problems, None) is None


def test_the_last_problem_of_servers_that_never_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.peers.servers._START_TIMEOUT", 0.0)

    def busy(texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
        raise WrongAnswer("HTTP 503")

    with pytest.raises(ServerFailed, match=r"no job is answered \(HTTP 503\) after 0 s"):
        wait_until_it_answers(busy, Servers(tmp_path))
