from __future__ import annotations

import datetime
import io
import json
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from orbtrio.client import _program_output
from orbtrio.client._program_output import (
    InOrder,
    Progress,
    ReaderGone,
    Unwritable,
    Writer,
    describe,
    to_line,
)
from orbtrio.errors import ConnectionLost, JobFailed, JobRefused, JobTimedOut, ResourceRejected

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (JobFailed("no cat", {}), {"kind": "failed", "message": "no cat"}),
        (JobTimedOut("too late"), {"kind": "timeout", "message": "too late"}),
        (JobRefused("queue_full", "1000 wait"), {"kind": "queue_full", "message": "1000 wait"}),
        (ConnectionLost("closed"), {"kind": "connection_lost", "message": "closed"}),
        (FileNotFoundError(2, "No such file", "a.jpg"), {"kind": "file", "message": "a.jpg: No such file"}),
        (OSError("odd"), {"kind": "file", "message": "odd"}),
        (ResourceRejected("too large", path="image"), {"kind": "invalid", "message": "image: too large"}),
    ],
)
def test_errors_have_a_kind_and_a_message(error: Exception, described: dict[str, str]) -> None:
    assert describe(error) == described


def test_whatever_a_worker_answers_is_a_line_of_json() -> None:
    assert to_line({"word": "café"}) == '{"word": "café"}\n'
    odd: dict[Any, Any] = {
        "bytes": b"\xff",
        "nan": float("nan"),
        3: (1, 2.5, None, True),
        "when": datetime.date(2026, 1, 2),
    }
    assert json.loads(to_line(odd)) == {
        "bytes": {"$bytes": "/w=="},
        "nan": None,
        "3": [1, 2.5, None, True],
        "when": "2026-01-02",
    }


async def test_what_is_said_is_written_in_order_and_to_its_end() -> None:
    written = bytearray()

    def write(data: bytes) -> int:
        written.extend(data[:3])  # as a pipe might
        return min(3, len(data))

    writer = Writer(write=write)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(100):
            await writer.write(f"{number}\n")
        await writer.finish()
    assert written.decode() == "".join(f"{number}\n" for number in range(100))


async def test_a_terminal_is_given_no_commands(capfd: pytest.CaptureFixture[str]) -> None:
    for terminal, shown in ((True, "a[2Jb\tc\n"), (False, "a\x1b[2J\x9bb\tc\n")):
        writer = Writer(terminal=terminal)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await writer.write("a\x1b[2J\x9bb\tc\n")
            await writer.finish()
        assert capfd.readouterr().out == shown


async def test_a_slow_reader_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_program_output, "_MOST_UNWRITTEN", 10)
    gate = threading.Event()

    def write(data: bytes) -> int:
        gate.wait(50)
        return len(data)

    writer, said = Writer(write=write), 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)

        async def talk() -> None:
            nonlocal said
            for _ in range(20):
                await writer.write("12345678\n")
                said += 1

        async with trio.open_nursery() as talking:
            talking.start_soon(talk)
            await wait_all_tasks_blocked()
            assert said <= 4
            gate.set()
        assert said == 20
        await writer.finish()


async def test_a_reader_that_is_gone_is_heard_of() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = Writer(write=lambda data: os.write(writing, data))
    await writer.write("hello")
    with pytest.raises(ReaderGone):
        await writer.run()
    os.close(writing)


async def test_a_full_disk_is_no_reader_that_is_gone() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer = Writer(write=lambda data: os.write(full, data))
    await writer.write("hello")
    with pytest.raises(Unwritable, match="No space left on device"):
        await writer.run()
    os.close(full)


async def test_a_pipe_that_does_not_block_is_written_to_when_it_has_room() -> None:
    written: list[bytes] = []

    def write(data: bytes) -> int:
        written.append(data)
        if len(written) == 1:
            raise BlockingIOError
        return len(data)

    writer = Writer(write=write)
    await writer.write("hello")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await writer.finish()
    assert written == [b"hello"] * 2


def test_that_nobody_looks_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        Progress(None, quiet=False).say("hello")
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


async def test_lines_wait_for_earlier_ones(autojump_clock: MockClock) -> None:
    written: list[str] = []

    async def write(line: str) -> None:
        await trio.sleep(1)
        written.append(line)

    order = InOrder(write, most=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(order.write, 1, "b")
        await wait_all_tasks_blocked()
        assert written == []
        nursery.start_soon(order.write, 0, "a")
        nursery.start_soon(order.write, 2, "c")
    assert written == ["a", "b", "c"]
    with trio.fail_after(1):
        await order.room(4)
    with trio.move_on_after(5) as waiting:
        await order.room(5)
    assert waiting.cancelled_caught


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def shown(monkeypatch: pytest.MonkeyPatch, *, out: io.StringIO, err: io.StringIO, quiet: bool) -> str:
    progress = Progress(4, quiet=quiet)
    progress.count(failed=False)
    progress.count(failed=True)
    with monkeypatch.context() as patch, trio.move_on_after(25):
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        await progress.run()
    return err.getvalue()


async def test_a_log_gets_a_line_from_time_to_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = await shown(monkeypatch, out=io.StringIO(), err=io.StringIO(), quiet=False)
    assert text.count("2 of 4 jobs done, 1 failed, 0.") == 2
    assert await shown(monkeypatch, out=io.StringIO(), err=io.StringIO(), quiet=True) == ""


async def test_a_terminal_gets_a_bar_unless_it_shows_the_results(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = await shown(monkeypatch, out=io.StringIO(), err=Terminal(), quiet=False)
    assert "2/4" in text
    assert "1 failed" in text
    assert await shown(monkeypatch, out=Terminal(), err=Terminal(), quiet=False) == ""


async def test_without_rich_a_terminal_gets_lines(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    text = await shown(monkeypatch, out=io.StringIO(), err=Terminal(), quiet=False)
    assert text.count("2 of 4 jobs done") == 2


def test_how_many_there_will_be_may_be_unknown() -> None:
    progress: Any = Progress(None, quiet=False)
    assert str(progress).startswith("0 jobs done, 0.")
