"""The README's questions, word by word, to workers that a fleet's file starts."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.models.photographs import photograph
from tests.processes.harness import SECRET, running_engine, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
FLEET = """
[environment]
MAX_BATCH_SIZE = "4"

[[worker]]
type = "embedding"

[[worker]]
type = "llm"

[[worker]]
type = "object_detection"
"""


def readme_questions() -> list[str]:
    """The commands of the section that asks and watches."""
    section = (ROOT / "README.md").read_text().partition("### Ask and watch")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block
    return block[1].splitlines()


def test_questions_of_the_readme_are_answered(tmp_path: Path) -> None:
    photograph("chelsea").save(tmp_path / "photo.jpg")
    (tmp_path / "fleet.toml").write_text(FLEET)
    with running_engine(tmp_path) as engine:
        environ = {**os.environ, "WORKER_SECRET": SECRET, "SERVER_URL": engine.url, "PYTHONPATH": str(ROOT)}
        fleet = subprocess.Popen(
            [sys.executable, "-m", "workers", "run", "fleet.toml"], cwd=tmp_path, env=environ
        )

        def ask(command: str) -> str:
            program, *arguments = shlex.split(command)
            assert program == "python"
            asked = subprocess.run(
                [sys.executable, *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True
            )
            assert asked.returncode == 0, asked.stderr
            return asked.stdout

        def vector(answer: str) -> bool:
            return bool(json.loads(answer)["output"]["shape"] == [384])

        def cat(answer: str) -> bool:
            (found,) = json.loads(answer)["output"]["detections"]
            with Image.open(tmp_path / "drawn" / "000000-photo.png") as drawn:
                assert drawn.width >= 451
            return bool(found["label"] == "cat")

        checks: dict[str, Callable[[str], bool]] = {
            "embedding": vector,
            "object_detection": cat,
            "llm": lambda answer: "Paris" in answer,
            "--once": lambda answer: all(name in answer for name in ("embedding-1", "llm-1")),
        }
        try:
            counts = [f'orb_workers{{type="{name}"}}' for name in ("embedding", "llm", "object_detection")]
            wait_until(lambda: all(engine.metrics().get(name) == 1 for name in counts), within=120)
            questions = readme_questions()
            assert len(questions) == len(checks)
            for question in questions:
                (name,) = checks.keys() & set(question.split())
                answer = ask(question)
                assert checks[name](answer), answer
        finally:
            fleet.terminate()
            assert fleet.wait(60) == 0
