"""The program: which cases, which engines, which exit status."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import pytest

from benchmarks.end_to_end import main
from benchmarks.measure import BASELINE, OURS
from tests.benchmarks.conftest import BASELINE as PLAIN
from tests.benchmarks.conftest import liar

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.cases import Case


@pytest.fixture(autouse=True)
def _only_small(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.end_to_end.CASES", (small, attrs.evolve(small, name="twin")))


@pytest.mark.processes
def test_engines_are_compared_in_one_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    garbles = shlex.join(liar("return honest(self, job_id, {})"))
    compare = ["--compare", shlex.join(PLAIN), "--compare", garbles, "--compare", "no-such-engine --fast"]
    file = tmp_path / "out.json"
    arguments = ["--repeat", "1", "--cases", "sm*", "--json", str(file), *compare]
    assert main(arguments, {OURS: PLAIN, BASELINE: PLAIN}) == 0
    out = capsys.readouterr().out
    assert "other2: no-such-engine --fast\n" in out
    table = out.partition("---\n")[2].partition("\n\n")[0]
    floor, ours, baseline, other, liar_line, missing = table.splitlines()
    assert floor.split()[:2] == ["small", "floor"]
    assert ours.split()[0] == "orbtrio"
    assert baseline.split()[0] == "baseline"
    assert other.split()[0] == "other"
    assert other.split()[4].endswith("x")
    assert "FAILED: job_id" in liar_line
    assert "FAILED: cannot start no-such-engine" in missing
    assert [case["case"] for case in json.loads(file.read_text())["cases"]] == ["small"]


@pytest.mark.processes
def test_an_engine_of_ours_that_answers_wrongly_is_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    engines = {OURS: liar("return honest(self, job_id, {})")}
    assert main(["--repeat", "1", "--no-baseline"], engines) == 1
    assert capsys.readouterr().out.count("wrong answer") == 2  # the next case is run all the same


@pytest.mark.processes
def test_a_check_fails_without_a_verdict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "expected.toml"
    file.write_text('margin = 1.25\n[ratio]\n"gone" = 2.0\n')
    assert main(["--check", str(file)]) == 1
    assert "FAILED: there is no case gone" in capsys.readouterr().err


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--cases", "100b"])
    assert "no case is called 100b" in capsys.readouterr().err


@pytest.mark.processes
def test_the_package_is_a_program() -> None:
    command = [sys.executable, "-m", "benchmarks", "--help"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "python -m benchmarks" in output
    assert "100B-req32-batch32" in output
