# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""A server of LitServe: ``litserve_echo PORT MAX_BATCH_SIZE BATCH_TIMEOUT``."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from benchmarks.peers.work import Echo


class EchoAPI(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._echo = Echo()

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, x: Any) -> Any:
        return self._echo(x) if isinstance(x, list) else self._echo([x])[0]

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output: str) -> dict[str, str]:
        return {"text": output}


class LoneEchoAPI(EchoAPI):
    # With these two and a batch size of one, LitServe warns of a mistake.
    batch = litserve.LitAPI.batch
    unbatch = litserve.LitAPI.unbatch


if __name__ == "__main__":
    port, size, timeout = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    api = EchoAPI(max_batch_size=size, batch_timeout=timeout) if size > 1 else LoneEchoAPI()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60, fast_queue=True)
    server.run(
        host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False
    )
