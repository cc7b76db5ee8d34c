"""What people write themselves: FastAPI on uvicorn, and a queue from which a task takes up to 32 jobs.

Server and worker are one process, so nothing is sent between them: cheaper than any of the systems could be,
and no choice for a model that keeps the interpreter busy. The task takes what is there and waits for no more.
"""

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


@contextmanager
def _serve(servers: Servers, setting: Setting) -> Iterator[Ask]:
    port = free_port()
    servers.start_python("-m", "benchmarks.peers.programs.fastapi_echo", str(port))
    servers.wait_for_port(port)
    yield partial(ask_over_connections, Http(port, "/echo", json_body, json_text))


SYSTEM: Final = System(
    name="FastAPI by hand",
    serve=_serve,
    asked=Asked.CONNECTIONS,
    settings={
        Setting.THROUGHPUT: "asyncio queue, up to 32 that are there, one process, uvloop, httptools, JSON"
    },
    packages=("fastapi", "uvicorn", "uvloop", "httptools"),
)
