# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""A server of mosec: ``mosec_echo MAX_BATCH_SIZE MAX_WAIT_TIME`` and mosec's own options."""

from __future__ import annotations

import sys
from typing import Any

from mosec import Server, Worker
from mosec.mixin import MsgpackMixin

from benchmarks.peers.work import Echo


class EchoWorker(MsgpackMixin, Worker):
    def __init__(self) -> None:
        super().__init__()
        self._echo = Echo()

    def forward(self, data: Any) -> Any:
        if self.max_batch_size == 1:  # then it is one job, not a list
            return {"text": self._echo([data["text"]])[0]}
        return [{"text": text} for text in self._echo([job["text"] for job in data])]


if __name__ == "__main__":
    server = Server()
    server.append_worker(EchoWorker, num=1, max_batch_size=int(sys.argv[1]), max_wait_time=int(sys.argv[2]))
    server.run()
