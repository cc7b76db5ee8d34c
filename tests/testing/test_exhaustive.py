"""The program: every so many-th position holds, and what does not is named so that it can be seen again."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from orbtrio.client.outbox import Outbox
from orbtrio.testing import exhaustive
from orbtrio.testing.exhaustive import FAMILIES, main, positions_of, try_positions
from orbtrio.testing.faults import Sweep

ENGINE = Sweep("engine", "", "cancel")
# So that the bytes which the sampled positions leave out differ from sweep to sweep.
SAMPLE = 199


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that do not send again what a lost link carried."""
    monkeypatch.setattr(Outbox, "link_lost", lambda self, refusal="": None)


def test_every_sampled_position_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sample", str(SAMPLE), "--processes", "1"]) == 0
    *lines, total, seconds = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[0] for line in lines] == list(FAMILIES)
    tried = 0
    for line, sweeps in zip(lines, FAMILIES.values(), strict=True):
        counts = re.search(r": (\d+) of (\d+) held$", line)
        assert counts is not None
        assert counts[1] == counts[2]
        tried += int(counts[2])
        assert int(counts[2]) == sum(len(positions_of(sweep)[::SAMPLE]) for sweep in sweeps)
    assert tried > 45
    assert total == f"all positions: {tried} of {tried} held"
    assert re.fullmatch(r"\d+\.\d s", seconds)


def test_families_are_every_kind_of_fault() -> None:
    sweeps = [str(sweep) for family in FAMILIES.values() for sweep in family]
    assert len(set(sweeps)) == len(sweeps) == 2 * 2 * 3 + 3


def test_smallest_position_that_fails_is_named_with_the_command_that_shows_it(
    forgetful: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "cuts by reset: client link, both directions"
    monkeypatch.setattr(exhaustive, "FAMILIES", {name: FAMILIES[name]})
    assert main(["--sample", "300", "--processes", "1", "--seed", "3"]) == 1
    verdict, problem, again, total, _ = capsys.readouterr().out.splitlines()
    counts = re.fullmatch(name + r": (\d+) of (\d+) held", verdict)
    assert counts is not None
    assert 0 < int(counts[1]) < int(counts[2])
    assert total == f"all positions: {counts[1]} of {counts[2]} held"
    place, _, text = problem.strip().partition(": ")
    assert re.match(r"answers: expected: .*; seen: .*no answer within 310 s", text)
    assert again.strip() == f"again: python -m orbtrio.testing.exhaustive --seed 3 --only {place}"

    assert main(["--seed", "3", "--only", place]) == 1
    assert capsys.readouterr().out == f"{place}: {text}\n"
    smaller = [
        position
        for sweep in FAMILIES[name]
        for position in positions_of(sweep, 3)[::300]
        if position < int(place.rpartition(":")[2]) and try_positions(sweep, [position], 3)
    ]
    assert smaller == []


def test_one_position_can_be_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "worker:to_peer:silence:200"]) == 0
    assert capsys.readouterr().out == "worker:to_peer:silence:200: held\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--only", "worker:to_peer:silence"], "expected a number after one of client:to_engine:reset, "),
        (["--only", "worker:to_mars:reset:3"], "expected a number after one of client:to_engine:reset, "),
        (["--only", "engine:cancel:x"], "expected a number after one of client:to_engine:reset, "),
        (["--sample", "0"], "--sample: invalid"),
        (["--processes", "none"], "--processes: invalid"),
    ],
)
def test_argument_that_makes_no_sense_is_explained(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err


def test_processes_share_the_work(
    forgetful: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "cuts by reset: client link, both directions"
    monkeypatch.setattr(exhaustive, "FAMILIES", {name: FAMILIES[name], "engine": (ENGINE,)})
    monkeypatch.setattr(exhaustive, "_CHUNK", 2)

    def lines(processes: str) -> list[str]:
        main(["--sample", "300", "--processes", processes])
        return capsys.readouterr().out.splitlines()[:-1]

    assert lines("2") == lines("1")


async def quits(job: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit("had enough")


def test_any_exception_of_a_program_is_a_problem() -> None:
    (problem,) = try_positions(Sweep("client", "to_peer", "fin"), [5000], handler=quits)
    assert problem.position == 5000
    assert problem.text.startswith("exceptions: expected: none; seen: SystemExit('had enough')")


async def endless(job: dict[str, Any]) -> dict[str, Any]:
    while True:
        pass


def be_patient() -> None:
    exhaustive._PATIENCE = 60  # type: ignore[misc]  # in a process of its own


def test_process_gives_up_what_would_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhaustive, "_PATIENCE", 1)
    with ProcessPoolExecutor(1, initializer=exhaustive._Patience.install) as pool:
        (problem,) = pool.submit(try_positions, ENGINE, [10**6], handler=endless).result()
        assert problem.text.startswith("the end: expected: within 1 real seconds; seen: none")
        # And goes on with the next, for which it has more patience: the machine may be busy.
        pool.submit(be_patient).result()
        assert pool.submit(try_positions, ENGINE, [50]).result() == []
