"""The buffer between a job and its reader; whole streams are in tests of the client and the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.errors import JobRefused
from orbtrio.streams import JobStream, Pieces

if TYPE_CHECKING:
    from collections.abc import Callable


def begun(pieces: Pieces) -> list[str]:
    """A job that feeds these pieces; the list gets an item when it is given up."""
    given_up: list[str] = []
    pieces.begin(lambda: given_up.append("given up"))
    return given_up


async def test_pieces_then_the_output() -> None:
    pieces = Pieces()
    given_up: list[str] = []

    async def start(fed: Pieces) -> Callable[[], None]:
        assert fed is pieces
        fed.report({"n": 1}, 10, run=1)
        return lambda: given_up.append("given up")

    async with JobStream(start, pieces) as stream:
        pieces.report({"n": 2}, 10, run=1)
        with pytest.raises(RuntimeError, match="has not ended"):
            stream.output  # noqa: B018
        assert await anext(stream) == {"n": 1}
        pieces.end({"text": "all"}, None, run=1)
        assert [piece async for piece in stream] == [{"n": 2}]
        assert stream.output == {"text": "all"}
    assert given_up == []


async def test_a_new_run_drops_what_was_not_read() -> None:
    async def start(fed: Pieces) -> Callable[[], None]:
        fed.report({"n": 1}, 10, run=1)
        fed.report({"n": 1}, 10, run=2)
        fed.end({}, None, run=3)
        return lambda: None

    stream = JobStream(start, Pieces())
    assert await anext(stream) == {"n": 1}
    assert stream.attempt == 2
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert stream.attempt == 3


@pytest.mark.parametrize("pieces", [Pieces(max_unread=2), Pieces(max_bytes=25)])
def test_too_many_pieces_give_the_job_up(pieces: Pieces) -> None:
    given_up = begun(pieces)
    for number in range(3):
        pieces.report({"n": number}, 10, run=1)
    assert given_up == ["given up"]
    assert len(pieces.unread) == 2
    assert isinstance(pieces.error, JobRefused)
    assert pieces.error.kind == "slow_reader"


def test_one_piece_may_be_larger_than_all_may_be() -> None:
    pieces = Pieces(max_bytes=5)
    pieces.report({"n": 1}, 10, run=1)
    assert not pieces.over


def test_a_job_that_begins_after_its_reader_has_left_is_given_up() -> None:
    pieces = Pieces()
    pieces.leave()
    assert begun(pieces) == ["given up"]


def test_leaving_gives_the_job_up_once() -> None:
    pieces = Pieces()
    given_up = begun(pieces)
    pieces.leave()
    pieces.leave()
    assert given_up == ["given up"]


async def test_a_job_that_cannot_begin_raises_and_the_stream_is_over() -> None:
    async def start(fed: Pieces) -> Callable[[], None]:
        raise ValueError("no such input")

    stream = JobStream(start, Pieces())
    with pytest.raises(ValueError, match="no such input"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_reader_that_is_cancelled_leaves() -> None:
    pieces = Pieces()
    given_up: list[str] = []

    async def start(fed: Pieces) -> Callable[[], None]:
        return lambda: given_up.append("given up")

    with trio.move_on_after(0):
        await anext(JobStream(start, pieces))
    assert given_up == ["given up"]
