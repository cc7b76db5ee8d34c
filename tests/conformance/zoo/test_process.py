"""Programs of the zoo on real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.simulation import Crashed, Exited
from orbtrio.conformance.sockets import SocketWorld
from orbtrio.conformance.zoo import process
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.process import AsyncHost, main, make_engine, serve
from tests.conformance.zoo.speaking import SECRET, answer, client, ids, inputs, request, worker
from tests.conformance.zoo.test_mutants import STOCK_ENGINE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from orbtrio.conformance.simulation import Host, Link


def test_the_stock_engine_works_as_a_program(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", process.__name__, "engine", "--mutants", ",".join(STOCK_ENGINE)],
        env={
            **os.environ,
            "WORKER_SECRET": SECRET,
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": "0",
            "XDG_DATA_HOME": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        line = program.stdout.readline()
        assert line.startswith("listening on ws://127.0.0.1:")
        world = SocketWorld(("127.0.0.1", int(line.split(":")[2].split("/")[0])))
        first, second, strange = worker(world), worker(world), worker(world, "unheard_of")
        asker = client(world)
        asker.say(request(1, 2))
        assert world.wait(50.0, lambda: len(first.messages) == 2)
        answer(first, *ids(first))
        assert world.wait(50.0, lambda: len(asker.messages) == 2)
        assert (inputs(first), inputs(second), strange.closed) == ([[1], [2]], [], None)
        program.send_signal(signal.SIGTERM)
        assert world.wait(50.0, lambda: asker.closed is not None)
        assert asker.closed == (1001, "engine stopped")
        assert program.wait(50.0) == 0
        world.close()
    finally:
        program.kill()
        program.wait()
        if program.stdout is not None:
            program.stdout.close()


class Parrot:
    """A target that repeats what it hears, and obeys some words."""

    path = "/parrot"

    def __init__(self, *, opens: bool = False) -> None:
        self.opens = opens
        self.lost: list[str] = []
        self.heard = b""
        self.stopped = False
        self.gone = asyncio.Event()

    def start(self, host: Host) -> None:
        self.host = host
        if self.opens:
            self.link = host.open_link()
            self.link.send(b"early")

    def connection_made(self, link: Link) -> None:
        assert self.host.now() >= 0.0
        link.send(b"hello ")

    def data_received(self, link: Link, data: bytes) -> None:
        self.heard += data
        link.send(data)
        if data == b"close":
            link.close()
            link.send(b"unheard")
        elif data == b"abort":
            link.abort()
        elif data == b"crash":
            raise Crashed("as told")
        elif data == b"leave":
            raise Exited("as told")
        elif data == b"later":
            self.host.call_at(self.host.now() + 0.01, lambda: link.send(b" now"))

    def connection_lost(self, link: Link, how: str) -> None:
        self.lost.append(how)
        self.gone.set()

    def stop(self) -> None:
        self.stopped = True


def run(
    parrot: Parrot,
    capsys: pytest.CaptureFixture[str],
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> int:
    async def both() -> int:
        serving = asyncio.create_task(serve(parrot, "127.0.0.1", 0))
        printed = ""
        while not printed:
            await asyncio.sleep(0)
            printed = capsys.readouterr().out
        assert printed.endswith("/parrot\n")
        port = int(printed.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await talk(reader, writer)
        writer.close()
        if not serving.done():
            os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(serving, 10.0)

    return asyncio.run(both())


def test_links_and_timers_work_on_real_sockets(capsys: pytest.CaptureFixture[str]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"later")
        assert await reader.readexactly(15) == b"hello later now"
        writer.write(b"close")
        assert await reader.read() == b"close"

    parrot = Parrot()
    assert run(parrot, capsys, talk) == 0
    assert parrot.lost == []
    assert parrot.stopped


def test_an_abort_is_a_reset(capsys: pytest.CaptureFixture[str]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(6) == b"hello "
        writer.write(b"abort")
        assert await reader.read() in (b"", b"abort")

    parrot = Parrot()
    assert run(parrot, capsys, talk) == 0
    assert parrot.lost == []


def test_the_target_learns_that_a_peer_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    parrot = Parrot()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        assert await reader.read() == b"hello "
        await parrot.gone.wait()

    assert run(parrot, capsys, talk) == 0
    assert parrot.lost == ["FIN"]


def test_a_crash_ends_the_process_with_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"crash")
        await asyncio.sleep(0.05)

    assert run(Parrot(), capsys, talk) == 70
    assert "crashed: as told" in capsys.readouterr().err


def test_an_end_in_order_is_a_status_of_0(capsys: pytest.CaptureFixture[str]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"leave")
        await asyncio.sleep(0.05)

    assert run(Parrot(), capsys, talk) == 0
    assert capsys.readouterr().err == ""


async def _opens_a_link(parrot: Parrot) -> bytes:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.readexactly(5))
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    AsyncHost(parrot, server.sockets[0].getsockname()[:2])
    data = await got
    await parrot.gone.wait()
    server.close()
    return data


def test_what_is_sent_on_a_link_before_it_is_open_is_not_lost() -> None:
    parrot = Parrot(opens=True)
    assert asyncio.run(_opens_a_link(parrot)) == b"early"
    assert parrot.lost == ["FIN"]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_link_that_is_closed_before_it_is_open_is_closed_then(end: str) -> None:
    parrot = Parrot(opens=True)

    async def scenario() -> bytes:
        got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.set_result(await reader.read())
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        AsyncHost(parrot, server.sockets[0].getsockname()[:2])
        getattr(parrot.link, end)()
        data = await got
        server.close()
        return data

    assert asyncio.run(scenario()) == b"early"
    assert parrot.lost == []


def test_nobody_there_is_a_lost_link() -> None:
    parrot = Parrot(opens=True)

    async def scenario() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()[:2]
        server.close()
        await server.wait_closed()
        AsyncHost(parrot, address)
        await parrot.gone.wait()

    asyncio.run(scenario())
    assert parrot.lost == ["RST"]


def test_an_engine_is_set_up_by_the_environment(tmp_path: Path) -> None:
    engine = make_engine(
        [], {"WORKER_SECRET": "s", "XDG_DATA_HOME": str(tmp_path), "WORKER_TYPES": "a,b*"}, 5.0
    )
    assert type(engine) is ModelEngine
    assert (engine.root, engine.secret, engine.worker_types) == (tmp_path, "s", ("a", "b*"))
    assert engine.job_timeout == 5.0
    usual = make_engine(["any-secret"], {"WORKER_SECRET": "s"})
    assert usual.root.parts[-2:] == (".local", "share")
    assert usual.job_timeout == 300.0


def test_without_a_secret_nothing_is_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKER_SECRET", raising=False)
    with pytest.raises(SystemExit):
        main(["engine"])
    assert "WORKER_SECRET is not set" in capsys.readouterr().err


def test_the_command_line_names_faults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_SECRET", SECRET)
    with pytest.raises(SystemExit):
        main(["engine", "--mutants", "any-secret,,perfect"])
    assert "no mutant 'perfect'" in capsys.readouterr().err


def test_the_command_line_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[object] = []

    async def serve_nothing(target: ModelEngine, address: str, port: int) -> int:
        served.extend([target.job_timeout, address, port])
        return 0

    monkeypatch.setattr(process, "serve", serve_nothing)
    for name, value in {"WORKER_SECRET": SECRET, "XDG_DATA_HOME": str(tmp_path), "SERVER_PORT": "7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SERVER_HOST", raising=False)
    assert main(["engine", "--job-timeout", "2.5"]) == 0
    assert served == [2.5, "localhost", 7]
