# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""NATS request and reply: its server, and a worker that takes up to 32 requests at a time."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.peers.system import Answers, Asked, Setting, System
from benchmarks.peers.work import WrongAnswer
from benchmarks.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.peers.cpu import Meter
    from benchmarks.peers.servers import Servers
    from benchmarks.peers.system import Ask

__all__ = ["SYSTEM"]

# Seconds for one answer.
_PATIENCE: Final = 30.0


@contextmanager
def _serve(servers: Servers, setting: Setting) -> Iterator[Ask]:
    port = free_port()
    servers.start(("nats-server", "--addr", "127.0.0.1", "--port", str(port)))
    servers.wait_for_port(port)
    servers.start_python("-m", "benchmarks.peers.programs.nats_echo", str(port))

    def ask(texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
        import uvloop

        answers: Answers = uvloop.run(_ask(port, texts, in_flight, meter))
        return answers

    yield ask


async def _ask(port: int, texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
    import nats
    from nats.errors import NoRespondersError

    answers = [""] * len(texts)
    seconds = [0.0] * len(texts)
    todo = iter(enumerate(texts))

    async def ask_one_by_one() -> None:
        for index, text in todo:
            began = time.perf_counter()
            message = await connection.request("echo", text.encode(), timeout=_PATIENCE)
            answers[index] = message.data.decode()
            seconds[index] = time.perf_counter() - began

    connection = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        with meter:
            await asyncio.gather(*(ask_one_by_one() for _ in range(in_flight)))
    except NoRespondersError:
        raise WrongAnswer("no worker has subscribed") from None
    except TimeoutError:
        raise WrongAnswer(f"no answer for {_PATIENCE:g} s") from None
    finally:
        await connection.close()
    return Answers(answers, seconds)


SYSTEM: Final = System(
    name="NATS",
    serve=_serve,
    asked=Asked.CLIENT,
    settings={Setting.THROUGHPUT: "request/reply, up to 32 that are there, nats-py with uvloop"},
    packages=("nats-py", "uvloop"),
    programs={"nats-server": "nats-server"},
    native="server in Go",
)
