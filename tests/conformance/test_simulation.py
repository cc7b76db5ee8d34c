"""Time, order and endings in a world without sockets."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.model import TargetGone
from orbtrio.conformance.simulation import Crashed, Exited, SimulatedWorld
from orbtrio.conformance.world import PipeEnded, never

if TYPE_CHECKING:
    from orbtrio.conformance.simulation import Handle, Host, Link


class Echo:
    """Sends back what it gets, notes everything, and does what some words say."""

    def __init__(self, *, opens: int = 0) -> None:
        self.opens = opens
        self.seen: list[tuple[float, str]] = []
        self.depth = 0
        self.links: list[Link] = []
        self.timer: Handle | None = None

    def start(self, host: Host) -> None:
        self.host = host
        for number in range(self.opens):
            host.call_at(float(number), lambda: host.open_link().send(b"hello"))

    def note(self, what: str) -> None:
        self.seen.append((self.host.now(), what))

    def connection_made(self, link: Link) -> None:
        self.links.append(link)
        self.note("made")

    def data_received(self, link: Link, data: bytes) -> None:
        assert self.depth == 0, "called while being called"
        self.depth += 1
        self.note(data.decode())
        link.send(data)
        if data == b"close":
            link.close()
            link.send(b"swallowed")
        elif data == b"abort":
            link.abort()
        elif data == b"crash":
            raise Crashed("as told")
        elif data == b"later":
            self.timer = self.host.call_at(self.host.now() + 1.0, lambda: link.send(b"now"))
        elif data == b"never mind" and self.timer is not None:
            self.timer.cancel()
        self.depth -= 1

    def connection_lost(self, link: Link, how: str) -> None:
        self.note(how)
        link.send(b"good-bye")


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def world(echo: Echo) -> SimulatedWorld:
    return SimulatedWorld(echo)


def test_everything_is_delivered_when_send_returns(world: SimulatedWorld) -> None:
    pipe = world.connect()
    pipe.send(b"a")
    pipe.send(b"b")
    assert pipe.received == b"ab"
    assert world.now() == 0.0
    assert world.virtual


def test_a_listener_that_sends_is_not_called_while_it_is_called(world: SimulatedWorld, echo: Echo) -> None:
    pipe = world.connect()
    calls: list[str] = []

    def listen() -> None:
        calls.append("in")
        if len(calls) < 6:
            pipe.send(b"more")
            pipe.send(b"more")
        calls.append("out")

    pipe.listener = listen
    pipe.send(b"first")
    assert calls == ["in", "out"] * (len(calls) // 2)
    assert len(calls) > 6
    assert len(pipe.received) == 5 + 4 * (len(echo.seen) - 2)


def test_time_passes_only_in_wait_and_from_timer_to_timer(world: SimulatedWorld, echo: Echo) -> None:
    pipe = world.connect()
    pipe.send(b"later")
    assert not world.wait(0.5, lambda: pipe.received.endswith(b"now"))
    assert world.now() == 0.5
    assert world.wait(10.0, lambda: pipe.received.endswith(b"now"))
    assert world.now() == 1.0
    assert not world.wait(2.0)
    assert world.now() == 3.0
    assert echo.host.now() == 3.0


def test_a_condition_that_holds_costs_no_time(world: SimulatedWorld) -> None:
    world.connect().send(b"later")
    assert world.wait(10.0, lambda: True)
    assert world.now() == 0.0
    assert not never()


def test_a_condition_may_come_true_by_time_alone(world: SimulatedWorld) -> None:
    assert world.wait(1.0, lambda: world.now() >= 1.0)


def test_timers_fire_in_order_and_cancelled_ones_not(world: SimulatedWorld, echo: Echo) -> None:
    fired: list[tuple[float, int]] = []
    for number, when in enumerate((2.0, 1.0, 1.0)):
        echo.host.call_at(when, lambda number=number: fired.append((world.now(), number)))  # type: ignore[misc]
    pipe = world.connect()
    pipe.send(b"later")
    pipe.send(b"never mind")
    world.wait(5.0)
    assert fired == [(1.0, 1), (1.0, 2), (2.0, 0)]
    assert not pipe.received.endswith(b"now")


def test_a_timer_in_the_past_fires_now(world: SimulatedWorld, echo: Echo) -> None:
    world.wait(5.0)
    fired: list[float] = []
    echo.host.call_at(1.0, lambda: fired.append(world.now()))
    world.wait(0.0)
    assert fired == [5.0]


def test_a_listener_must_not_wait(world: SimulatedWorld) -> None:
    pipe = world.connect()

    def listen() -> None:
        world.wait(1.0)

    pipe.listener = listen
    with pytest.raises(RuntimeError, match="must not wait"):
        pipe.send(b"x")


def test_a_paused_pipe_holds_back_what_comes_and_how_it_ends(world: SimulatedWorld) -> None:
    pipe = world.connect()
    told: list[str] = []
    pipe.listener = lambda: told.append(pipe.ended)
    pipe.paused = True
    pipe.send(b"a")
    pipe.send(b"close")
    assert (bytes(pipe.received), pipe.ended, told) == (b"", "", [])
    assert pipe.paused
    pipe.paused = False
    assert (bytes(pipe.received), pipe.ended, told) == (b"aclose", "FIN", ["", "", "FIN"])


@pytest.mark.parametrize(("word", "how"), [(b"close", "FIN"), (b"abort", "RST")])
def test_the_target_ends_a_connection_behind_what_it_sent(
    world: SimulatedWorld, echo: Echo, word: bytes, how: str
) -> None:
    pipe = world.connect()
    pipe.send(word)
    assert (bytes(pipe.received), pipe.ended) == (word, how)
    with pytest.raises(PipeEnded, match=how):
        pipe.send(b"x")
    pipe.close()
    assert [what for _, what in echo.seen] == ["made", word.decode()]


def test_finish_still_reads(world: SimulatedWorld, echo: Echo) -> None:
    pipe = world.connect()
    pipe.finish()
    pipe.finish()
    assert (bytes(pipe.received), pipe.ended) == (b"good-bye", "FIN")
    assert [what for _, what in echo.seen] == ["made", "FIN"]
    with pytest.raises(PipeEnded):
        pipe.send(b"x")


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_after_close_and_reset_nothing_is_read(world: SimulatedWorld, echo: Echo, how: str) -> None:
    pipe = world.connect()
    (pipe.close if how == "FIN" else pipe.reset)()
    pipe.reset()
    assert (bytes(pipe.received), pipe.ended) == (b"", "")
    assert [what for _, what in echo.seen] == ["made", how]


def test_links_that_the_target_opens_are_accepted_in_order() -> None:
    world = SimulatedWorld(Echo(opens=2))
    first, second = world.accept(5.0), world.accept(5.0)
    assert first is not None
    assert second is not None
    assert first.received == second.received == b"hello"
    assert world.now() == 1.0
    assert world.accept(5.0) is None
    assert world.now() == 6.0


def test_a_crash_resets_everything_and_nobody_can_connect(world: SimulatedWorld, echo: Echo) -> None:
    one, two = world.connect(), world.connect()
    one.send(b"later")
    one.send(b"crash")
    assert one.ended == two.ended == "RST"
    assert not world.alive()
    assert str(world.crash) == "as told"
    with pytest.raises(TargetGone, match="as told"):
        world.connect()
    world.wait(5.0)
    assert world.now() == 5.0
    one.close()
    assert [what for _, what in echo.seen] == ["made", "made", "later", "crash"]


def test_close_leaves_nothing_behind(world: SimulatedWorld, echo: Echo) -> None:
    pipe = world.connect()
    pipe.send(b"later")
    assert world.alive()
    world.close()
    world.wait(5.0)
    assert [what for _, what in echo.seen] == ["made", "later", "RST"]
    with pytest.raises(PipeEnded):
        pipe.send(b"x")


def test_thousands_of_deliveries_and_timers_cost_little(world: SimulatedWorld, echo: Echo) -> None:
    pipe = world.connect()
    for number in range(2000):
        echo.host.call_at(float(number), lambda: pipe.send(b"x"))
    start = time.process_time()
    world.wait(10_000.0)
    assert pipe.received == b"x" * 2000
    # A tenth of it is usual. This only notices what is not linear.
    assert time.process_time() - start < 1.0


def test_the_order_of_deliveries_is_the_order_of_sends(world: SimulatedWorld, echo: Echo) -> None:
    pipes = [world.connect() for _ in range(3)]
    for number, pipe in itertools.product(range(3), pipes):
        pipe.send(f"{number}".encode())
    assert [what for _, what in echo.seen[3:]] == [str(number) for number in range(3) for _ in pipes]


def test_something_can_happen_to_the_target_from_outside(world: SimulatedWorld, echo: Echo) -> None:
    pipe = world.connect()
    world.have(lambda: echo.links[0].send(b"a signal"))
    assert pipe.received == b"a signal"

    def end() -> None:
        raise Exited("in order")

    world.have(end)
    assert not world.alive()
    assert pipe.ended == "RST"
