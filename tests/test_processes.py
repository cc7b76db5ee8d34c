from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_one_way_pair, wait_all_tasks_blocked

from orbtrio.processes import Relay, how_it_ended, kill_session


class Lines:
    """What a relay writes."""

    def __init__(self) -> None:
        self.text = ""

    async def write(self, text: str) -> None:
        self.text += text


async def relayed(*pieces: bytes) -> tuple[str, Relay]:
    send, receive = memory_stream_one_way_pair()
    lines = Lines()
    relay = Relay("it", receive, lines.write)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        for piece in pieces:
            await send.send_all(piece)
            await wait_all_tasks_blocked()  # Or two pieces would arrive as one.
        await send.aclose()
        await relay.done.wait()
    return lines.text, relay


async def test_lines_get_a_name_however_they_arrive() -> None:
    text, relay = await relayed(b"one\ntw", b"o\r\n\n", b"\xff rest")
    assert text == "it | one\nit | two\nit | \nit | \ufffd rest\n"
    assert relay.last_line == "\ufffd rest"


async def test_last_line_is_none_that_is_blank() -> None:
    _, relay = await relayed(b"why\n", b"\n \n")
    assert relay.last_line == "why"


async def test_line_without_end_is_divided() -> None:
    text, _ = await relayed(b"x" * 100_000, b"y\n")
    assert [line.removeprefix("it | ")[-1] for line in text.splitlines()] == ["x", "y"]


async def test_silence_is_nothing() -> None:
    assert (await relayed())[0] == ""


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "with status 3"), (-signal.SIGKILL, "by SIGKILL"), (-(signal.SIGRTMIN + 1), "by signal 35")],
)
def test_how_it_ended(status: int, words: str) -> None:
    assert how_it_ended(status) == words


async def test_session_is_killed_with_all_in_it() -> None:
    inner = "import time; print(1); time.sleep(600)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-uc', {inner!r}])"
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", program], start_new_session=True, **options
    )
    assert process.stdout is not None
    async with process.stdout:
        assert await process.stdout.receive_some()  # Both of them run.
        kill_session(process)
        # The pipe ends when the last of them has gone.
        async for _ in process.stdout:
            pass
        assert await process.wait() == -signal.SIGKILL
    kill_session(process)
