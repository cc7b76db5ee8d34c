"""The systems that are compared, each in a module of its own: how it is started, asked and described.

Any of these may be missing on a machine, so nothing here imports a peer's library before it is needed. The
programs that are started are in `benchmarks.peers.programs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.peers.systems import (
    bentoml_service,
    celery_redis,
    fastapi_queue,
    litserve_api,
    mosec_server,
    nats_worker,
    orbtrio_engine,
    ray_serve,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.peers.system import System

__all__ = ["PEERS", "REFERENCES", "SYSTEMS"]

# What the others are compared with: each with the one that is asked by the same means.
REFERENCES: Final = (orbtrio_engine.BY_CLIENT, orbtrio_engine.BY_CONNECTIONS)

PEERS: Final = (
    mosec_server.SYSTEM,
    nats_worker.SYSTEM,
    fastapi_queue.SYSTEM,
    litserve_api.SYSTEM,
    bentoml_service.SYSTEM,
    celery_redis.SYSTEM,
    ray_serve.SYSTEM,
)

SYSTEMS: Final[Mapping[str, System]] = {system.name: system for system in (*REFERENCES, *PEERS)}
