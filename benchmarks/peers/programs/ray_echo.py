# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""A cluster of one node with Ray Serve: ``ray_echo PORT BATCH_WAIT_TIMEOUT_S``."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import ray
from ray import serve

from benchmarks.peers.work import Echo

if TYPE_CHECKING:
    from starlette.requests import Request

PORT, WAIT = int(sys.argv[1]), float(sys.argv[2])


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, logging_config={"enable_access_log": False})
class EchoDeployment:
    def __init__(self) -> None:
        self._echo = Echo()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=WAIT)
    async def handle(self, texts: list[str]) -> list[str]:
        return self._echo(texts)

    async def __call__(self, request: Request) -> dict[str, str]:
        job = await request.json()
        return {"text": await self.handle(job["text"])}


if __name__ == "__main__":
    # As many as the replica and one to spare: Ray starts an idle worker for each.
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config={"enable_access_log": False})
    serve.run(EchoDeployment.bind())  # type: ignore[attr-defined]
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    ray.shutdown()
