"""HTTP engines of every manner as workers: real processes, and stock clients that know nothing of them."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from orbtrio.conformance.sockets import free_port
from tests.processes.harness import PATIENCE, SECRET, Client, running_engine, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes.harness import EngineProcess

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

ENGINE: Final = Path(__file__).with_name("http_engine.py")


class Toolkit:
    """``python -m orbtrio.toolkit`` with an engine of some manner."""

    def __init__(
        self, engine: EngineProcess, directory: Path, manner: str, *, engine_id: str = "", **environ: str
    ) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        port = free_port()
        program = (sys.executable, str(ENGINE), manner, str(port), str(directory))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orbtrio.toolkit", "--engine-id", engine_id or manner, "--", *program],
            env={
                **os.environ,
                "SERVER_URL": engine.url,
                "WORKER_SECRET": SECRET,
                "LOG_LEVEL": "warn",
                "ORB_TOOLKIT_CACHE": str(directory / "cache"),
                "VERITONE_WEBHOOK_READY": f"http://127.0.0.1:{port}/ready",
                "VERITONE_WEBHOOK_PROCESS": f"http://127.0.0.1:{port}/process",
                **environ,
            },
            stderr=subprocess.PIPE,
            text=True,
        )

    def engines(self) -> list[int]:
        """Process ids of all engines that it has started."""
        return [int(path.stem) for path in self.directory.glob("*.pid")]

    def end(self) -> str:
        """Stop it; what it and its engine have written to stderr."""
        self.process.terminate()
        try:
            return self.process.communicate(timeout=PATIENCE)[1]
        finally:
            self.process.kill()
            # The engine of a toolkit that was killed lives on.
            for pid in self.engines():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


@contextmanager
def running(*toolkits: Toolkit) -> Iterator[None]:
    try:
        yield
    finally:
        for toolkit in toolkits:
            print(toolkit.end(), file=sys.stderr)


class StockClient(Client):
    """A client that asks for nothing."""

    def __init__(self, engine: EngineProcess) -> None:
        super().__init__(engine, engine_errors=False)

    def submit(self, engine_id: str, texts: dict[str, str], **fields: Any) -> None:
        """One job for each text, by job id, all in one request."""
        resources = [{"id": f"r-{name}", "type": "document", "data": text} for name, text in texts.items()]
        jobs = [
            {
                "job_id": name,
                "worker_type": f"et:{engine_id}",
                "input": {"chunk": {"__type": "resource-ref", "id": f"r-{name}"}, **fields},
            }
            for name in texts
        ]
        self.send({"type": "worker_request", "resources": resources, "jobs": jobs})


def texts_of(output: dict[str, Any]) -> list[str]:
    assert output["status"] == "complete", output
    return [each["output"]["object"][0]["text"] for each in output["outputs"]]


@pytest.mark.parametrize(
    ("manner", "engine_type"),
    [
        pytest.param("part", "chunk", id="et_07_69_reads_only_the_chunk"),
        pytest.param("cache", "chunk", id="et_30_77_reads_only_cacheURI"),
        pytest.param("later", "chunk", id="et_32_95_posts_its_result_later"),
        pytest.param("hasty", "stream", id="et_35_posts_complete_before_its_acknowledgement"),
        pytest.param("hasty", "batch", id="et_35_a_batch_engine_does_so"),
        pytest.param("crash", "chunk", id="crashes_in_its_first_call"),
    ],
)
def test_et_07_30_32_35_42_69_77_engine_does_its_jobs(manner: str, engine_type: str, tmp_path: Path) -> None:
    with running_engine(tmp_path / "data") as engine:
        toolkit = Toolkit(engine, tmp_path / "toolkit", manner)
        with running(toolkit):
            client = StockClient(engine)
            texts = {f"job-{number}": f"text {number} ä" for number in range(5)}
            client.submit(manner, texts, engineType=engine_type)
            outputs = client.responses(len(texts))
            client.close()
        assert {name: texts_of(output) for name, output in outputs.items()} == {
            name: [text] for name, text in texts.items()
        }
        assert len(toolkit.engines()) == (2 if manner == "crash" else 1)


def test_et_67_engine_that_is_never_ready_ends_its_toolkit_and_costs_no_job(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data") as engine:
        hopeless = Toolkit(engine, tmp_path / "hopeless", "never", ORB_TOOLKIT_READY_TIMEOUT="0.5")
        client = StockClient(engine)
        client.submit("never", {"job": "text"})
        with running(hopeless):
            assert hopeless.process.wait(PATIENCE) == 1
        # The job waits for somebody who can.
        with running(Toolkit(engine, tmp_path / "better", "part", engine_id="never")):
            assert texts_of(client.responses(1)["job"]) == ["text"]
        client.close()


def test_500_chunks_survive_the_death_of_a_toolkit_and_of_an_engine(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data") as engine:
        toolkits = [Toolkit(engine, tmp_path / f"toolkit-{number}", "slow") for number in range(4)]
        with running(*toolkits):
            wait_until(lambda: engine.metrics().get('orb_workers{type="et:slow"}', 0) == 4)
            client = StockClient(engine)
            texts = {f"job-{number}": f"text {number}" for number in range(500)}
            client.submit("slow", texts)
            outputs = client.responses(100)
            toolkits[0].process.kill()
            (victim,) = toolkits[1].engines()
            os.kill(victim, signal.SIGKILL)
            # `responses` fails if one is answered twice.
            outputs |= client.responses(400, within=4 * PATIENCE)
            with pytest.raises(TimeoutError):
                client.receive(within=1)
            client.close()
        assert {name: texts_of(output) for name, output in outputs.items()} == {
            name: [text] for name, text in texts.items()
        }
        assert len(toolkits[1].engines()) == 2
        assert engine.files_on_disk() == []


def is_running(pid: int) -> bool:
    """Not even as a zombie, for whoever inherits it may be slow."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_et_47_second_signal_ends_toolkit_and_engine_at_once(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data") as engine:
        toolkit = Toolkit(engine, tmp_path / "toolkit", "mute", LOG_LEVEL="info")
        with running(toolkit):
            client = StockClient(engine)
            client.submit("mute", {"job": "text"})
            wait_until((toolkit.directory / "called").exists)
            (pid,) = toolkit.engines()
            toolkit.process.terminate()
            assert toolkit.process.stderr is not None
            while "a second signal ends at once" not in toolkit.process.stderr.readline():
                assert toolkit.process.poll() is None
            toolkit.process.terminate()
            assert toolkit.process.wait(PATIENCE) == -signal.SIGTERM
            wait_until(lambda: not is_running(pid))
            # The job is for the next one.
            with running(Toolkit(engine, tmp_path / "better", "part", engine_id="mute")):
                assert texts_of(client.responses(1)["job"]) == ["text"]
            client.close()


# --- The page's example of a round trip --------------------------------------------------------------------


class NotificationServer:
    """What ``sendOutputToUris`` names: keeps who was told what, and when."""

    def __init__(self) -> None:
        self.notices: list[tuple[float, str, dict[str, str], bytes]] = []
        notices = self.notices

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                notices.append((time.time(), self.path, dict(self.headers), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/notify"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("manner", ["part", "later"])
def test_et_114_115_116_120_122_123_round_trip(manner: str, tmp_path: Path) -> None:
    """The caller's header reaches the notification server as it was, whichever way the engine answers."""
    notified = NotificationServer()
    with running_engine(tmp_path / "data") as engine:
        toolkit = Toolkit(engine, tmp_path / "toolkit", manner)
        with running(toolkit):
            client = StockClient(engine)
            round_trips = []
            for number in range(20):
                sent_at = repr(time.time())
                client.submit(
                    manner,
                    {f"job-{number}": "text"},
                    metadata={"x-aiware-chunk-timestamp": sent_at, "x-other": "no header"},
                    sendOutputToUris=[notified.url],
                    jobId="job id",
                )
                output = client.responses(1)[f"job-{number}"]
                wait_until(lambda: len(notified.notices) == number + 1)  # noqa: B023  (waited for at once)
                received_at, path, headers, body = notified.notices[-1]
                given = {name.lower(): value for name, value in headers.items()}
                assert given["x-aiware-chunk-timestamp"] == sent_at
                assert "x-other" not in given
                assert path.startswith("/notify/internalJobID=job%20id&internalTaskID=")
                assert b'"text"' in body
                assert texts_of(output) == ["text"]
                round_trips.append(received_at - float(sent_at))
            client.close()
    notified.close()
    assert 0 < statistics.median(round_trips) < PATIENCE


def test_et_118_121_engine_reads_the_metadata_of_its_chunk(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data") as engine:
        toolkit = Toolkit(engine, tmp_path / "toolkit", "echo")
        with running(toolkit):
            client = StockClient(engine)
            client.submit(
                "echo", {"job": "text"}, metadata={"x-aiware-chunk-timestamp": "1763799412.25", "n": 5}
            )
            (output,) = client.responses(1).values()
            client.close()
    fields = output["outputs"][0]["output"]["fields"]
    assert fields["chunk-metadata-x-aiware-chunk-timestamp"] == "1763799412.25"
    assert fields["chunk-metadata-n"] == "5"
    assert fields["chunk"] == "text"
