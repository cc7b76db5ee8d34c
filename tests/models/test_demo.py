"""The demo: every builtin worker as a process, on a short video."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from orbtrio.demo.__main__ import main
from tests.demo.test_main import write_video

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_short_video_and_photographs_are_answered_rightly(tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "short.avi", frames=18), tmp_path / "out.png"
    result = CliRunner().invoke(main, [str(video), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert re.search(r"(\d+) of \1 jobs answered", result.output)
    assert "Every job was answered, and answered rightly." in result.output
    assert out.stat().st_size > 100_000
