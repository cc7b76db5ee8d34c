"""The toolkit as a whole: which tasks there are, and what ends when.

    run_toolkit
    ├─ HTTP server          for the engine's calls, and for the test console if it is asked for; ends last,
    │                       for what is in hand may still call
    ├─ purge                of scratch directories, each hour or more often
    ├─ RunTimeTTL           ends the toolkit as a signal would (ET-15)
    └─ one life of the engine after the other
       ├─ the engine's process     its end ends this life
       └─ the worker               registers when the engine is ready

An engine that crashes takes its worker with it: the link to the ORB engine is dropped, so that the ORB engine
gives the jobs in hand to somebody else at once, and to us again when we are back; its limit of deliveries
stops a job that kills every engine. Rejected: to fail those jobs with ``internal_error``, since nothing is
wrong with nearly all of them; and to keep the link, which would leave jobs with a worker that cannot work.

The engine is started again after 0.5 s, and later after 1, 2, … 30 s; once it has lived for a minute, that
begins anew. One that ends five times in a row before it is ready is given up, as is one that is never ready:
whoever started us sees our exit status, and may know better.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.toolkit.calls import open_engine_client
from orbtrio.toolkit.console import Console
from orbtrio.toolkit.directories import Directories
from orbtrio.toolkit.environment import engine_environment
from orbtrio.toolkit.fetching import open_fetcher
from orbtrio.toolkit.handler import JobHandler
from orbtrio.toolkit.keys import open_keys
from orbtrio.toolkit.notices import open_notifier
from orbtrio.toolkit.open_items import OpenItems, Urls
from orbtrio.toolkit.process import EngineEnded, EngineUnusable, run_engine
from orbtrio.toolkit.serving import base_url, serve
from orbtrio.toolkit.webhooks import Webhooks
from orbtrio.worker import run_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx2
    from starlette.types import ASGIApp

    from orbtrio.toolkit.settings import ToolkitSettings
    from orbtrio.worker import Job

__all__ = ["keep_alive", "run_toolkit"]

logger = logging.getLogger("orbtrio.toolkit")

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_LIVED_LONG: Final = 60.0
_MOST_FALSE_STARTS: Final = 5
_PURGE_INTERVAL: Final = 3600.0


async def run_toolkit(
    settings: ToolkitSettings,
    environ: Mapping[str, str],
    *,
    stop: trio.Event | None = None,
    task_status: trio.TaskStatus[JobHandler] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run an HTTP engine and serve its jobs until stopped.

    Args:
        settings: What to run, and whom to serve.
        environ: Ours; the engine gets what it may see of it.
        stop: Set it to end well: what is in hand is finished first.
        task_status: Started when the HTTP server listens, with the handler of jobs.

    Raises:
        ConfigError: there is no such engine, or something else in the settings cannot work.
        EngineUnusable: the engine was not ready in time, says that it never will be, or keeps ending before.
        OSError: the address for the engine's calls is taken.
    """
    stop = trio.Event() if stop is None else stop
    closing = trio.Event()
    directories = Directories(settings)
    environment = engine_environment(environ, settings.controller)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_engine_client(settings.concurrency))
        fetcher = await stack.enter_async_context(open_fetcher(settings.allowed_hosts))
        notifier = await stack.enter_async_context(open_notifier(fetcher))
        keys = None
        if settings.redis is not None:
            keys = await stack.enter_async_context(open_keys(*settings.redis))
        # After those, which have nurseries of their own and must outlive all that uses them.
        nursery = await stack.enter_async_context(open_service_nursery())
        # Whatever ends us: the server waits for it.
        stack.callback(closing.set)
        open_items = OpenItems()

        def make_handler(client: httpx2.AsyncClient) -> JobHandler:
            return JobHandler(
                settings,
                open_items=open_items,
                urls=Urls(base_url(settings.host, port)),
                directories=directories,
                fetcher=fetcher,
                client=client,
                notifier=notifier,
                has_keys=keys is not None,
            )

        # The console and the worker take turns.
        turns = trio.CapacityLimiter(settings.concurrency)
        console = None
        if settings.console:
            console = Console(settings, lambda client: partial(_in_turn, turns, make_handler(client)))
        webhooks = Webhooks(
            open_items,
            fetcher,
            keys=keys,
            max_body_bytes=settings.max_result_bytes,
            host=settings.host,
            fallback=console,
        )
        app = webhooks if console is None else console.watching(webhooks)
        port = await nursery.start(_serve, app, settings, closing)
        fetcher.close_off(settings.host, port)
        fetcher.close_off(*_host_and_port(settings.worker.server_url))
        if console is not None:
            console.announce(port)
        handler = make_handler(client)
        # More often than things get old: each time, what is open here is marked as used for other toolkits.
        interval = min(_PURGE_INTERVAL, settings.purge_after / 2)
        nursery.start_soon(_purge, directories, open_items, interval)
        if settings.runtime_ttl is not None:
            nursery.start_soon(_stop_after, settings.runtime_ttl, stop)
        task_status.started(handler)
        work = handler if console is None else partial(_in_turn, turns, handler)
        live = partial(_live, settings, environment, client, work, stop)
        await keep_alive(live if console is None else partial(_show_ready, console, live), stop)
    logger.info("stopped")


# It ends by being told to, in good order; cancelled, it might wait for somebody who reads nothing.
async def _serve(
    app: ASGIApp, settings: ToolkitSettings, closing: trio.Event, *, task_status: trio.TaskStatus[int]
) -> None:
    with trio.CancelScope(shield=True):
        await serve(app, settings.host, settings.port, stop=closing, task_status=task_status)


async def keep_alive(live: Callable[[trio.Event], Awaitable[None]], stop: trio.Event) -> None:
    """Run one life of the engine after the other, until one ends by itself or `stop` is set.

    Args:
        live: One life; it sets the event when the engine is ready, and raises `EngineEnded`.
        stop: Do not begin another.

    Raises:
        EngineUnusable: the engine keeps ending before it is ready.
    """
    wait, false_starts = _FIRST_WAIT, 0
    while not stop.is_set():
        began, ready = trio.current_time(), trio.Event()
        try:
            return await live(ready)
        except EngineEnded as error:
            ended = error
        if stop.is_set():
            return None
        false_starts = 0 if ready.is_set() else false_starts + 1
        if false_starts == _MOST_FALSE_STARTS:
            raise EngineUnusable(f"{ended}; it has ended {false_starts} times before it was ready") from ended
        if trio.current_time() - began >= _LIVED_LONG:
            wait = _FIRST_WAIT
        logger.warning("%s; starting it again in %g s", ended, wait)
        with trio.move_on_after(wait):
            await stop.wait()
        wait = min(2 * wait, _LONGEST_WAIT)
    return None


# From the start of the engine's process to its end, or ours.
async def _live(
    settings: ToolkitSettings,
    environment: Mapping[str, str],
    client: httpx2.AsyncClient,
    handler: Callable[[Job], Awaitable[dict[str, Any]]],
    stop: trio.Event,
    ready: trio.Event,
) -> None:
    worker = attrs.evolve(settings.worker, max_batch_size=1)
    async with open_service_nursery() as nursery:
        starting, working = trio.CancelScope(), trio.CancelScope()
        nursery.start_soon(_cancel_at, stop, starting)
        with starting:
            # At once, for a call that has met the end of the engine fails for good after 0.3 s.
            run = partial(run_engine, settings, environment, client, on_end=working.cancel)
            await nursery.start(run)
        if starting.cancelled_caught:
            return
        ready.set()
        if settings.no_worker:
            logger.info("the engine is ready: serving the console alone")
            await stop.wait()
            return
        logger.info("the engine is ready: serving %s", worker.worker_type)
        with working:
            await run_worker(
                handler,
                worker,
                concurrency=settings.concurrency,
                # What waits here could be begun by another instance.
                batches_at_hand=0,
                with_jobs=True,
                stop=stop,
                # Whatever is in hand is over by then.
                drain_timeout=settings.max_ttl,
            )
        if working.cancelled_caught:
            await trio.sleep_forever()  # How the engine has ended will be told.


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)


# The console sends nothing between two lives of the engine.
async def _show_ready(
    console: Console, live: Callable[[trio.Event], Awaitable[None]], ready: trio.Event
) -> None:
    console.ready = ready
    try:
        await live(ready)
    finally:
        console.ready = trio.Event()


async def _in_turn(turns: trio.CapacityLimiter, handler: JobHandler, job: Job) -> dict[str, Any]:
    async with turns:
        return await handler(job)


async def _cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _stop_after(seconds: float, stop: trio.Event) -> None:
    await trio.sleep(seconds)
    logger.info("RunTimeTTL is over: finishing what is in hand")
    stop.set()


async def _purge(directories: Directories, open_items: OpenItems, interval: float) -> None:
    while True:
        await trio.to_thread.run_sync(directories.purge, open_items.tasks)
        await trio.sleep(interval)
