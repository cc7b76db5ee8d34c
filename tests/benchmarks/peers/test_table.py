"""The table has a line for each system, and says what it leaves out."""

from __future__ import annotations

import attrs

from benchmarks.peers.table import render
from tests.benchmarks.peers.reports import OURS, REPORT


def test_a_line_for_each_system_in_columns_of_equal_width() -> None:
    lines = render(REPORT).splitlines()[:4]
    assert len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[0] == "theirs 3.4, server in <C>"
    assert cells[1:5] == ["60.0 (50.0–120.0)", "10.0", "32", "1,000"]  # noqa: RUF001
    assert cells[8:] == ["10.50 / 12.00", "0.20 / 0.40"]


def test_one_who_is_set_up_for_both_at_once_says_so() -> None:
    assert render(attrs.evolve(REPORT, rows=[OURS])).splitlines()[2].endswith("the same |")


def test_below_it_are_jobs_settings_versions_reasons_verdict_and_circumstances() -> None:
    text = render(REPORT)
    assert "theirs: 3 × 1,000 jobs of 100 B" in text  # noqa: RUF001
    assert "600 lone jobs; theirs 3.4, lib 5.6" in text
    assert "- theirs: waits 10 ms; waits for nobody" in text
    assert "- absent: absent not installed; pip install absent" in text
    assert "- broken: no job is answered" in text
    assert "Where orbtrio is behind: ours needs 2.0 times" in text
    assert "2026-01-02, 2 processors. `python -m benchmarks.peers`" in text


def test_nothing_left_out_is_not_mentioned() -> None:
    text = render(attrs.evolve(REPORT, rows=[OURS], skipped={}, failed={}))
    assert "Skipped" not in text
    assert "Failed" not in text
    assert "Where orbtrio is behind: nowhere." in text
