from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.client import _program_source
from orbtrio.client._program_inputs import Asked, Entry, Problem
from orbtrio.client._program_source import Source, Task, from_files, from_lines, read_lines
from orbtrio.testing import open_fabric

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from pathlib import Path

    from trio.testing import MockClock


async def lines_of(*pieces: bytes) -> list[bytes | Problem]:
    waiting = [*pieces, b""]
    async with aclosing(read_lines(lambda size: waiting.pop(0))) as lines:
        return [line async for line in lines]


async def test_lines_are_cut_wherever_they_are_read() -> None:
    assert await lines_of(b"a\nb", b"c\n", b"\nd") == [b"a", b"bc", b"", b"d"]
    assert await lines_of() == []


async def test_standard_input_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one\n")
    os.close(writing)
    read = os.read
    monkeypatch.setattr(os, "read", lambda number, size: read(reading, size))
    async with aclosing(read_lines()) as lines:
        assert [line async for line in lines] == [b"one"]
    os.close(reading)


async def test_a_line_too_long_costs_no_memory_and_no_other_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_program_source, "_MOST_LINE", 10)
    first, long, last = await lines_of(b"a\n", b"x" * 8, b"x" * 8, b"x" * 80, b"\nb\n")
    assert (first, last) == (b"a", b"b")
    assert isinstance(long, Problem)
    assert isinstance((await lines_of(b"x" * 80))[-1], Problem)


async def entries(*given: Any) -> AsyncGenerator[Any, None]:
    for entry in given:
        await trio.lowlevel.checkpoint()
        yield entry


async def collect(iterator: AsyncGenerator[Any, None]) -> list[Any]:
    async with aclosing(iterator):
        return [one async for one in iterator]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_lines_become_entries_and_problems_with_their_numbers(in_thread: bool) -> None:
    lines = entries(b'{"input": {"n": 1}}', b"  ", b"nonsense", Problem(text="too long"))
    first, wrong, long = await collect(from_lines(lines, "echo", Asked(), in_thread=in_thread))
    assert first.input == {"n": 1}
    assert wrong.text.startswith("line 3: not a line of JSON")
    assert (long.text, wrong.worker_type) == ("line 4: too long", "echo")


@pytest.mark.parametrize("in_thread", [False, True])
async def test_arguments_become_entries(in_thread: bool, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    files = [tmp_path / "a.txt"]
    got = await collect(from_files("embedding", Asked(texts=["b"]), files, in_thread=in_thread))
    assert [entry.input for entry in got] == [{"text": "b"}, {"text": "a"}]


async def nothing(task: Task, problem: Problem) -> None:
    raise AssertionError(problem)


def numbers(count: int) -> Iterable[Entry]:
    return (Entry(worker_type="echo", input={"n": number}) for number in range(count))


async def test_jobs_are_numbered_and_problems_reported_among_them() -> None:
    problems: list[tuple[int, str]] = []

    async def report(task: Task, problem: Problem) -> None:
        problems.append((task.index, problem.text))

    one, two = numbers(2)
    own = Entry(worker_type="echo", input={}, timeout=1.0, extra={"x": 1})
    source = Source(entries(one, Problem(text="wrong"), two, own), report, timeout=9.0)
    jobs = [job async for job in source]
    assert [job.tag.index for job in jobs] == [0, 2, 3]
    assert [job.timeout for job in jobs] == [9.0, 9.0, 1.0]
    assert jobs[2].extra == {"x": 1}
    assert problems == [(1, "wrong")]


async def test_a_source_that_waits_can_be_stopped(autojump_clock: MockClock) -> None:
    async def never() -> AsyncGenerator[Entry, None]:
        yield next(iter(numbers(1)))
        await trio.sleep_forever()

    drawn = []
    async with aclosing(never()) as given, trio.open_nursery() as nursery:
        source = Source(given, nothing)

        async def draw() -> None:
            drawn.extend([job async for job in source])

        nursery.start_soon(draw)
        await trio.testing.wait_all_tasks_blocked()
        source.stop()
    assert len(drawn) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(source)


async def test_a_million_lines_need_the_memory_of_the_open_ones(autojump_clock: MockClock) -> None:
    made = answered = 0
    most = 0

    async def endless() -> AsyncGenerator[Entry, None]:
        nonlocal made, most
        for entry in numbers(2000):
            made += 1
            most = max(most, made - answered)
            yield entry

    async with open_fabric(worker_types=("echo",)) as fabric, aclosing(endless()) as given:
        await fabric.start_worker(lambda job: job, "echo")
        client = await fabric.connect()
        async for result in client.submit_many(Source(given, nothing), max_in_flight=16):
            assert result.error is None
            answered += 1
    assert answered == 2000
    assert most <= 17
