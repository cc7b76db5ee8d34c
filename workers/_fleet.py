"""Several workers as one: started from a TOML file, started again when they end, ended together.

    [environment]                          # for all of them
    SERVER_URL = "ws://localhost:5000/ws"

    [[worker]]
    type = "embedding"
    count = 2
    env = { OMP_NUM_THREADS = "2" }        # for these

    [[worker]]
    type = "shout"                         # a worker of your own
    command = ["python", "shout.py"]

Secrets come from the environment of whoever starts the fleet, never from the file: files are copied, shown
and checked in.

A worker that ends is started again after 1 s, and later after 2, 4, … 60 s; once it has lived for a minute
that begins anew. One that ends with status 2 is not started again: that is the status of settings that
cannot work, which time does not heal. When told to stop, the fleet passes SIGTERM on, so that each worker
finishes what it has in hand, and kills what is left after 35 s, or when told once more.

Each worker has a session of its own, because Ctrl-C is meant for the fleet: workers that got it too would
take the SIGTERM that follows for the second signal, which ends them at once.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from orbtrio.errors import ConfigError
from orbtrio.processes import LAST_WORDS, Relay, how_it_ended, kill_session

from ._catalogue import KINDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

__all__ = ["Fleet", "Member", "read_fleet", "run_fleet"]

UNUSABLE: Final = 2
_MOST_WORKERS: Final = 1000
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_LIVED_LONG: Final = 60.0
# A worker that drains has half a minute of its own.
_GRACE: Final = 35.0

_SECRETS: Final = ("WORKER_SECRET", "CLIENT_TOKEN", "HF_TOKEN")
_ENVIRONMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TYPE_NAME: Final = re.compile(r"[\w.-]+\Z")


@attrs.frozen(kw_only=True)
class Member:
    """Workers of one kind.

    Attributes:
        worker_type: What they serve.
        count: How many.
        environment: For them alone.
        command: How to start one that is not of this package.
    """

    worker_type: str
    count: int = 1
    environment: Mapping[str, str] = attrs.field(factory=dict)
    command: tuple[str, ...] = ()

    def start_command(self) -> list[str]:
        """What to run."""
        return list(self.command) or [sys.executable, "-m", f"{__package__}.{self.worker_type}"]


@attrs.frozen(kw_only=True)
class Fleet:
    """What a file asks for."""

    members: tuple[Member, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict)

    def __str__(self) -> str:
        kinds = (f"{member.count} {member.worker_type}" for member in self.members)
        total = sum(member.count for member in self.members)
        return f"{total} worker{'' if total == 1 else 's'}: {', '.join(kinds)}"


# --- The file --------------------------------------------------------------------------------------------


def read_fleet(path: Path) -> Fleet:
    """Read a fleet's file.

    Raises:
        ConfigError: there is none, or it asks for what cannot be; the text says where and what to change.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    try:
        return _fleet(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _fleet(document: dict[str, Any]) -> Fleet:
    _refuse_unknown(document, ("worker", "environment"), "")
    tables = document.get("worker")
    if not isinstance(tables, list) or not tables:
        raise ConfigError('no workers: add [[worker]] and below it type = "embedding"')
    members = tuple(_member(table, f"worker {place}: ") for place, table in enumerate(tables, 1))
    if (total := sum(member.count for member in members)) > _MOST_WORKERS:
        raise ConfigError(f"{total} workers are too many for one machine, at most {_MOST_WORKERS}")
    return Fleet(members=members, environment=_environment(document, "environment", ""))


def _member(table: Any, where: str) -> Member:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}write [[worker]], a table")
    _refuse_unknown(table, ("type", "count", "env", "command"), where)
    worker_type, count, command = table.get("type"), table.get("count", 1), table.get("command", [])
    if not isinstance(worker_type, str) or not _TYPE_NAME.match(worker_type):
        raise ConfigError(f'{where}type: expected the name of a worker type, as in type = "embedding"')
    if type(count) is not int or count < 1:
        raise ConfigError(f"{where}count: expected a whole number from 1, not {count!r}")
    if not isinstance(command, list) or not all(isinstance(word, str) and word for word in command):
        raise ConfigError(f'{where}command: expected a list of words, as in ["python", "shout.py"]')
    if not command and worker_type not in KINDS:
        known = ", ".join(KINDS)
        raise ConfigError(
            f"{where}type: {worker_type!r} is none of {known}; for a worker of your own say how to start it, "
            'with command = ["python", "shout.py"]'
        )
    environment = _environment(table, "env", where)
    return Member(worker_type=worker_type, count=count, environment=environment, command=tuple(command))


def _environment(table: dict[str, Any], key: str, where: str) -> dict[str, str]:
    values = table.get(key, {})
    where = f"{where}{key}: "
    if not isinstance(values, dict):
        raise ConfigError(f'{where}expected a table, as in {{ MODEL_ID = "…" }}')
    for name, value in values.items():
        if not _ENVIRONMENT_NAME.match(name):
            raise ConfigError(f"{where}{name!r} is no name of an environment variable")
        if name in _SECRETS:
            raise ConfigError(
                f"{where}{name} is a secret and must not stand in a file like this: take it out, and set it"
                " in the environment of whoever starts the fleet"
            )
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ConfigError(f'{where}{name}: expected text or a number, as in {name} = "1"')
        if "\0" in str(value):
            raise ConfigError(f"{where}{name}: no value of an environment variable holds a NUL")
    return {name: str(value) for name, value in values.items()}


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}{key!r} means nothing here; known are {', '.join(known)}")


# --- The processes ---------------------------------------------------------------------------------------


async def run_fleet(fleet: Fleet, environ: Mapping[str, str]) -> int:
    """Run workers until a SIGTERM or SIGINT comes, or none is left that could run.

    Args:
        fleet: What to run.
        environ: What they inherit; holds WORKER_SECRET.

    Returns:
        The exit status: 0 after a signal, 2 if no worker's settings can work.
    """
    guard = _Guard({**environ, **fleet.environment})
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as services:
            services.start_soon(guard.obey, signals)
            async with trio.open_nursery() as nursery:
                for name, member in _named(fleet):
                    nursery.start_soon(guard.keep, name, member)
            services.cancel_scope.cancel()
    if guard.stopping.is_set():
        return 0
    await guard.say("no worker is left that could run")
    return UNUSABLE


# Numbered by type, whichever table of the file they come from.
def _named(fleet: Fleet) -> Iterator[tuple[str, Member]]:
    numbers: dict[str, int] = {}
    for member in fleet.members:
        for _ in range(member.count):
            number = numbers[member.worker_type] = numbers.get(member.worker_type, 0) + 1
            yield f"{member.worker_type}-{number}", member


class _Guard:
    """Keeps processes alive, or ends them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.stopping = trio.Event()
        self._hurry = trio.Event()
        self._environ = environ
        # One at a time, in a thread: whoever reads our output may stop, and signals must be heard even so.
        self._output = trio.CapacityLimiter(1)

    async def obey(self, signals: AsyncIterator[int]) -> None:
        """Stop at the first signal, kill at the second."""
        async for number in signals:
            name = signal.Signals(number).name
            if self.stopping.is_set():
                self._hurry.set()
            else:
                self.stopping.set()
                await self.say(
                    f"{name}: workers finish what they have in hand; killed after {_GRACE:g} s, or at once "
                    "by a second signal"
                )

    async def keep(self, name: str, member: Member) -> None:
        """Start a worker again and again."""
        wait = _FIRST_WAIT
        while True:
            began = trio.current_time()
            status, last_line = await self._run(name, member)
            if self.stopping.is_set():
                return
            if status == UNUSABLE:
                await self.say(f"{name} is not started again, its settings cannot work: {last_line}")
                return
            if trio.current_time() - began >= _LIVED_LONG:
                wait = _FIRST_WAIT
            await self.say(f"{name} ended {how_it_ended(status)}; starting it again in {wait:g} s")
            with trio.move_on_after(wait):
                await self.stopping.wait()
                return
            wait = min(2 * wait, _LONGEST_WAIT)

    # One life of a worker: its exit status, and the last that it said.
    async def _run(self, name: str, member: Member) -> tuple[int, str]:
        # Another one that happens to be set would be served by all of them.
        own = {"WORKER_TYPE": member.worker_type}
        try:
            process = await trio.lowlevel.open_process(
                member.start_command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Or what it prints would arrive when its buffer is full.
                env={"PYTHONUNBUFFERED": "1", **self._environ, **own, **member.environment},
                start_new_session=True,
            )
        except OSError as error:
            return UNUSABLE, f"{member.start_command()[0]}: {error.strerror}"
        assert process.stdout is not None
        relay = Relay(name, process.stdout, self._print)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.run)
                nursery.start_soon(self._end, name, process)
                status = await process.wait()
                with trio.move_on_after(LAST_WORDS):
                    await relay.done.wait()
                nursery.cancel_scope.cancel()
        finally:
            kill_session(process)
        return status, relay.last_line

    async def _end(self, name: str, process: trio.Process) -> None:
        await self.stopping.wait()
        process.terminate()
        with trio.move_on_after(_GRACE):
            await self._hurry.wait()
        await self.say(f"{name} has not ended: killing it")
        kill_session(process)

    async def say(self, text: str) -> None:
        """Our own words, among those of the workers."""
        await self._print(f"fleet | {text}\n")

    async def _print(self, text: str) -> None:
        await trio.to_thread.run_sync(_write, text, limiter=self._output, abandon_on_cancel=True)


def _write(text: str) -> None:
    # If nobody reads any more, that is no reason for workers to end.
    with suppress(OSError, ValueError):
        sys.stdout.write(text)
        sys.stdout.flush()
