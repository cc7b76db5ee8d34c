"""A soak: weeks of an engine's life in minutes, with everything going wrong that can.

    python -m orbtrio.testing.soak --jobs 100000 --faults 10000 --hours 500 --seed 7

One real engine lives in this process, in virtual time, among some tens of scripted workers and clients, over
memory links. Its life is made of epochs. In each there are first work and faults, in bursts and lulls, while
an oracle checks every message (safety); then all faults end, and every job must come to its end in time
(liveness); then everybody leaves, and nothing may be left: no file, no task, no object; then hours of quiet.
Some epochs end with the engine's own end, gently or not.

The first line of output is the seed. The same seed makes the same events, byte for byte; the last line is
their digest. The exit status is 0 only if everything held and, in a run of full size, every interesting
state was reached; the model for all this is the simulator of TigerBeetle.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import attrs
import trio
import trio.testing

from orbtrio.testing._soak_books import EventLog, SoakFailure
from orbtrio.testing._soak_life import STATES, Life, Plan
from orbtrio.testing._soak_machine import listen_for_errors
from orbtrio.testing.clock import seeded_schedule, steady_clock

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

__all__ = ["Plan", "Report", "SoakFailure", "main", "run_soak"]

# From this size on a run is long enough for all of them, and every kind of fault.
_FULL_SIZE: Final = 50_000


@attrs.frozen(kw_only=True)
class Report:
    """What a run that held has done."""

    digest: str
    jobs: int
    faults: int
    hours: float
    counts: Counter[str]
    missing: list[str]


async def _run(plan: Plan, log: EventLog) -> Report:
    directories = tempfile.TemporaryDirectory(prefix="orbtrio-")
    with directories as directory, listen_for_errors() as errors, steady_clock():
        async with trio.open_nursery() as nursery:
            soak = Life(plan, log, Path(directory), nursery)
            soak.errors = errors
            with soak.stage.disk.installed():
                nursery.start_soon(soak.stage.run_actions)
                await soak.run()
            nursery.cancel_scope.cancel()
    wanted = (*STATES, *(f"fault: {kind}" for kind in soak.faults.kinds))
    return Report(
        digest=log.digest,
        jobs=soak.stage.jobs,
        faults=soak.stage.faults,
        hours=trio.current_time() / 3600,
        counts=log.counts,
        missing=[state for state in wanted if not log.counts[state]],
    )


def run_soak(plan: Plan, file: TextIO | None = None) -> Report:
    """Run a soak.

    Args:
        plan: Its seed and size.
        file: Where to write every event.

    Raises:
        SoakFailure: a promise was broken.
    """
    log = EventLog(file)
    clock = trio.testing.MockClock(autojump_threshold=0)
    with seeded_schedule(plan.seed):
        try:
            return trio.run(_run, plan, log, clock=clock)
        except BaseExceptionGroup as group:
            failure: BaseException | None = group.subgroup(SoakFailure)
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
            if failure is None:
                raise
            raise failure from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m orbtrio.testing.soak", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--faults", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=500.0, help="of protocol time")
    parser.add_argument("--seed", type=int, help="by default a new one")
    parser.add_argument("--log", type=Path, help="write every event to this file")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of real time, at the most")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    plan = Plan(seed=seed, jobs=given.jobs, faults=given.faults, hours=given.hours, seconds=given.seconds)
    print(f"seed {seed}", flush=True)
    faulthandler.dump_traceback_later(plan.seconds + 60, exit=True, file=2)
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(given.log.open("w")) if given.log else None
        try:
            report = run_soak(plan, file)
        except SoakFailure as failure:
            print(f"FAILED {failure}\nseed {seed}; again: {plan.command}")
            return 1
        finally:
            faulthandler.cancel_dump_traceback_later()
    return _conclude(plan, report, time.monotonic() - begun)


def _conclude(plan: Plan, report: Report, seconds: float) -> int:
    for name, count in sorted(report.counts.items()):
        print(f"{count:8} {name}")
    done = f"{report.jobs} jobs, {report.faults} faults, {report.hours:.1f} h of protocol time"
    print(f"{done} in {seconds:.0f} s")
    for name in report.missing:
        print(f"never reached: {name}")
    print(f"digest {report.digest}")
    return 1 if report.missing and plan.jobs >= _FULL_SIZE else 0


if __name__ == "__main__":
    sys.exit(main())
