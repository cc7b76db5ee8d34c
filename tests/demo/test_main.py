from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import trio
from click.testing import CliRunner
from rich.console import Console

from orbtrio.demo import __main__ as demo
from orbtrio.demo.__main__ import Progress, main

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

IDLE = {
    "orb_worker_jobs_total": 0.0,
    "orb_worker_batches_total": 0.0,
    "orb_worker_latency_seconds_count": 0.0,
    "orb_worker_latency_seconds_sum": 0.0,
    "orb_worker_queued": 7.0,
    "orb_worker_unanswered": 0.0,
}
BUSY = {
    "orb_worker_jobs_total": 30.0,
    "orb_worker_batches_total": 4.0,
    "orb_worker_latency_seconds_count": 4.0,
    "orb_worker_latency_seconds_sum": 0.5,
    "orb_worker_queued": 0.0,
    "orb_worker_unanswered": 2.0,
}


def write_video(path: Path, frames: int) -> Path:
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    video = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, fourcc, 25.0, (64, 48))
    for number in range(frames):
        video.write(np.full((48, 64, 3), 12 * number, np.uint8))
    video.release()
    return path


def test_too_short_a_video_fails_before_anything_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(write_video(tmp_path / "stub.avi", frames=2))])
    assert result.exit_code == 1
    assert "2 frames found" in result.output


@pytest.mark.parametrize(("mistakes", "shown"), [(1, 1), (12, 10)])
def test_wrong_answers_fail_the_demo(mistakes: int, shown: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_demo(*args: object) -> list[str]:
        return ["a frame [was] lost"] * mistakes

    monkeypatch.setattr(demo, "run_demo", run_demo)
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 1
    assert result.output.count("wrong: a frame [was] lost") == shown
    assert f"{mistakes} answers are missing or wrong." in result.output


async def test_jobs_without_an_answer_are_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_everything(*args: object) -> Progress:
        return Progress(1, failures=["('text', 3): JobTimedOut('no answer')"])

    monkeypatch.setattr(demo, "_ask_everything", ask_everything)
    video = write_video(tmp_path / "short.avi", frames=4)
    mistakes = await demo.run_demo(video, tmp_path / "out.png", Console(file=io.StringIO()))
    assert mistakes == ["('text', 3): JobTimedOut('no answer')"]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch_workers(address: str) -> dict[str, dict[str, float]]:
        return {"motion_energy-1": BUSY, "motion_energy-2": IDLE}

    monkeypatch.setattr(demo, "fetch_workers", fetch_workers)


@pytest.mark.usefixtures("workers")
async def test_a_terminal_sees_a_table(autojump_clock: MockClock) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    with trio.move_on_after(1):
        await demo._show(Progress(700), "127.0.0.1:5000", console)
    shown = output.getvalue()
    assert re.search(r"motion_energy-1 +│ +30 +│ +4 +│ +7.5 +│ +125 +│ +0 +│ +2 ", shown)
    assert re.search(r"motion_energy-2 +│ +0 +│ +0 +│ +│ +│ +7 +│ +0 ", shown)


@pytest.mark.usefixtures("workers")
async def test_a_file_gets_a_line_from_time_to_time(autojump_clock: MockClock) -> None:
    output = io.StringIO()
    with trio.move_on_after(5):
        await demo._show(Progress(700), "127.0.0.1:5000", Console(file=output))
    assert re.fullmatch(r"(0 of 700 jobs answered after \d\.\d s\n){3}", output.getvalue())
