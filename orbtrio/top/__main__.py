"""``python -m orbtrio.top``: reads an engine's ``/metrics`` over and over, and shows them as a table.

On a terminal the table stays in its place until Ctrl-C; elsewhere it is printed again and again. ``--once``
takes two readings, one interval apart, prints one table and ends: without the first there would be no speeds.

An engine that goes away while we look is waited for, since that is when somebody looks most. Exit status 0:
it was told to stop. 1: no engine answers at the start, or the table cannot be written. 2: the command was
wrong.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.top.figures import NoMetrics, compare, parse
from orbtrio.top.tables import as_rich, as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orbtrio.top.figures import Reading

__all__ = ["main", "metrics_url"]

_TIMEOUT: Final = 5.0
_MOST_BYTES: Final = 16 << 20
# An engine is on this machine or a few metres away; a proxy would look for it somewhere else.
_DIRECTLY: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_CLEAR: Final = "\x1b[H\x1b[2J"


class _Unreachable(Exception):
    pass


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("url", default="http://localhost:5000", envvar="SERVER_URL")
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0.05, max=3600),
    help="Seconds between two readings; speeds and latencies are those of one interval.",
)
def main(url: str, *, once: bool, interval: float) -> None:
    """Show what the engine at URL is doing: workers, queues, batches, latency.

    URL is the engine's address in any form, e.g. localhost:5000, http://host:5000 or ws://host:5000/ws.
    Default: SERVER_URL, or http://localhost:5000.
    """
    try:
        address = metrics_url(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        trio.run(_show_once if once else _watch, address, interval)
    except _Unreachable as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # Our reader has seen enough. What is still buffered must go somewhere when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        click.echo(f"Error: standard output: {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def metrics_url(url: str) -> str:
    """Where the engine that has this address shows its metrics.

    Raises:
        ValueError: it is no address; the text shows some that are.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(parts.scheme)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if scheme is None or not parts.hostname or port == 0:
        raise ValueError(f"{url!r} is no address of an engine: write it like localhost:5000 or ws://host/ws")
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}/metrics"


async def _show_once(url: str, interval: float) -> None:
    first = await _read(url)
    await trio.sleep(interval)
    print(as_text(compare(first, await _read(url)), _host(url)), flush=True)


async def _watch(url: str, interval: float) -> None:
    before: Reading | None = await _read(url)
    with _screen() as show, trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_service_nursery() as nursery:
            nursery.start_soon(_end, signals, nursery.cancel_scope)
            while True:
                await trio.sleep(interval)
                try:
                    now = await _read(url)
                except _Unreachable as error:
                    show(f"{error}\nwaiting for it to come back; Ctrl-C ends")
                    before = None
                    continue
                show(compare(before, now), _host(url))
                before = now


async def _end(signals: Any, everything: trio.CancelScope) -> None:
    async for _ in signals:
        everything.cancel()


# How to show the next table: in the place of the last one, or below it.
@contextmanager
def _screen() -> Iterator[Callable[..., None]]:
    if not sys.stdout.isatty():
        yield lambda what, url="": print(
            what if isinstance(what, str) else as_text(what, url), "\n", flush=True
        )
        return
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:

        def show_plainly(what: Any, url: str = "") -> None:
            height = shutil.get_terminal_size().lines - 1
            text = what if isinstance(what, str) else as_text(what, url, lines=height)
            print(_CLEAR + text, flush=True)

        yield show_plainly
        return
    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(what: Any, url: str = "") -> None:
            table = what if isinstance(what, str) else as_rich(what, url, lines=console.height)
            live.update(table, refresh=True)

        yield show


def _host(url: str) -> str:
    return urlsplit(url).netloc


async def _read(url: str) -> Reading:
    # Abandoned when cancelled: a host that says nothing must not hold up the end.
    return await trio.to_thread.run_sync(_fetch, url, abandon_on_cancel=True)


def _fetch(url: str) -> Reading:
    try:
        with _DIRECTLY.open(url, timeout=_TIMEOUT) as answer:
            text = answer.read(_MOST_BYTES).decode("utf-8", "replace")
        return parse(text, time.monotonic())
    except urllib.error.HTTPError as error:
        error.close()
        raise _Unreachable(
            f"{url} answers {error.code} {error.reason}: is that an engine of orbtrio?"
        ) from None
    except urllib.error.URLError as error:
        reason = error.reason
        why = reason.strerror or reason if isinstance(reason, OSError) else reason
        advice = "is the engine running, and is that its port?"
        if isinstance(reason, ssl.SSLError):
            advice = "does the engine speak TLS there, with a certificate that this machine trusts?"
        raise _Unreachable(f"no engine answers at {url}: {why}; {advice}") from None
    except NoMetrics as error:
        raise _Unreachable(f"{url}: {error}") from None
    except (OSError, ValueError) as error:
        raise _Unreachable(f"no engine answers at {url}: {error}; is the engine running there?") from None
    except Exception as error:  # http.client's, for what is no HTTP at all
        raise _Unreachable(f"{url} answers, but not in HTTP ({type(error).__name__})") from None


if __name__ == "__main__":
    main(prog_name="python -m orbtrio.top")
