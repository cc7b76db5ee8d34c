"""Every place at which a conversation can break: cut after every byte, cancelled at every checkpoint.

    python -m orbtrio.testing.exhaustive               # every position there is
    python -m orbtrio.testing.exhaustive --sample 50   # every fiftieth
    python -m orbtrio.testing.exhaustive --only worker:to_engine:reset:417

A `Conversation` is played undisturbed, which counts the bytes on each wire and the checkpoints of each
program; then once for each of them, with one fault there. What must hold in the end is said there. The report
counts how many of how many positions held. For the smallest that did not, it says what was expected and what
was seen, and by which command to see it again; the exit status is 1 then.

Rejected: faults drawn at random, of which nobody knows when they are enough.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from orbtrio.testing.conversation import Conversation, Failed, play, settings
from orbtrio.testing.faults import Sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orbtrio.testing.conversation import Handler

__all__ = ["FAMILIES", "Problem", "Report", "main", "positions_of", "try_positions"]


def _both(victim: str, manner: str) -> tuple[Sweep, ...]:
    return Sweep(victim, "to_engine", manner), Sweep(victim, "to_peer", manner)


# A line of the report each.
FAMILIES: Final = {
    "cuts by reset: client link, both directions": _both("client", "reset"),
    "cuts by reset: worker link, both directions": _both("worker", "reset"),
    "cuts by FIN: client link, both directions": _both("client", "fin"),
    "cuts by FIN: worker link, both directions": _both("worker", "fin"),
    "stalls: client link, both directions": _both("client", "silence"),
    "stalls: worker link, both directions": _both("worker", "silence"),
    "cancellations: engine": (Sweep("engine", "", "cancel"),),
    "cancellations: client": (Sweep("client", "", "cancel"),),
    "cancellations: worker": (Sweep("worker", "", "cancel"),),
}

# Real seconds, for a conversation of some milliseconds, before a process gives it up.
_PATIENCE: Final = 60
# Positions that a process is given at a time.
_CHUNK: Final = 25


@attrs.frozen(order=True)
class Problem:
    """What did not hold at a position."""

    position: int
    text: str


@attrs.frozen
class Report:
    """A family's outcome: how many positions were tried, and what did not hold in each sweep."""

    tried: int
    problems: tuple[tuple[Sweep, Problem], ...]

    @property
    def held(self) -> int:
        """How many positions did no harm."""
        return self.tried - len(self.problems)


def positions_of(sweep: Sweep, seed: int = 0) -> range:
    """Count the positions of a sweep in an undisturbed conversation.

    Raises:
        Failed: not even that one ends as it should.
    """
    with tempfile.TemporaryDirectory(prefix="orbtrio-") as directory:
        conversation = Conversation(settings(Path(directory)), sweep)
        play(conversation, seed)
    return conversation.positions


def try_positions(
    sweep: Sweep, positions: Iterable[int], seed: int = 0, handler: Handler | None = None
) -> list[Problem]:
    """Play a conversation for each position; what did not hold.

    Args:
        sweep: Which kind of fault.
        positions: Where.
        seed: Of the order of tasks and the pauses before reconnecting.
        handler: In place of the workers' own.
    """
    problems = []
    with tempfile.TemporaryDirectory(prefix="orbtrio-") as directory:
        config = settings(Path(directory))
        for position in positions:
            try:
                with _Patience():
                    play(Conversation(config, sweep, position, handler), seed)
            except (Exception, BaseExceptionGroup, _TooLong) as error:
                problems.append(Problem(position, "; ".join(_texts(error))))
    return problems


def _texts(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _texts(each)
    elif isinstance(error, Failed | _TooLong):
        yield str(error)
    else:
        yield f"exceptions: expected: none; seen: {error!r}"


class _TooLong(BaseException):
    # No `Exception`: it is raised wherever the program is, and no handler's error.
    pass


class _Patience:
    # Virtual time cannot end a conversation that does not come to an end when it is told to. Works in a
    # process that has called `install`, for a signal's handler and its timer are the whole process's.
    _installed = False

    @classmethod
    def install(cls) -> None:
        signal.signal(signal.SIGALRM, cls._give_up)
        cls._installed = True

    @staticmethod
    def _give_up(*_: object) -> None:
        raise _TooLong(f"the end: expected: within {_PATIENCE} real seconds; seen: none")

    def __enter__(self) -> None:
        if self._installed:
            # And each second from then on: several tasks may hang, and the next only gets its turn now.
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE, 1)

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.setitimer(signal.ITIMER_REAL, 0)


# --- The program --------------------------------------------------------------------------------------------


def _try_family(sweeps: Iterable[Sweep], sample: int, seed: int, pool: ProcessPoolExecutor | None) -> Report:
    tried = 0
    problems: list[tuple[Sweep, Problem]] = []
    for sweep in sweeps:
        positions = positions_of(sweep, seed)[::sample]
        tried += len(positions)
        chunks = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
        attempt = partial(try_positions, sweep, seed=seed)
        for found in map(attempt, chunks) if pool is None else pool.map(attempt, chunks):
            problems += ((sweep, problem) for problem in found)
    return Report(tried, tuple(problems))


def main(argv: Sequence[str]) -> int:
    """Try every position, or those that the arguments ask for, and print what held; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m orbtrio.testing.exhaustive",
        description="Cut a conversation of client, engine and worker after every byte, let its connections"
        " fall silent there, and cancel each program at every checkpoint. Whatever breaks, each job must be"
        " answered once, and nothing may be left behind.",
    )
    parser.add_argument(
        "--sample", type=_natural, default=1, metavar="K", help="try every K-th position only"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of tasks; default: 0")
    parser.add_argument("--only", metavar="POSITION", help="try one position, as a failure names it")
    parser.add_argument(
        "--processes",
        type=_natural,
        default=min(2, os.cpu_count() or 1),
        metavar="N",
        help="processes that share the work; default: 2",
    )
    arguments = parser.parse_args(argv)
    if arguments.only is not None:
        try:
            sweep, position = _parse(arguments.only)
        except ValueError as error:
            parser.error(str(error))
        problems = try_positions(sweep, [position], arguments.seed)
        print(f"{arguments.only}: {problems[0].text if problems else 'held'}")
        return len(problems)
    began = time.monotonic()
    if arguments.processes == 1:
        held = _try_all(arguments.sample, arguments.seed, None)
    else:
        with ProcessPoolExecutor(arguments.processes, initializer=_Patience.install) as pool:
            held = _try_all(arguments.sample, arguments.seed, pool)
    print(f"{time.monotonic() - began:.1f} s")
    return 0 if held else 1


def _try_all(sample: int, seed: int, pool: ProcessPoolExecutor | None) -> bool:
    tried = held = 0
    for name, sweeps in FAMILIES.items():
        report = _try_family(sweeps, sample, seed, pool)
        print(f"{name}: {report.held} of {report.tried} held", flush=True)
        if report.problems:
            sweep, problem = min(report.problems, key=lambda each: each[1].position)
            place = f"{sweep}:{problem.position}"
            option = f" --seed {seed}" if seed else ""
            print(f"    {place}: {problem.text}")
            print(f"    again: python -m orbtrio.testing.exhaustive{option} --only {place}", flush=True)
        tried += report.tried
        held += report.held
    print(f"all positions: {held} of {tried} held")
    return held == tried


def _natural(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _parse(place: str) -> tuple[Sweep, int]:
    sweeps = {str(sweep): sweep for family in FAMILIES.values() for sweep in family}
    name, _, position = place.rpartition(":")
    if name not in sweeps or not position.isdecimal():
        raise ValueError(f"--only {place}: expected a number after one of {', '.join(sweeps)}")
    return sweeps[name], int(position)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
