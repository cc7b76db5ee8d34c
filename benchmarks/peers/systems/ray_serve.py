"""Ray Serve with ``@serve.batch``: a cluster of one node on the loopback interface, no dashboard.

Its guide to performance has RAY_SERVE_THROUGHPUT_OPTIMIZED=1 and no access log. HAProxy in front, which the
same guide has for clusters, is left out: it listens on all interfaces of the machine.
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

# batch_wait_timeout_s
_WAIT: Final = {Setting.THROUGHPUT: "0.01", Setting.LATENCY: "0"}


@contextmanager
def _serve(servers: Servers, setting: Setting) -> Iterator[Ask]:
    port = free_port()
    servers.start_python(
        "-m",
        "benchmarks.peers.programs.ray_echo",
        str(port),
        _WAIT[setting],
        environment={
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(servers.directory),
        },
    )
    servers.wait_for_port(port)
    yield partial(ask_over_connections, Http(port, "/", json_body, json_text))


SYSTEM: Final = System(
    name="Ray Serve",
    serve=_serve,
    asked=Asked.CONNECTIONS,
    settings={
        Setting.THROUGHPUT: (
            "max_batch_size 32, batch_wait_timeout_s 0.01, RAY_SERVE_THROUGHPUT_OPTIMIZED, no access log, "
            "JSON"
        ),
        Setting.LATENCY: "batch_wait_timeout_s 0",
    },
    packages=("ray",),
    native="daemons in C++",
)
