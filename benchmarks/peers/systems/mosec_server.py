# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""mosec: an HTTP server in Rust that batches, and Python workers behind it.

Jobs travel as MessagePack, by mosec's own mixin: less work for it than its JSON.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.peers.sockets import Http, ask_over_connections
from benchmarks.peers.system import Asked, Setting, System
from benchmarks.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers.servers import Servers
    from benchmarks.peers.system import Ask

__all__ = ["SYSTEM"]

# max_batch_size, max_wait_time in milliseconds. Zero would mean the default, ten.
_ARGUMENTS: Final = {Setting.THROUGHPUT: ("32", "10"), Setting.LATENCY: ("1", "1")}


@contextmanager
def _serve(servers: Servers, setting: Setting) -> Iterator[Ask]:
    import msgpack

    port = free_port()
    options = ("--address", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--timeout", "60000")
    # Its workers and its server meet at a socket in the directory for temporary files.
    servers.start_python(
        "-m",
        "benchmarks.peers.programs.mosec_echo",
        *_ARGUMENTS[setting],
        *options,
        *("--path", str(servers.directory / "mosec")),
    )
    servers.wait_for_port(port)

    def encode(text: str) -> bytes:
        body: bytes = msgpack.packb({"text": text})
        return body

    def decode(body: bytes) -> str:
        text: str = msgpack.unpackb(body)["text"]
        return text

    yield partial(ask_over_connections, Http(port, "/inference", encode, decode, "application/msgpack"))


SYSTEM: Final = System(
    name="mosec",
    serve=_serve,
    asked=Asked.CONNECTIONS,
    settings={
        Setting.THROUGHPUT: "max_batch_size 32, max_wait_time 10 ms (its default), MessagePack",
        Setting.LATENCY: "max_batch_size 1",
    },
    packages=("mosec", "msgpack"),
    native="server in Rust",
)
