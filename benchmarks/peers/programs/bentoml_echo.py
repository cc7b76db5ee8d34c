# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""Services of BentoML, for ``bentoml serve``: one that batches, and one for the lowest latency."""

from __future__ import annotations

import bentoml

from benchmarks.peers.work import Echo


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class EchoService:
    def __init__(self) -> None:
        self._echo = Echo()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def echo(self, texts: list[str]) -> list[str]:
        return self._echo(texts)


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class LoneEchoService:
    def __init__(self) -> None:
        self._echo = Echo()

    @bentoml.api
    def echo(self, texts: list[str]) -> list[str]:
        return self._echo(texts)
