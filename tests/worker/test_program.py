"""A worker as a program: help, settings, loading, signals.

In this process, so that it can be looked at; `tests.test_interop_worker` starts real ones.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio._polling import busy_polling
from orbtrio.errors import ConfigError
from orbtrio.worker import program, run_program
from orbtrio.worker.settings import VARIABLES
from tests.stock import stock_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orbtrio.worker import Job, WorkerSettings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORKER_SECRET", "hush")
    monkeypatch.setenv("SERVER_URL", "ws://127.0.0.1:9/ws")


@pytest.fixture(autouse=True)
def _signals_and_log_as_before() -> Iterator[None]:
    """The program leaves signals at the system's default, and a handler on the root logger."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    level, log_handlers = root.level, list(root.handlers)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    root.setLevel(level)
    root.handlers[:] = log_handlers


def exit_status(load: Callable[[WorkerSettings], Any], *arguments: str, **options: Any) -> int:
    with pytest.raises(SystemExit) as caught:
        run_program(load, worker_type="echo", arguments=arguments, **options)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def load_nothing(settings: WorkerSettings) -> Any:
    raise AssertionError("not to be loaded")


def send_signal(number: int = signal.SIGTERM, *, when: Callable[[], bool] = lambda: True) -> None:
    """Send this process a signal as soon as something is so."""

    def wait_and_send() -> None:
        deadline = time.monotonic() + 50
        while not when() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_send).start()


def test_help_lists_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        exit_status(load_nothing, "--help", description="Echoes.\n\n    {a: 1}  ->  {a: 1}\n\nThe end.") == 0
    )
    help_text = capsys.readouterr().out
    assert "Echoes." in help_text
    assert "\n      {a: 1}  ->  {a: 1}\n" in help_text
    for name, variable in VARIABLES.items():
        (line,) = [line for line in help_text.splitlines() if line.strip().startswith(name)]
        assert variable.help in line
        default = "echo" if name == "WORKER_TYPE" else variable.default
        assert default is None or line.endswith(f"Default: {default}.")


def test_help_without_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(load_nothing, "--help") == 0
    assert "WORKER_SECRET" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("--secret", "hush"), ("hush",)])
def test_takes_no_arguments(arguments: tuple[str, ...]) -> None:
    """P-06: a secret on a command line is in every process list."""
    assert exit_status(load_nothing, *arguments) == 2


def test_settings_that_cannot_work_are_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORKER_SECRET")
    assert exit_status(load_nothing) == 2
    assert capsys.readouterr().err == (
        "Error: WORKER_SECRET is not set. Required: the engine's WORKER_SECRET.\n"
    )


def test_model_that_cannot_be_had_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def load(settings: WorkerSettings) -> Any:
        raise ConfigError("set MODEL_ID to a model that exists")

    assert exit_status(load) == 2
    assert capsys.readouterr().err.endswith("Error: set MODEL_ID to a model that exists\n")


def test_bug_in_loading_keeps_its_traceback() -> None:
    def load(settings: WorkerSettings) -> Any:
        raise KeyError("weights")

    with pytest.raises(KeyError, match="weights"):
        run_program(load, worker_type="echo", arguments=())


def test_model_is_loaded_in_a_thread_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_ID", "tiny")
    seen: list[Any] = []

    def load(settings: WorkerSettings) -> Any:
        seen.append((settings.worker_type, settings.model_id, threading.current_thread()))
        send_signal()
        return lambda job_input: {}

    assert exit_status(load) == 0
    ((worker_type, model_id, thread),) = seen
    assert (worker_type, model_id) == ("echo", "tiny")
    assert thread is not threading.main_thread()


def test_loop_polls_if_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORB_BUSY_POLL_US", "500")
    spans: list[float] = []

    def note(span: float) -> trio.abc.Clock | None:
        spans.append(span)
        return busy_polling(span)

    monkeypatch.setattr(program, "busy_polling", note)
    clocks: list[Any] = []

    def load(settings: WorkerSettings) -> Any:
        clocks.append(trio.from_thread.run_sync(trio.lowlevel.current_clock))
        send_signal()
        return lambda job_input: {}

    assert exit_status(load) == 0
    assert spans == [0.0005]
    assert type(clocks[0]) is type(busy_polling(0.0005))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_loading_ends_at_once(number: int) -> None:
    release = threading.Event()

    def load(settings: WorkerSettings) -> Any:
        send_signal(number)
        release.wait(50)

    assert exit_status(load) == 0
    release.set()


def test_signal_while_there_is_no_engine_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def load(settings: WorkerSettings) -> Any:
        send_signal(when=lambda: "no link to ws://127.0.0.1:9/ws" in caplog.text)
        return lambda job_input: {}

    assert exit_status(load) == 0
    assert caplog.messages[-1] == "stopped"


def test_after_the_first_signal_the_next_has_the_systems_default() -> None:
    """So that it ends the process at once, hang what may."""

    def load(settings: WorkerSettings) -> Any:
        send_signal()
        return lambda job_input: {}

    assert exit_status(load) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_serves_until_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def load(settings: WorkerSettings) -> Any:
        send_signal(when=lambda: "registered as echo" in caplog.text)
        return lambda inputs: [{}] * len(inputs)

    with stock_engine.serving("hush", tmp_path) as url:
        monkeypatch.setenv("SERVER_URL", url)
        assert exit_status(load, batched=True, concurrency=2) == 0
        assert f"connected to {url}, registered as echo" in caplog.messages


class Model:
    def prepare(self, job_input: dict[str, Any]) -> int:
        return len(job_input)

    def __call__(self, job: Job) -> dict[str, Any]:
        return {"length": job.input}


@pytest.mark.parametrize("handler", [Model(), lambda job_input: {}])
def test_worker_gets_what_the_program_was_given(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    async def run_worker(handler: Any, settings: WorkerSettings, **options: Any) -> None:
        del options["stop"]
        given.append((handler, settings.worker_type, options))

    monkeypatch.setattr(program, "run_worker", run_worker)
    assert exit_status(lambda settings: handler, with_jobs=True, batched=True, concurrency=3) == 0
    prepare = handler.prepare if isinstance(handler, Model) else None
    options = {"prepare": prepare, "with_jobs": True, "batched": True, "concurrency": 3}
    assert given == [(handler, "echo", options)]


@pytest.mark.parametrize(
    ("name", "level"),
    [("debug", logging.DEBUG), ("INFO", logging.INFO), ("warn", logging.WARNING), ("error", logging.ERROR)],
)
def test_log_level_is_the_environments(name: str, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = []
    program.log_to_stderr(name)
    assert root.level == level
