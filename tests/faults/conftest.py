"""The fixture `figure`, and the table of all figures at the end; also in the file ORB_FAULTS_REPORT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.report import Figures

if TYPE_CHECKING:
    from collections.abc import Generator

_FIGURES = Figures()


@pytest.fixture
def figure() -> Figures:
    """Notes a row of the table."""
    return _FIGURES


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test without a figure has its reason in the table."""
    report = yield
    if "tests/faults/" in item.nodeid:
        if report.skipped and isinstance(report.longrepr, tuple):
            _FIGURES.note(item.name, f"not run: {report.longrepr[2].removeprefix('Skipped: ')}")
        elif report.failed:
            _FIGURES.note(item.name, f"FAILED in {report.when}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if not _FIGURES:
        return
    lines = _FIGURES.table()
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
    path = os.environ.get("ORB_FAULTS_REPORT")
    if path:
        Path(path).write_text("\n".join(lines) + "\n")
