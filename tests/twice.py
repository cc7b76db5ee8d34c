"""Run tests, and the few that failed once more: ``python -m tests.twice [--cover]``, then pytest's arguments.

A real defect fails twice; a machine's hiccup does not. Of six thousand tests many have threads, sockets and
processes; that one of them was held up, on a machine that is busy with other things, says nothing about the
change. So at most `MOST` failures are run again, once, in a fresh process. What passes then is named as
UNSTABLE, to be mended; what fails again has failed. More failures than that are no hiccup, nor is a run that
ended in any other way: those fail at once.

Rejected: plugins that repeat a failed test in the same process, where it finds whatever broke it the first
time, and which repeat a hundred failures as readily as one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

MOST = 3


def main(arguments: list[str]) -> int:
    """Run the tests, and perhaps some of them again.

    Args:
        arguments: Those of pytest, after ``--cover`` where `coverage` is to measure both runs.

    Returns:
        pytest's exit status: of the first run, or of the second where there was one.
    """
    covered = arguments[:1] == ["--cover"]
    runner = ("coverage", "run", "-m") if covered else ()
    command = [sys.executable, "-m", *runner, "pytest", *arguments[covered:]]
    with TemporaryDirectory() as folder:
        # A fresh cache knows of no failure but this run's.
        command += ["-o", f"cache_dir={folder}/cache"]
        status = subprocess.run(command).returncode
        if status != pytest.ExitCode.TESTS_FAILED:
            return status
        failed = sorted(json.loads(Path(folder, "cache/v/cache/lastfailed").read_text()))
        if len(failed) > MOST:
            print(f"{len(failed)} tests failed, more than {MOST}: none is run again", flush=True)
            return status
        print(f"{len(failed)} failed; again, once, in a fresh process:", *failed, sep="\n    ", flush=True)
        report = Path(folder, "report.xml")
        again = ("--last-failed", "--last-failed-no-failures", "none", f"--junitxml={report}")
        status = subprocess.run([*command, *again]).returncode
        if status == pytest.ExitCode.OK and passed(report) != len(failed):
            print("not all of them were run again", flush=True)
            return pytest.ExitCode.TESTS_FAILED
    if status == pytest.ExitCode.OK:
        print(*(f"UNSTABLE: {test} failed once, and passed the second time" for test in failed), sep="\n")
    return status


def passed(report: Path) -> int:
    """How many tests of a JUnit report passed."""
    cases = ET.parse(report).iter("testcase")
    return sum(case.find("skipped") is None for case in cases)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
