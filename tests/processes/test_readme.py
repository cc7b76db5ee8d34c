"""README.md's Python examples, run as they are printed but for the port."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from PIL import Image

from orbtrio.conformance.sockets import free_port
from tests.processes.harness import PATIENCE, SECRET, ended, running_engine, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
README: Final = (ROOT / "README.md").read_text()
BLOCKS: Final = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(block: str, folder: Path, url: str, **environ: str) -> subprocess.Popen[str]:
    program = folder / f"example_{hash(block)}.py"
    program.write_text(block.replace("ws://localhost:5000/ws", url))
    return subprocess.Popen(
        [sys.executable, str(program)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "WORKER_SECRET": SECRET, "SERVER_URL": url, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_worker_and_client_of_the_readme(tmp_path: Path) -> None:
    worker_block, client_block, *_ = BLOCKS
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    with running_engine(tmp_path) as engine:
        motion_energy = subprocess.Popen(
            [sys.executable, "-m", "workers.motion_energy"],
            cwd=ROOT,
            env={**os.environ, "WORKER_SECRET": SECRET, "SERVER_URL": engine.url, "LOG_LEVEL": "warn"},
            text=True,
        )
        with ended(motion_energy, run(worker_block, tmp_path, engine.url)):
            wait_until(lambda: sum(n for k, n in engine.metrics().items() if "orb_workers{" in k) == 2)
            client = run(client_block, tmp_path, engine.url)
            output, errors = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, errors
    first, *rest = output.splitlines()
    assert first == "{'text': 'HELLO'}"
    assert [line.rpartition("{")[2] for line in rest] == ["'motion_energy': 0.0}"] * 2


def test_results_in_pieces(tmp_path: Path) -> None:
    indented = textwrap.indent(BLOCKS[2], " " * 8)
    program = f"""
import orbtrio, trio

async def main():
    async with orbtrio.connect("ws://localhost:5000/ws") as client:
{indented}
trio.run(main)
"""
    with running_engine(tmp_path) as engine:
        environ = {**os.environ, "WORKER_SECRET": SECRET, "SERVER_URL": engine.url, "WORKER_TYPE": "llm"}
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.steady_worker"], cwd=ROOT, env=environ, text=True
        )
        with ended(worker):
            client = run(program, tmp_path, engine.url)
            output, errors = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, errors
    assert output == "Hello, world!{'response': 'Hello, world!'}\n"


def test_engine_inside_a_program(tmp_path: Path) -> None:
    worker_block, _, _, embedding_block, _ = BLOCKS
    secret = "change-me"
    embedding_block = embedding_block.replace(
        "print(engine.addresses,", "print(engine.addresses, flush=True); print("
    )
    environ = {"XDG_DATA_HOME": str(tmp_path / "data"), "WORKER_SECRET": secret}
    program = run(
        embedding_block.replace("worker_types=", "server_port=0, worker_types="), tmp_path, "", **environ
    )
    with ended(program):
        assert program.stdout is not None
        found = re.search(r"ws://127.0.0.1:\d+/ws", program.stdout.readline())
        assert found
        with ended(run(worker_block, tmp_path, found[0], WORKER_SECRET=secret)):
            output, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0, errors
    assert output.startswith("{'text': 'HELLO'}\nEngineStatistics(")


def shell_block(first: str) -> list[str]:
    """The commands of the block that begins so."""
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        if block.startswith(first):
            lines: list[str] = block.splitlines()
            return lines
    raise AssertionError(f"README.md has no block that begins with {first}")


@contextmanager
def toolkit_of_the_readme(folder: Path, command: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "words.py").write_text(BLOCKS[4])
    (folder / "README.md").write_text("three little words")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ORB_TOOLKIT_CACHE": str(folder / "cache"),
        **environ,
    }
    port = free_port()
    process = subprocess.Popen(
        ["bash", "-c", command.replace(":8888/", f":{port}/")],
        cwd=folder,
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.terminate()
        print(process.communicate(timeout=PATIENCE)[1], file=sys.stderr)
    assert process.returncode == 0


def test_http_engine_becomes_a_worker(tmp_path: Path) -> None:
    _, settings, start, ask = shell_block("pip install '.[toolkit]'")
    with running_engine(tmp_path / "data") as engine:
        settings = settings.replace("change-me", f"'{SECRET}'")
        with toolkit_of_the_readme(tmp_path, f"{settings}; exec {start}", SERVER_URL=engine.url):
            client = subprocess.run(
                ["bash", "-c", f"{ask.replace('| python', f'| {sys.executable}')} --url {engine.url}"],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=True,
                stdout=subprocess.PIPE,
                timeout=PATIENCE,
            )
    found = json.loads(client.stdout)["output"]["outputs"][0]["output"]["object"]
    assert found == [{"type": "count", "count": 3}]


def test_http_engine_can_be_tried_alone(tmp_path: Path) -> None:
    (command,) = shell_block("python -m orbtrio.toolkit --console")
    with toolkit_of_the_readme(tmp_path, f"exec {command}") as toolkit:
        assert toolkit.stderr is not None
        found = next(
            match[0] for line in toolkit.stderr if (match := re.search(r"http://\S+/console\S*", line))
        )
        with urllib.request.urlopen(found, timeout=PATIENCE) as answer:
            assert b"words" in answer.read()
