"""One system in a process of its own: ``python -m benchmarks.peers.stage SYSTEM SETTING``.

So that everything below this process is the system, and its CPU time can be told from everybody else's; and
so that a client library that starts an event loop or threads, or falls, does so alone. It takes orders: lines
of JSON on standard input, each answered by one on standard output. What anybody prints here goes to stderr.

The end of the input, or a signal, ends the system and all its processes; so does the end of whoever gave the
orders, for then the input ends, too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.cpu import Meter, adopt_orphans
from benchmarks.peers.servers import ServerFailed, Servers
from benchmarks.peers.system import Setting
from benchmarks.peers.systems import SYSTEMS
from benchmarks.peers.work import QUESTION, Counts, WrongAnswer, texts, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers.system import Ask

__all__ = ["main"]


def main(name: str, setting: Setting) -> None:
    """Serve a system until the input ends."""
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    orders = sys.stdin
    # Libraries print. Standard output is for answers alone.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def answer(**fields: Any) -> None:
            print(json.dumps(fields), file=answers, flush=True)

        with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as directory:
            servers = Servers(Path(directory))
            try:
                with SYSTEMS[name].serve(servers, setting) as ask:
                    wait_until_it_answers(ask, servers)
                    answer(ready=True)
                    _obey(orders, ask, servers, answer)
            except (ServerFailed, WrongAnswer) as error:
                answer(failed=str(error))
            finally:
                servers.end()


def measure(ask: Ask, first: int, jobs: int, size: int, in_flight: int) -> dict[str, Any]:
    """Have jobs done, and hold the answers against them.

    Args:
        ask: The system.
        first: The first one's number.
        jobs: How many.
        size: Of each, in bytes.
        in_flight: How many of them are on their way at any time.

    Returns:
        ``cpu``, ``load_cpu`` and ``seconds`` as `Meter` has them, ``jobs_per_batch``, and ``latencies``, in
        seconds.

    Raises:
        WrongAnswer: a system is not what it seems.
    """
    asked = texts(first, jobs, size)
    meter = Meter()
    before = _counts(ask)
    answers = ask(asked, in_flight, meter)
    verify(asked, answers.texts)
    counts = _counts(ask) - before
    if counts.jobs != jobs:
        raise WrongAnswer(f"{jobs} jobs were asked for, and the worker did {counts.jobs}")
    return {
        "cpu": meter.cpu,
        "load_cpu": meter.load_cpu,
        "seconds": meter.seconds,
        "jobs_per_batch": counts.jobs_per_batch,
        "latencies": answers.seconds,
    }


def wait_until_it_answers(ask: Ask, servers: Servers) -> None:
    """Wait until a job is answered: servers listen before their workers are ready."""

    problem = ""

    def answers() -> bool:
        nonlocal problem
        try:
            _counts(ask)
        except (WrongAnswer, OSError) as error:
            problem = str(error)
            return False
        return True

    servers.wait_until(answers, lambda: f"no job is answered ({problem})")


def _counts(ask: Ask) -> Counts:
    return Counts.parse(ask([QUESTION], 1, Meter()).texts[0])


def _obey(orders: Any, ask: Ask, servers: Servers, answer: Callable[..., None]) -> None:
    first = 0
    for line in orders:
        order = json.loads(line)
        began = time.perf_counter()
        try:
            figures = measure(ask, first, **order)
        except OSError as error:
            servers.check()
            raise WrongAnswer(f"a connection broke: {error}; {servers.last_words()}") from error
        first += order["jobs"]
        answer(**figures, took=time.perf_counter() - began)


if __name__ == "__main__":
    try:
        main(sys.argv[1], Setting(sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(130)
