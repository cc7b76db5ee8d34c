"""``python -m orbtrio.client`` against a real engine, with workers of the tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner
from PIL import Image

from orbtrio.client import __main__ as program
from orbtrio.client.__main__ import main
from orbtrio.client._program_inputs import Asked, Refused
from orbtrio.errors import JobFailed, RegistrationRefused
from tests.processes.harness import PATIENCE, Worker, ended, read_line, running_engine, stock_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.processes.harness import EngineProcess

ROOT = Path(__file__).resolve().parents[2]
BOX = {"x_min": 10, "y_min": 10, "x_max": 50, "y_max": 40}


def start(engine: EngineProcess, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if "CLIENT_TOKEN" not in name}
    return subprocess.Popen(
        [sys.executable, "-m", "orbtrio.client", *arguments],
        cwd=ROOT,
        env={**inherited, "SERVER_URL": engine.url, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    engine: EngineProcess, *arguments: str, lines: str = "", **environ: str
) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, results, and standard error."""
    process = start(engine, *arguments, **environ)
    with ended(process):
        output, errors = process.communicate(lines, timeout=PATIENCE)
    return process.returncode, [json.loads(line) for line in output.splitlines()], errors


@contextmanager
def answering(
    engine: EngineProcess, worker_type: str, answer: Callable[[dict[str, Any]], dict[str, Any]], jobs: int
) -> Iterator[None]:
    """A worker that answers so many jobs by a function of their inputs."""
    worker = Worker(engine, worker_type, latency=1)

    def work() -> None:
        left = jobs
        while left:
            batch = worker.batch()
            output = [{"id": job["id"], **answer(job["input"])} for job in batch]
            worker.send({"type": "worker_output", "output": output})
            left -= len(batch)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
        thread.join()
    finally:
        worker.close()


@pytest.mark.processes
def test_arguments_and_lines_become_jobs_and_results_lines(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        status, results, errors = run(engine, "echo", "--text", "a", "--text", "b", "--ordered")
        assert (status, [result["output"]["echo"] for result in results]) == (
            0,
            [{"text": "a"}, {"text": "b"}],
        )
        assert "2 of 2 jobs done" in errors
        # From standard input, with one job that fails, one that is none, and a file.
        (tmp_path / "x.jpg").write_bytes(b"as it is")
        lines = [
            {"worker_type": "echo", "input": {"n": 1}, "id": "first"},
            {"worker_type": "echo", "input": {"fail": "no cat"}},
            {"worker_type": "echo"},
            {"worker_type": "echo", "input": {"filepath": {"$image": str(tmp_path / "x.jpg")}}},
            {"worker_type": "echo", "input": {"filepath": {"$image": "/nowhere.jpg"}}},
        ]
        text = "\n".join(map(json.dumps, lines))
        status, results, _ = run(engine, "--ordered", "--quiet", lines=text)
    assert status == 1
    first, failed, none, with_file, missing = results
    assert (first["index"], first["id"], first["output"]) == (0, "first", {"echo": {"n": 1}})
    assert failed["error"] == {"kind": "failed", "message": "no cat"}
    assert none["error"] == {"kind": "invalid", "message": "line 3: input: expected an object"}
    assert with_file["output"]["size_bytes"] == len(b"as it is")
    assert missing["error"] == {"kind": "file", "message": "/nowhere.jpg: No such file or directory"}


@pytest.mark.processes
def test_many_lines_come_back_each_once(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine, ended(stock_worker(engine, MAX_LATENCY_MS="1")):
        text = "".join(f'{{"input": {{"n": {number}}}}}\n' for number in range(3000))
        status, results, _ = run(engine, "echo", "-", "--in-flight", "100", lines=text)
    assert status == 0
    assert sorted(result["output"]["echo"]["n"] for result in results) == list(range(3000))
    assert all(result["index"] == result["output"]["echo"]["n"] for result in results)


@pytest.mark.processes
def test_results_are_drawn_on_their_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (700, 500)).save(tmp_path / name)
    folder = tmp_path / "new" / "drawn"
    detections = [{"label": "cat", "score": 0.9, "box": BOX}]
    answers: Iterator[dict[str, Any]] = iter([{"detections": detections}, {"detections": 3}])
    with (
        running_engine(tmp_path / "data") as engine,
        answering(engine, "object_detection", lambda job_input: next(answers), 2),
    ):
        status, results, _ = run(
            engine, "object_detection", str(tmp_path), "--pictures", str(folder), "--ordered"
        )
    assert status == 0
    drawn, not_drawn = results
    assert drawn["file"] == str(tmp_path / "a.png")
    assert drawn["picture"] == str(folder / "000000-a.png")
    with Image.open(drawn["picture"]) as picture:
        assert picture.size == (700, 500)
    assert not_drawn["picture_error"].startswith("not drawn: ValueError")


@pytest.mark.processes
def test_a_watched_folder_is_asked_about_until_a_signal_comes(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (70, 50)).save(tmp_path / "x.png")
    with (
        running_engine(tmp_path / "data") as engine,
        answering(engine, "motion_energy", lambda job_input: {"motion_energy": 0.5}, 1),
    ):
        process = start(engine, "motion_energy", "--watch", str(folder), "--existing", "--session", "cam")
        with ended(process):
            shutil.copy(tmp_path / "x.png", folder / "x.png")
            result = json.loads(read_line(process))
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, ""), errors
    assert (result["file"], result["output"]) == (str(folder / "x.png"), {"motion_energy": 0.5})


def patiently(engine: EngineProcess, *arguments: str) -> tuple[subprocess.Popen[str], Worker]:
    """The program with two jobs that a worker has, and which wants more lines."""
    worker = Worker(engine, size=2)
    process = start(engine, "echo", "-", *arguments)
    assert process.stdin is not None
    process.stdin.write('{"input": {"n": 1}}\n{"input": {"n": 2}}\n')
    process.stdin.flush()
    return process, worker


@pytest.mark.processes
def test_a_first_signal_lets_open_jobs_finish(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        process, worker = patiently(engine)
        with ended(process):
            batch = worker.batch()
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert "SIGINT: waiting for the jobs that are open" in process.stderr.readline()
            worker.answer(batch)
            assert [json.loads(read_line(process))["output"]["echo"]["n"] for _ in range(2)] == [1, 2]
            assert process.wait(PATIENCE) == 130
        worker.close()


@pytest.mark.processes
def test_a_second_signal_cancels_them(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        process, worker = patiently(engine)
        with ended(process):
            worker.batch()
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 143
        worker.close()


@pytest.mark.processes
def test_a_reader_that_has_seen_enough_ends_it(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine, ended(stock_worker(engine, MAX_LATENCY_MS="1")):
        process = start(engine, "echo", "-", "--quiet")
        with ended(process):
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write('{"input": {}}\n')
            process.stdin.flush()
            read_line(process)
            process.stdout.close()
            process.stdin.write('{"input": {}}\n')
            process.stdin.flush()
            assert process.wait(PATIENCE) == 128 + signal.SIGPIPE


@pytest.mark.processes
def test_a_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open sesame\n")
    with (
        running_engine(tmp_path, CLIENT_TOKENS="open sesame=me") as engine,
        ended(stock_worker(engine, MAX_LATENCY_MS="1")),
    ):
        arguments = ("echo", "--text", "a")
        assert run(engine, *arguments, CLIENT_TOKEN="open sesame")[0] == 0
        assert run(engine, *arguments, ORB_CLIENT_TOKEN_FILE=str(tmp_path / "token"))[0] == 0
        status, [result], errors = run(engine, *arguments, CLIENT_TOKEN="wrong")
    assert status == 3
    assert result["error"]["kind"] == "refused"
    assert "Traceback" not in errors


# --- Wrong commands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["object_detection"], "this type needs pictures"),
        (["object_detection", "/nowhere.jpg"], "/nowhere.jpg: there is no such file"),
        (["object_detection", __file__, "--text", "a"], "object_detection has no use for --text"),
        (["echo", "--text", "a", "--existing"], "--existing goes with --watch only"),
        (["-", "--text", "a"], "name a worker TYPE first"),
        (["echo", "--text", "a", "--field", "b"], "--field b: write it as NAME=VALUE"),
        (["echo", "--text", "a", "--watch", "."], "--watch goes without files, lines and --text"),
        (["echo", "--text", "a", "--url", "http://x"], "http://x"),
        (["echo", "--text", "a", "--pictures", "/dev/null/x"], "--pictures /dev/null/x: Not a directory"),
        (["echo", "--text", "a", "--timeout", "0"], "timeout"),
    ],
)
def test_a_wrong_command_is_said_before_anything_is_connected(arguments: list[str], why: str) -> None:
    result = CliRunner().invoke(main, arguments, env={"CLIENT_TOKEN": None, "ORB_CLIENT_TOKEN_FILE": None})
    assert result.exit_code == 2, result.output
    assert why in result.output


def test_a_token_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    environ = {"CLIENT_TOKEN": None, "ORB_CLIENT_TOKEN_FILE": str(tmp_path / "none")}
    result = CliRunner().invoke(main, ["echo", "--text", "a"], env=environ)
    assert result.exit_code == 2
    assert "none': No such file" in result.output
    (tmp_path / "none").write_bytes(b"\xff")
    result = CliRunner().invoke(main, ["echo", "--text", "a"], env=environ)
    assert "none': not text" in result.output


@pytest.mark.processes
@pytest.mark.parametrize(("closed", "lines"), [("<&-", 1), (">&-", 0), ("2>&-", 1), ("<&- >&- 2>&-", 0)])
def test_closed_standard_streams_are_no_trouble(closed: str, lines: int, tmp_path: Path) -> None:
    """Results went into whatever was opened next."""
    words = "--text a -" if "<" in closed else "--text a"
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        command = f"{sys.executable} -m orbtrio.client echo {words} --url {engine.url} {closed}"
        ran = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False)
    assert len(ran.stdout.splitlines()) == lines


@pytest.mark.processes
def test_results_for_a_full_disk_end_it(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        command = f"{sys.executable} -m orbtrio.client echo --text a --url {engine.url} > /dev/full"
        ran = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 1
    assert "Error: results cannot be written to standard output: No space left on device" in ran.stderr


def test_nothing_on_a_terminal_is_a_wrong_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(Refused, match="nothing to send"):
        program._plan(None, (), Asked(), {"watch": None, "existing": False, "stream": None})


# --- Tokens as they come -----------------------------------------------------------------------------------


class Stream:
    """What `Client.stream` returns, with pieces and an end that the test gives."""

    def __init__(self, *pieces: tuple[int, dict[str, Any]], output: dict[str, Any] | Exception) -> None:
        self.attempt = 1
        self._pieces = list(pieces)
        self._end = output

    @property
    def output(self) -> dict[str, Any]:
        assert isinstance(self._end, dict)
        return self._end

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if self._pieces:
            self.attempt, piece = self._pieces.pop(0)
            return piece
        if isinstance(self._end, Exception):
            raise self._end
        raise StopAsyncIteration


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """What the program's streams will be, in order."""
    given: list[Stream] = []

    class Talking:
        def stream(self, *arguments: Any, **options: Any) -> Stream:
            return given.pop(0)

    @asynccontextmanager
    async def connect(*arguments: Any, **options: Any) -> AsyncIterator[Talking]:
        yield Talking()

    monkeypatch.setattr(program, "connect", connect)
    return given


def test_tokens_are_printed_as_they_come(streams: list[Stream], capfd: pytest.CaptureFixture[str]) -> None:
    said = {"response": "Hello there"}
    streams += [
        Stream((1, {"text": "Hello"}), (1, {"percent": 50}), (1, {"text": " there"}), output=said),
        Stream((1, {"text": "He"}), (2, {"text": "Hello there"}), output=said),
        Stream(output=said),
        Stream(output={"words": 2}),
        Stream((1, {"text": "Hel"}), output=JobFailed("no breath", {})),
    ]
    with pytest.raises(SystemExit) as ended_with:
        main(["llm", *(5 * ["--prompt", "Hi"]), "--stream", "--quiet"], standalone_mode=False)
    assert ended_with.value.code == 1
    assert capfd.readouterr().out.splitlines() == [
        "Hello there",
        "He",
        "Hello there",
        "Hello there",
        '{"index": 3, "worker_type": "llm", "output": {"words": 2}}',
        "Hel",
        '{"index": 4, "worker_type": "llm", "error": {"kind": "failed", "message": "no breath"}}',
    ]


def test_an_engine_that_does_not_want_us_ends_it(
    streams: list[Stream], capfd: pytest.CaptureFixture[str]
) -> None:
    streams.append(Stream(output=RegistrationRefused("unknown token")))
    with pytest.raises(SystemExit) as ended_with:
        main(["llm", "--prompt", "Hi", "--stream"], standalone_mode=False)
    assert ended_with.value.code == 3
    assert capfd.readouterr().err == "Error: unknown token\n"


@pytest.mark.processes
def test_a_signal_ends_a_stream_at_once(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        worker = Worker(engine, "llm", size=1)
        process = start(engine, "llm", "--prompt", "Hi", "--stream")
        with ended(process):
            worker.batch()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        worker.close()


@pytest.mark.processes
def test_a_stock_worker_s_answer_is_printed_when_it_is_done(tmp_path: Path) -> None:
    with (
        running_engine(tmp_path) as engine,
        answering(engine, "llm", lambda job_input: {"response": job_input["messages"][0]["content"]}, 1),
    ):
        process = start(engine, "llm", "--prompt", "Hi", "--stream")
        with ended(process):
            output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, "Hi\n"), errors
