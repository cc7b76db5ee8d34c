"""LitServe: FastAPI in front, an inference worker behind, ZeroMQ between them (its ``fast_queue``)."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.peers.sockets import Http, ask_over_connections, json_body, json_text
from benchmarks.peers.system import Asked, Setting, System
from benchmarks.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers.servers import Servers
    from benchmarks.peers.system import Ask

__all__ = ["SYSTEM"]

# max_batch_size, batch_timeout in seconds.
_ARGUMENTS: Final = {Setting.THROUGHPUT: ("32", "0.01"), Setting.LATENCY: ("1", "0")}


@contextmanager
def _serve(servers: Servers, setting: Setting) -> Iterator[Ask]:
    port = free_port()
    servers.start_python("-m", "benchmarks.peers.programs.litserve_echo", str(port), *_ARGUMENTS[setting])
    servers.wait_for_port(port)
    yield partial(ask_over_connections, Http(port, "/predict", json_body, json_text))


SYSTEM: Final = System(
    name="LitServe",
    serve=_serve,
    asked=Asked.CONNECTIONS,
    settings={
        Setting.THROUGHPUT: "max_batch_size 32, batch_timeout 10 ms, fast_queue, one API server, JSON",
        Setting.LATENCY: "max_batch_size 1",
    },
    packages=("litserve", "fastapi", "uvicorn", "pyzmq"),
)
