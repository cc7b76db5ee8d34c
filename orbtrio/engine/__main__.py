"""``python -m orbtrio.engine``: settings, logs, signals and exit statuses around an `Engine`.

Standard output gets one line, ``listening on ws://127.0.0.1:5000/ws``, once peers can connect; logs go to
standard error. The first SIGTERM or SIGINT drains (P-26), the second ends at once.

Exit status 0: it was told to stop. 1: it could not start, for want of a secret, a free port or the store. 2:
its settings cannot be read. Anything else is a bug, with a traceback.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import logging.handlers
import math
import os
import queue
import resource
import signal
import sys
import threading
import time
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from orbtrio._nursery import open_service_nursery
from orbtrio._polling import busy_polling
from orbtrio.engine.config import load
from orbtrio.engine.server import open_engine
from orbtrio.errors import ConfigError, OrbError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from orbtrio.engine.config import Config
    from orbtrio.engine.server import Engine

__all__ = ["main"]

_log = logging.getLogger("orbtrio.engine")

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MAX_LOG_RECORDS: Final = 10_000
_MAX_LINES_PER_SECOND: Final = 100
_ACCEPTING_LOG_INTERVAL: Final = 60.0
_LOG_FLUSH_TIMEOUT: Final = 1.5

# Names and numbers of mallopt(3). Freed memory of up to so many bytes is kept for what comes next, and blocks
# up to so large come out of it.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 16 << 20
_KEPT_BLOCK_BYTES: Final = 4 << 20


class _CannotStart(Exception):
    pass


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run an engine until it is told to stop.

    Args:
        argv: Instead of the command line.
        environ: Instead of the environment.

    Returns:
        The exit status.
    """
    try:
        config = load(sys.argv[1:] if argv is None else argv, environ)
    except ConfigError as error:
        print(f"error: {error}\nsee python -m orbtrio.engine --help", file=sys.stderr)
        return 2
    _raise_file_limit()
    try:
        with _logging(_LEVELS[config.log_level]):
            trio.run(_serve, config, clock=busy_polling(config.busy_poll_us / 1e6))
    except _CannotStart as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(config: Config) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_service_nursery() as nursery, AsyncExitStack() as stack:
            told_to_stop = trio.Event()
            nursery.start_soon(_obey, signals, told_to_stop, nursery.cancel_scope)
            try:
                engine = await stack.enter_async_context(open_engine(config))
            except OrbError as error:
                raise _CannotStart(error) from error
            except OSError as error:
                where = f"SERVER_HOST={config.server_host} SERVER_PORT={config.server_port}"
                raise _CannotStart(f"cannot listen at {where}: {error.strerror or error}") from error
            nursery.start_soon(_drain, engine, told_to_stop)
            _settle_memory()
            address, *others = engine.addresses
            print(f"listening on {address}", flush=True)
            for other in others:
                _log.info("listening on %s, too", other)
            await engine.wait_stopped()


async def _obey(signals: AsyncIterator[int], told_to_stop: trio.Event, everything: trio.CancelScope) -> None:
    async for number in signals:
        if told_to_stop.is_set():
            _log.info("%s again: ending at once", signal.Signals(number).name)
            everything.cancel()
        else:
            _log.info("%s: draining; the next ends at once", signal.Signals(number).name)
            told_to_stop.set()


async def _drain(engine: Engine, told_to_stop: trio.Event) -> None:
    await told_to_stop.wait()
    await engine.stop()


# What exists now lives as long as the engine: the collector need not look at it again, and with a hundred
# thousand open jobs it should not look often at those either, which hold no cycles: 1 µs per job. At the
# youngest it looks after every 10,000, for 100,000 of them were a pause of 40 ms and more.
def _settle_memory() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 200, 50)
    _keep_freed_memory()


# The C library gives a message's memory back to the system as soon as it is freed, and for the next message
# the system fills pages with zeros, 256 for a megabyte: 50 to 160 page faults for an image of 1 MB, now one.
# That was 15 % of the engine's CPU there, 30 % at 100 KB, and 10 % of a job of 10 KB.
def _keep_freed_memory() -> None:
    with suppress(AttributeError):  # another C library than GNU's
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES)


# Each peer takes a descriptor, and the usual soft limit is 1,024.
def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS calls it unlimited and refuses that
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- Logs --------------------------------------------------------------------------------------------------


# Logs are written by a thread, because standard error may be a pipe whose reader has stopped (F-48). Only our
# own loggers follow the level: others', at debug, might show what messages hold.
@contextmanager
def _logging(level: int) -> Iterator[None]:
    records: queue.Queue[logging.LogRecord | None] = queue.Queue(_MAX_LOG_RECORDS)
    handler = _QueueHandler(records)
    handler.addFilter(_Accepting())
    handler.addFilter(_RateLimit())
    levels = {"": max(level, logging.WARNING), "orbtrio": level}
    before = {name: logging.getLogger(name).level for name in levels}
    logging.getLogger().addHandler(handler)
    for name, least in levels.items():
        logging.getLogger(name).setLevel(least)
    writer = threading.Thread(target=_write_logs, args=(records,), name="logs", daemon=True)
    writer.start()
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        for name, former in before.items():
            logging.getLogger(name).setLevel(former)
        with suppress(queue.Full):
            records.put_nowait(None)
            writer.join(_LOG_FLUSH_TIMEOUT)


# While no descriptor is left, Trio tries to accept ten times a second and logs a traceback each time (F-32).
class _Accepting(logging.Filter):
    def __init__(self) -> None:
        super().__init__("trio.serve_listeners")
        self._quiet_until = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return True
        now = time.monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + _ACCEPTING_LOG_INTERVAL
        record.exc_info = None
        return True


# A thousand hostile peers a second are a thousand lines a second otherwise, which fill the disk for them.
class _RateLimit(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._lines = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if int(record.created) != self._second:
            left_out = self._lines - _MAX_LINES_PER_SECOND
            self._second, self._lines = int(record.created), 0
            if left_out > 0:
                record.msg, record.args = (
                    f"{record.getMessage()} ({left_out} lines before this were left out)",
                    None,
                )
        self._lines += 1
        return self._lines <= _MAX_LINES_PER_SECOND


class _QueueHandler(logging.handlers.QueueHandler):
    # Rather lose records than wait.
    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


def _write_logs(records: queue.Queue[logging.LogRecord | None]) -> None:
    formatter = logging.Formatter(_LOG_FORMAT)
    while (record := records.get()) is not None:
        # Not through `sys.stderr`: its buffer has a lock, and the interpreter aborts if it finds that lock
        # taken at the end.
        with suppress(OSError):
            os.write(2, (formatter.format(record) + "\n").encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    sys.exit(main())
