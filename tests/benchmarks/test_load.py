"""What the load finds: answers that are wrong, missing or too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from benchmarks.load import Load, WrongAnswer
from benchmarks.measure import OURS, Bench
from benchmarks.processes import run_engine
from tests.benchmarks.conftest import liar

if TYPE_CHECKING:
    from benchmarks.cases import Case
    from benchmarks.processes import EngineProcess

pytestmark = pytest.mark.processes


def failure(case: Case, argv: tuple[str, ...]) -> str:
    with Bench(case, {OURS: argv}, floor=False) as bench:
        bench.round()
        return bench.figures[OURS].failed


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        pytest.param(
            "return honest(self, job_id, {**output, 'text': output['text'][::-1]})",
            "wrong answer",
            id="garbled",
        ),
        pytest.param(
            "return honest(self, job_id.replace('01', '00'), {'text': output['text'].replace('01', '00')})",
            "answered twice, or never asked for",
            id="twice",
        ),
        pytest.param(
            "return cbor2.dumps({'job_id': job_id, 'output': output})", "wrong answer", id="no type"
        ),
    ],
)
def test_a_wrong_answer_is_found(lie: str, found: str, small: Case) -> None:
    assert found in failure(small, liar(lie))


def test_a_missing_answer_is_found(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.load._PATIENCE", 0.5)
    silent = liar("return '00000003' in output['text'] or honest(self, output)", "_deliver", "output")
    assert "no answer, for example job-00000003" in failure(small, silent)


def test_an_engine_that_hangs_up_is_found(plain_engine: EngineProcess, small: Case) -> None:
    with pytest.raises(WrongAnswer, match="1008: wrong worker_secret"):
        Load(plain_engine.port, "not the secret", small)


def test_an_engine_without_an_extension_is_found(plain_engine: EngineProcess, small: Case) -> None:
    for case in (attrs.evolve(small, progress=1), attrs.evolve(small, batched=True)):
        with pytest.raises(ConnectionError, match="does not announce the extension"):
            Load(plain_engine.port, plain_engine.secret, case)


def test_jobs_by_the_clock_take_the_time_they_should(plain_engine: EngineProcess, small: Case) -> None:
    case = attrs.evolve(small, jobs=40, jobs_per_request=1, clients=1, jobs_per_second=200, max_latency_ms=1)
    load = Load(plain_engine.port, plain_engine.secret, case)
    try:
        load.run(case.requests(40))
        assert len(load.verify()) == 40
        (client,) = load._clients
        assert client._sent_at[-1] - client._sent_at[0] >= 39 / 200
    finally:
        load.close()


def test_workers_hold_as_many_jobs_as_the_case_says(plain_engine: EngineProcess, small: Case) -> None:
    case = attrs.evolve(small, jobs=96, outstanding=32, held=40)
    load = Load(plain_engine.port, plain_engine.secret, case)
    try:
        held = [set[int](), set[int]()]
        for number, worker in enumerate(load._workers):
            answer = worker._answer

            def look(number: int = number, answer: object = answer) -> None:
                assert callable(answer)
                answer()
                held[number].add(load._workers[number]._jobs_held)

            worker._answer = look  # type: ignore[method-assign]
        load.run(case.requests(96))
        load.verify()
        assert max(max(held[0]), max(held[1])) == 20
        assert all(worker._jobs_held == 0 for worker in load._workers)
    finally:
        load.close()


def test_a_stall_of_the_engine_is_its_own(small: Case) -> None:
    slow = liar("import time; time.sleep(0.2 * (job_id[-2:] == '07')); return honest(self, job_id, output)")
    with run_engine(slow) as engine:
        load = Load(engine.port, engine.secret, small, engine.pids())
        try:
            stalls = load.find_stalls(small.requests(64))
            assert len(load.verify()) == 64
        finally:
            load.close()
    # A ping that came later waited for less of it.
    assert 0.05 < stalls.own <= stalls.engine
    assert stalls.load > 0
