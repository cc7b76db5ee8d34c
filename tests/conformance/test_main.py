"""The command line, as people use it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.__main__ import run

if TYPE_CHECKING:
    from pathlib import Path

FAST = ["--cases", "ORB-BAT-02", "--examples", "3", "--seed", "1"]


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def zoo(*mutants: str) -> str:
    faults = f" --mutants {','.join(mutants)}" if mutants else ""
    return f"{sys.executable} -m orbtrio.conformance.zoo.process engine{faults}"


def test_an_engine_that_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("engine", "--in-process", *FAST) == 0
    output = capsys.readouterr().out
    assert "seed 1" in output
    assert "ORB-BAT-02" in output


def test_our_own_engine_by_the_command_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    # The readme's is for all cases, which CI runs in a session of its own.
    few = ["--cases", "ORB-OUT-0*", "--max-seconds", "5", "--seed", "1"]
    assert (
        status("engine", "--launch", f"{sys.executable} -m orbtrio.engine", "--profile", "orbtrio", *few) == 0
    )
    assert "Every MUST that was judged holds" in capsys.readouterr().out


def test_files_on_another_machine_are_not_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("engine", "--in-process", "--no-files", "--cases", "ORB-RES-02", "--examples", "2") == 0
    assert "ORB-RES-02  SKIP" in capsys.readouterr().out


def test_an_engine_that_is_wrong_and_its_counterexample_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = str(tmp_path / "report")
    assert status("engine", "--launch", zoo("size-off-by-one"), *FAST, "--report", report) == 1
    output = capsys.readouterr().out
    assert "FAIL ORB-BAT-02 (MUST)" in output
    assert f"replay: python -m orbtrio.conformance replay {report}/ORB-BAT-02.json" in output
    stored = json.loads((tmp_path / "report" / "ORB-BAT-02.json").read_text())
    assert stored["case_id"] == "ORB-BAT-02" if "case_id" in stored else stored
    assert status("replay", f"{report}/ORB-BAT-02.json", "--launch", zoo("size-off-by-one")) == 1
    assert "FAIL ORB-BAT-02" in capsys.readouterr().out
    assert status("replay", f"{report}/ORB-BAT-02.json") == 1
    assert status("replay", f"{report}/ORB-BAT-02.json", "--launch", zoo()) == 0


def test_a_target_that_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("engine", "--launch", "no-such-program", *FAST) == 2
    assert "no-such-program" in capsys.readouterr().err


def test_a_target_that_does_nothing_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("engine", "--launch", zoo(), "--types", "a,b,c,d", *FAST) == 2
    assert "does not do the simplest job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["engine"], "one of --url, --launch and --in-process"),
        (["engine", "--in-process", "--url", "ws://127.0.0.1:1/ws"], "one of --url"),
        (["engine", "--in-process", "--profile", "no-such"], "no-such"),
        (["engine", "--in-process", "--cases", "ORB-NIL-*"], "list"),
        (["engine", "--in-process", "--types", "a,b"], "at least four different"),
        (["engine", "--url", "ws://127.0.0.1:1/ws"], "WORKER_SECRET"),
        (["explain", "ORB-NIL-01"], "there is no case"),
        (["engine", "--no-such-option"], "no-such-option"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_wrong_usage_is_four_and_says_what_to_change(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKER_SECRET", raising=False)
    assert status(*arguments) == 4
    assert complaint in capsys.readouterr().err


def test_other_machines_need_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_SECRET", "x")
    assert status("engine", "--url", "ws://192.0.2.1/ws") == 4
    assert "--i-own-this-host" in capsys.readouterr().err


def test_nobody_at_that_address(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_SECRET", "x")
    assert status("engine", "--url", "ws://127.0.0.1:1/ws") == 2
    assert "nothing can be reached" in capsys.readouterr().err


def test_a_file_that_is_no_counterexample(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert status("replay", str(tmp_path / "x.json"), "--in-process") == 4
    assert "x.json" in capsys.readouterr().err


def test_cases_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("list") == 0
    assert "ORB-BAT-01  MUST" in capsys.readouterr().out
    assert status("list", "--spec-coverage") == 0
    assert "0 without a case" in capsys.readouterr().out
    assert status("explain", "ORB-BAT-11") == 0
    output = capsys.readouterr().out
    assert '"Job Accumulation Rules": "Maximum queue size: 1000 jobs"' in output
    assert "orbtrio: " in output


def test_the_selftest_finds_what_it_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert status("--help") == 0
    assert "selftest" in capsys.readouterr().out


LOOPING = f"{sys.executable} -m tests.conformance.looping_client"


def test_a_client_that_is_right_and_one_that_never_connects(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--cases", "ORB-CLI-0[1-6]", "--examples", "2", "--seed", "1"]
    assert status("client", "--launch", LOOPING, "--profile", "hardened", *few) == 0
    assert "ORB-CLI-03  PASS" in capsys.readouterr().out
    assert status("client", "--launch", f"{sys.executable} -c pass", *few) == 2
    assert "ended before it connected" in capsys.readouterr().err


def test_a_counterexample_of_a_client_is_played_against_a_client(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stored = {
        "format": "orbtrio.conformance.counterexample",
        "version": 1,
        "case": "ORB-CLI-06",
        "role": "client",
        "target": "x",
        "profile": "spec",
        "seed": 1,
        "versions": {},
        "plan": {"payloads": [3], "gap_ms": 0},
        "expected": "a pong",
        "seen": "none",
        "at": 0.0,
        "failures": 3,
        "repetitions": 3,
        "events": [],
    }
    (tmp_path / "ORB-CLI-06.json").write_text(json.dumps(stored))
    assert status("replay", str(tmp_path / "ORB-CLI-06.json"), "--launch", LOOPING) == 0
    assert "PASS ORB-CLI-06" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["client"], "--launch a program, or --listen"),
        (["client", "--listen", "5000"], "127.0.0.1:5000"),
        (["client", "--listen", "127.0.0.1:99999"], "99999 is no port"),
    ],
)
def test_which_client_must_be_said(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*arguments) == 4
    assert complaint in capsys.readouterr().err


def worker(*mutants: str) -> str:
    faults = f" --mutants {','.join(mutants)}" if mutants else ""
    return f"{sys.executable} -m orbtrio.conformance.zoo.worker{faults}"


ONE_WORKER_CASE = ["--cases", "ORB-WRK-03", "--examples", "2", "--seed", "1"]


def test_a_worker_that_is_right_wants_no_type_and_any_inputs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    inputs = tmp_path / "inputs"
    inputs.write_text('{"text": "of ours"}\n')
    assert status("worker", "--launch", worker(), "--inputs", str(inputs), *ONE_WORKER_CASE) == 0
    assert "Every MUST that was judged holds" in capsys.readouterr().out


def test_a_worker_that_is_wrong_and_its_counterexample_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = str(tmp_path / "report")
    arguments = ["--launch", worker("worker-own-batch-size"), "--type", "embedding", "--profile", "orbtrio"]
    assert status("worker", *arguments, "--cases", "ORB-WRK-01", "--report", report) == 1
    assert "FAIL ORB-WRK-01 (MUST)" in capsys.readouterr().out
    assert status("replay", f"{report}/ORB-WRK-01.json", *arguments) == 1
    assert status("replay", f"{report}/ORB-WRK-01.json", "--launch", worker()) == 0
    assert status("replay", f"{report}/ORB-WRK-01.json") == 1


def test_a_worker_is_listened_for_on_this_machine_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("worker", "--launch", worker(), "--listen", "5000") == 4
    assert "--listen looks like" in capsys.readouterr().err
