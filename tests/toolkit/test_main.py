from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.toolkit import __main__ as program
from orbtrio.toolkit.process import EngineUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

ENVIRONMENT = {
    "ENGINE_ID": "words",
    "WORKER_SECRET": "secret",
    "VERITONE_WEBHOOK_PROCESS": "http://127.0.0.1:8888/process",
}


@pytest.fixture(autouse=True)
def signals_and_logs_as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    levels = {name: logging.getLogger(name).level for name in ("anycorn", "coredis", "httpcore2", "httpx2")}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_2_for_settings_that_cannot_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([], ENVIRONMENT) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: no engine: name its program")
    assert "--help" in shown


def test_2_for_an_engine_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["/no/such/engine"], ENVIRONMENT) == 2
    assert "cannot start the engine, /no/such/engine" in capsys.readouterr().err


def test_1_for_an_engine_that_cannot_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run_toolkit(*_: Any, **__: Any) -> None:
        raise EngineUnusable("the engine says that it cannot work")

    monkeypatch.setattr(program, "run_toolkit", run_toolkit)
    assert program.main(["x"], ENVIRONMENT) == 1
    assert capsys.readouterr().err == "error: the engine says that it cannot work\n"


def test_0_when_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_toolkit(settings: Any, environ: Any, *, stop: trio.Event) -> None:
        assert (settings.command, environ) == (("x",), ENVIRONMENT)
        signal.raise_signal(signal.SIGTERM)
        await stop.wait()

    monkeypatch.setattr(program, "run_toolkit", run_toolkit)
    monkeypatch.setattr(sys, "argv", ["orbtrio-toolkit", "x"])
    assert program.main(environ=ENVIRONMENT) == 0


def test_the_second_signal_ends_the_engine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    async def run_toolkit(settings: Any, environ: Any, *, stop: trio.Event) -> None:
        signal.raise_signal(signal.SIGTERM)
        await stop.wait()
        monkeypatch.setattr(signal, "raise_signal", lambda number: steps.append(f"raised {number.name}"))
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    monkeypatch.setattr(program, "run_toolkit", run_toolkit)
    monkeypatch.setattr(program, "kill_engines", lambda: steps.append("killed"))
    assert program.main(["x"], ENVIRONMENT) == 0
    assert steps == ["killed", "raised SIGTERM"]
