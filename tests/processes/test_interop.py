"""A stock worker and a stock client, written from the spec's text alone, against our engine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes.harness import PATIENCE, ended, running_engine, stock_worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes.harness import EngineProcess

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def stock_client(engine: EngineProcess, *arguments: str) -> dict[str, Any]:
    """Run the stock client and return its summary."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.stock.stock_client", "--url", engine.url, "--type", "echo", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(summary, dict)
    return summary


@pytest.mark.parametrize("introduction", [(), ("--no-introduction",)], ids=["introduced", "request first"])
def test_stock_peers_do_jobs_through_our_engine(tmp_path: Path, introduction: tuple[str, ...]) -> None:
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        summary = stock_client(engine, "--jobs", "200", "--per-request", "20", *introduction)
        assert (summary["answered"], summary["errors"], summary["duplicates"]) == (200, 0, 0)
        assert engine.metrics()["orb_jobs_answered_total"] == 200


def test_stock_peers_share_an_image(tmp_path: Path) -> None:
    image = tmp_path / "photo.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(200_000))
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        summary = stock_client(
            engine, "--jobs", "10", "--per-request", "5", "--image", str(image), "--show-outputs"
        )
        outputs = summary["outputs"].values()
        assert len(outputs) == 10
        assert {output["sha256"] for output in outputs} == {hashlib.sha256(image.read_bytes()).hexdigest()}
        assert all(output["echo"]["filepath"].endswith(".png") for output in outputs)
