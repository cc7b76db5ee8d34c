"""A program of the zoo as a real process, on real sockets and by the real clock.

``python -m orbtrio.conformance.zoo.process engine --mutants debounced-timer,first-worker-only`` listens where
``SERVER_HOST`` and ``SERVER_PORT`` say, asks workers for ``WORKER_SECRET`` and keeps files below
``XDG_DATA_HOME``. The very objects that live in `SimulatedWorld` run here, on asyncio, whose protocols they
are modelled on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbtrio.conformance.simulation import Crashed, Exited
from orbtrio.conformance.zoo.engine import DOCUMENTED_TYPES
from orbtrio.conformance.zoo.mutants import compose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orbtrio.conformance.simulation import Handle, Link, Target

__all__ = ["AsyncHost", "main", "make_engine", "serve"]


class _Link(asyncio.Protocol):
    """Both ends of what asyncio and a target have to say to each other about a connection."""

    def __init__(self, host: AsyncHost, *, opened_by_us: bool = False) -> None:
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._told = not opened_by_us
        self._over = False

    # --- Link ---

    def send(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._over:
            self._transport.write(data)

    def close(self) -> None:
        self._over = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        for data in self._early:
            transport.write(data)
        if self._over:
            transport.close()
        elif self._told:
            self._host.call(lambda: self._host.target.connection_made(self))

    def data_received(self, data: bytes) -> None:
        if not self._over:
            self._host.call(lambda: self._host.target.data_received(self, data))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._over:
            self._over = True
            how = "RST" if error is not None else "FIN"
            self._host.call(lambda: self._host.target.connection_lost(self, how))


class AsyncHost:
    """A `Host` on a running event loop.

    Args:
        target: Started at once.
        connect_to: Where `open_link` leads.

    Attributes:
        over: Done with the exit status when the target crashes, or somebody says so.
    """

    def __init__(self, target: Target, connect_to: tuple[str, int] | None = None) -> None:
        self.target = target
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._connect_to = connect_to
        self._opening: set[asyncio.Task[None]] = set()
        self.over: asyncio.Future[int] = self._loop.create_future()
        self.call(lambda: target.start(self))

    def now(self) -> float:
        return self._loop.time() - self._start

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        return self._loop.call_at(self._start + when, self.call, callback)

    def open_link(self) -> Link:
        link = _Link(self, opened_by_us=True)
        opening = self._loop.create_task(self._open(link))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return link

    def call(self, callback: Callable[[], None]) -> None:
        """Call the target; if it crashes or ends, so does the process."""
        try:
            callback()
        except Exited:
            self.end(0)
        except Crashed as crash:
            print(f"crashed: {crash}", file=sys.stderr)
            self.end(70)

    def end(self, status: int) -> None:
        """Let the process exit."""
        if not self.over.done():
            self.over.set_result(status)

    async def _open(self, link: _Link) -> None:
        assert self._connect_to is not None, "this program was not told where to connect to"
        try:
            await self._loop.create_connection(lambda: link, *self._connect_to)
        except OSError as error:
            link.connection_lost(error)


async def serve(target: Any, address: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT; prints where. Returns the exit status."""
    host = AsyncHost(target)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Link(host), address, port, backlog=1024)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, host.end, 0)
    bound = server.sockets[0].getsockname()[1]
    print(f"listening on ws://{address}:{bound}{target.path}", flush=True)
    try:
        return await host.over
    finally:
        server.close()
        target.stop()
        # For the close frames to leave.
        await asyncio.sleep(0.05)


def make_engine(
    mutants: Sequence[str], environment: Mapping[str, str], job_timeout: float | None = None
) -> Any:
    """The engine with these faults, set up as the spec's "Environment Variables (Engine)" say.

    Raises:
        ValueError: no secret, or no such faults.
    """
    secret = environment.get("WORKER_SECRET")
    if not secret:
        raise ValueError("WORKER_SECRET is not set")
    data = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    types = environment.get("WORKER_TYPES")
    return compose(mutants)(
        Path(data).absolute(),
        secret=secret,
        worker_types=types.split(",") if types else DOCUMENTED_TYPES,
        job_timeout=job_timeout or 300.0,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m orbtrio.conformance.zoo.process", description=__doc__)
    parser.add_argument("role", choices=["engine"])
    parser.add_argument("--mutants", default="", metavar="A,B,…", help="faults; none is the model")
    parser.add_argument("--job-timeout", type=float, metavar="SECONDS", help="instead of 300")
    options = parser.parse_args(arguments)
    names = [name for name in options.mutants.split(",") if name]
    try:
        engine = make_engine(names, os.environ, options.job_timeout)
    except ValueError as error:
        parser.error(str(error))
    address, port = os.environ.get("SERVER_HOST", "localhost"), int(os.environ.get("SERVER_PORT", "5000"))
    return asyncio.run(serve(engine, address, port))


if __name__ == "__main__":
    sys.exit(main())
