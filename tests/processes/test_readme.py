"""README.md's Python examples, run as they are printed but for the port."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from tests.processes.harness import PATIENCE, SECRET, ended, running_engine, wait_until

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


def test_http_engine_becomes_a_worker(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text(BLOCKS[4])
    (tmp_path / "README.md").write_text("three little words")
    commands = re.findall(r"```sh\npip install '.\[toolkit\]'\n(.*?)```", README, re.DOTALL)[0].splitlines()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with running_engine(tmp_path / "data") as engine:
        settings = commands[0].replace("change-me", f"'{SECRET}'").replace(":8888/", f":{port}/")
        environ = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SERVER_URL": engine.url,
            "ORB_TOOLKIT_CACHE": str(tmp_path / "cache"),
        }
        shell = ["bash", "-c", f"{settings}; exec {commands[1]}"]
        toolkit = subprocess.Popen(shell, cwd=tmp_path, env=environ, text=True, stderr=subprocess.PIPE)
        try:
            output = subprocess.run(
                f"{commands[2]} --url {engine.url}",
                shell=True,
                cwd=tmp_path,
                env=environ,
                check=True,
                capture_output=True,
                timeout=PATIENCE,
            ).stdout
            found = json.loads(output)["output"]["outputs"][0]["output"]["object"]
        finally:
            toolkit.terminate()
            print(toolkit.communicate(timeout=PATIENCE)[1], file=sys.stderr)
    assert found == [{"type": "count", "count": 3}]
    assert toolkit.returncode == 0
