"""A test that fails once passes with a note; one that fails twice fails, and so do many at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.twice import MOST

ROOT: Final = Path(__file__).resolve().parent.parent

# Each writes down that it ran, and fails as often as its name says.
TESTS: Final = """
import pathlib
import pytest

def run(name, failures):
    with pathlib.Path("runs").open("a") as runs:
        print(name, file=runs)
    assert pathlib.Path("runs").read_text().split().count(name) > failures

def test_good():
    run("good", 0)
"""


def run_twice(folder: Path, tests: str, *options: str) -> tuple[int, str, list[str]]:
    """The status, the output, and what ran, in this order."""
    (folder / "pytest.ini").write_text("[pytest]")
    (folder / "test_some.py").write_text(TESTS + tests)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.twice", *options, "-q"],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr, (folder / "runs").read_text().split()


def failing(name: str, failures: int) -> str:
    return f"\ndef test_{name}():\n    run({name!r}, {failures})\n"


def test_nothing_is_run_again_where_all_pass(tmp_path: Path) -> None:
    status, output, runs = run_twice(tmp_path, "")
    assert (status, runs) == (0, ["good"])
    assert "UNSTABLE" not in output


def test_what_fails_once_passes_and_is_named(tmp_path: Path) -> None:
    (tmp_path / ".coveragerc").write_text("[run]\nparallel = true\n")
    status, output, runs = run_twice(tmp_path, failing("once", 1), "--cover")
    assert (status, runs) == (0, ["good", "once", "once"]), output
    assert "UNSTABLE: test_some.py::test_once failed once, and passed the second time\n" in output
    assert output.count("UNSTABLE") == 1
    assert len(list(tmp_path.glob(".coverage.*"))) == 2, "what either run covered counts"


def test_what_fails_twice_fails(tmp_path: Path) -> None:
    status, output, runs = run_twice(tmp_path, failing("once", 1) + failing("twice", 2))
    assert status == pytest.ExitCode.TESTS_FAILED
    assert runs == ["good", "once", "twice", "once", "twice"]
    assert "UNSTABLE" not in output


def test_many_failures_are_not_run_again(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(MOST + 1)]
    status, output, runs = run_twice(tmp_path, "".join(failing(name, 1) for name in names))
    assert status == pytest.ExitCode.TESTS_FAILED
    assert runs == ["good", *names]
    assert "4 tests failed, more than 3: none is run again" in output


def test_what_is_skipped_the_second_time_has_not_passed(tmp_path: Path) -> None:
    skipped = """
def test_skipped():
    if pathlib.Path("begun").exists():
        pytest.skip("not now")
    pathlib.Path("begun").touch()
    assert False
"""
    status, output, _ = run_twice(tmp_path, skipped)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "not all of them were run again" in output


def test_a_module_that_cannot_be_imported_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import no_such_module")
    (tmp_path / "runs").touch()
    status, output, runs = run_twice(tmp_path, "")
    assert status == pytest.ExitCode.INTERRUPTED
    assert runs == []
    assert "UNSTABLE" not in output
