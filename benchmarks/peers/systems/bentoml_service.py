"""BentoML: a service with adaptive batching, which finds the wait for itself.

For latency the same service without ``batchable``: adaptive batching has no setting for lone jobs, and after
a load it goes on waiting for a batch.
"""

from __future__ import annotations

import json
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

_SERVICES: Final = {Setting.THROUGHPUT: "EchoService", Setting.LATENCY: "LoneEchoService"}


@contextmanager
def _serve(servers: Servers, setting: Setting) -> Iterator[Ask]:
    port = free_port()
    servers.start_python(
        *("-m", "bentoml", "serve", f"benchmarks.peers.programs.bentoml_echo:{_SERVICES[setting]}"),
        *("--host", "127.0.0.1", "--port", str(port)),
        environment={
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(servers.directory),
            "BENTOML_CONFIG_OPTIONS": f"services.{_SERVICES[setting]}.logging.access.enabled=false",
        },
    )
    servers.wait_for_port(port)
    yield partial(ask_over_connections, Http(port, "/echo", _body, _text))


# A batchable method takes lists, and so does its HTTP interface: a job is a list of one.
def _body(text: str) -> bytes:
    return json.dumps({"texts": [text]}).encode()


def _text(body: bytes) -> str:
    (text,) = json.loads(body)
    return str(text)


SYSTEM: Final = System(
    name="BentoML",
    serve=_serve,
    asked=Asked.CONNECTIONS,
    settings={
        Setting.THROUGHPUT: "max_batch_size 32, adaptive batching, one worker, no access log, JSON",
        Setting.LATENCY: "not batchable",
    },
    packages=("bentoml",),
)
