# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""Celery: tasks and results in Redis, one worker with the solo pool. It has no batches.

Its guide to optimising has a prefetch multiplier of 64 or 128 for many short tasks, for throughput and
latency alike. Gossip, mingling and heartbeats are off: they are for several workers.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

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
_WORKER: Final = (
    *("-m", "celery", "--app", "benchmarks.peers.programs.celery_echo", "--quiet", "worker"),
    *("--pool", "solo", "--concurrency", "1", "--prefetch-multiplier", "128", "--loglevel", "warning"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)


@contextmanager
def _serve(servers: Servers, setting: Setting) -> Iterator[Ask]:
    import celery

    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    # Nothing is written to disk, which is the cheaper way to run Redis.
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    servers.start(("redis-server", *options))
    servers.wait_for_port(port)
    servers.start_python(*_WORKER, environment={"CELERY_BROKER_URL": url})
    with celery.Celery(broker=url, backend=url) as app:

        def ask(texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
            with meter:
                return _ask(app, texts, in_flight)

        yield ask


def _ask(app: Any, texts: Sequence[str], in_flight: int) -> Answers:
    import celery.exceptions

    answers: list[str] = []
    seconds: list[float] = []
    unanswered: deque[tuple[float, Any]] = deque()
    todo = iter(texts)
    left = len(texts)
    while left:
        while len(unanswered) < in_flight and (text := next(todo, None)) is not None:
            unanswered.append((time.perf_counter(), app.send_task("echo", (text,))))
        # One worker answers in the order of the tasks.
        began, result = unanswered.popleft()
        try:
            answers.append(result.get(timeout=_PATIENCE))
        except celery.exceptions.TimeoutError:
            raise WrongAnswer(f"no answer for {_PATIENCE:g} s") from None
        seconds.append(time.perf_counter() - began)
        left -= 1
    return Answers(answers, seconds)


SYSTEM: Final = System(
    name="Celery",
    serve=_serve,
    asked=Asked.CLIENT,
    settings={
        Setting.THROUGHPUT: (
            "solo pool, prefetch multiplier 128, no gossip, mingling or heartbeat; Redis for both ways"
        )
    },
    packages=("celery", "redis", "hiredis"),
    programs={"redis-server": "redis-server"},
    native="broker in C",
)
