"""Peers that ask for extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orbtrio.protocol.messages import RegisterClient
from orbtrio.testing import FakeClient

if TYPE_CHECKING:
    from typing import Any

    from orbtrio.testing import Fabric, FakeWorker

__all__ = ["extended_client", "extended_worker"]


async def extended_client(fabric: Fabric, *extensions: str, engine_errors: bool = True) -> FakeClient:
    """A client that asks for these, and usually to be told of jobs that the engine ends."""
    asked = {"engine_errors", *extensions} if engine_errors else extensions
    return await fabric._introduce(FakeClient, RegisterClient(extensions=frozenset(asked)))


async def extended_worker(fabric: Fabric, *extensions: str, **registration: Any) -> FakeWorker:
    """A worker that asks for these; eager, and of type ``t``."""
    fields = {"eager": True, "extensions": frozenset(extensions)} | registration
    return await fabric.fake_worker("t", **fields)
