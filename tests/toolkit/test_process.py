from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio

from orbtrio.errors import ConfigError
from orbtrio.toolkit import process
from orbtrio.toolkit.process import EngineEnded, EngineUnusable, run_engine, wait_ready
from tests.toolkit.wire import Seen, open_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from orbtrio.toolkit.settings import ToolkitSettings

READY = "http://127.0.0.1:8888/ready"


def engine(code: str) -> dict[str, Any]:
    return {"command": (sys.executable, "-c", code)}


class Answers:
    """A ready webhook that gives these answers in turn, the last one for ever."""

    def __init__(self, *answers: int | Exception) -> None:
        self.asked: list[float] = []
        self._answers = answers
        self.client = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        assert str(request.url) == READY
        answer = self._answers[min(len(self.asked), len(self._answers) - 1)]
        self.asked.append(trio.current_time())
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer)


# --- Ready -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [503, 404, 201, httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow")]
)
async def test_et_67_asked_again_until_200(
    answer: int | Exception, toolkit_settings: Callable[..., ToolkitSettings], autojump_clock: MockClock
) -> None:
    answers = Answers(*[answer] * 9, 200)
    await wait_ready(toolkit_settings(ready_url=READY), answers.client)
    assert len(answers.asked) == 10
    assert answers.asked[-1] - answers.asked[-2] == pytest.approx(1)
    assert trio.current_time() == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 5)


async def test_et_67_500_means_never(toolkit_settings: Callable[..., ToolkitSettings]) -> None:
    with pytest.raises(EngineUnusable, match="ready answers 500"):
        await wait_ready(toolkit_settings(ready_url=READY), Answers(500).client)


async def test_et_67_what_a_ready_engine_says_beside_200_may_have_no_end(
    toolkit_settings: Callable[..., ToolkitSettings],
) -> None:
    async def for_ever(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
        while True:
            await stream.send_all(bytes(65536))

    with trio.fail_after(50):
        async with open_server(for_ever) as server, httpx2.AsyncClient(timeout=50) as client:
            await wait_ready(toolkit_settings(ready_url=server.url), client)


async def test_et_67_an_answer_that_never_comes_is_asked_for_again(
    toolkit_settings: Callable[..., ToolkitSettings], autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        times.append(round(trio.current_time() - began, 1))
        if len(times) == 1:
            await trio.sleep_forever()
        return httpx2.Response(200)

    began = trio.current_time()
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    await wait_ready(toolkit_settings(ready_url=READY), client)
    assert times == [0.0, 5.1]


async def test_et_65_without_a_webhook_the_port_tells(
    toolkit_settings: Callable[..., ToolkitSettings],
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        settings = toolkit_settings(process_url=f"http://127.0.0.1:{listener.getsockname()[1]}/process")
        with trio.move_on_after(0.3) as impatience:
            await wait_ready(settings, httpx2.AsyncClient())
        assert impatience.cancelled_caught
        listener.listen()
        await wait_ready(settings, httpx2.AsyncClient())


async def test_et_67_given_up_after_a_while(toolkit_settings: Callable[..., ToolkitSettings]) -> None:
    settings = toolkit_settings(ready_url=READY, ready_timeout=0.3, **engine("import time; time.sleep(99)"))
    with pytest.raises(EngineUnusable, match=r"not ready after 0\.3 s.*ORB_TOOLKIT_READY_TIMEOUT"):
        await run_engine(settings, {}, Answers(503).client)


# --- Life ------------------------------------------------------------------------------------------------


async def test_ready_is_announced_and_the_end_is_told(
    toolkit_settings: Callable[..., ToolkitSettings], capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import os, sys; print('hello', os.environ['NAME']); sys.exit(f'why {len(os.environ)}')"
    settings = toolkit_settings(ready_url=READY, **engine(code))
    with pytest.raises(EngineEnded, match=r"with status 1; the last it said: why [23]$"):
        await run_engine(settings, {"NAME": "you"}, Answers(503).client)
    shown = capfd.readouterr().err
    assert "FROM ENGINE | hello you\n" in shown


async def test_engine_that_ends_in_silence(toolkit_settings: Callable[..., ToolkitSettings]) -> None:
    with pytest.raises(EngineEnded, match=r"^the engine ended by SIGABRT$"):
        await run_engine(toolkit_settings(**engine("import os; os.abort()")), {}, Answers(503).client)


async def test_program_that_is_none(toolkit_settings: Callable[..., ToolkitSettings]) -> None:
    with pytest.raises(ConfigError, match="cannot start the engine, /no/such: No such file"):
        await run_engine(toolkit_settings(command=("/no/such",)), {}, Answers(200).client)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_et_47_engine_is_ended_with_us(
    stubborn: bool,
    nursery: trio.Nursery,
    toolkit_settings: Callable[..., ToolkitSettings],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.1 if stubborn else 60)
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    # The engine's own child holds a connection to us until it is dead, too.
    child = f"import socket, time; s = socket.create_connection(('127.0.0.1', {port})); time.sleep(999)"
    code = f"import signal, subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
    code += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    code += "child.wait()"
    settings = toolkit_settings(ready_url=READY, **engine(code))
    async with trio.open_nursery() as inner:
        await inner.start(run_engine, settings, {}, Answers(200).client)
        connection = await listener[0].accept()
        inner.cancel_scope.cancel()
    assert await connection.receive_some() == b""
    await listener[0].aclose()
    await connection.aclose()


async def test_lost_standard_error_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> None:
            raise ValueError("closed")

    monkeypatch.setattr(sys, "stderr", Closed())
    await process._print("words")
