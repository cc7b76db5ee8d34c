"""``python -m orbtrio.client``: jobs from a command line, results as lines of JSON.

Exit status 0: every job has a result. 1: one has not, or it could not be written. 2: the command was wrong.
3: no engine, or it does not want this client, or it went for good. 128 and more: a signal ended it before all
was done.

The first SIGINT or SIGTERM ends the drawing of jobs, and those that are open are waited for; the second
cancels them, at the engine and its workers too. Where tokens are shown as they come, the first does that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.client import _program_inputs as inputs
from orbtrio.client import _program_pictures as pictures
from orbtrio.client import _program_source as sources
from orbtrio.client._program_inputs import Asked, Entry, Problem, Refused
from orbtrio.client._program_output import (
    InOrder,
    Progress,
    ReaderGone,
    Unwritable,
    Writer,
    describe,
    open_standard_streams,
    to_line,
)
from orbtrio.client._program_watch import Watcher
from orbtrio.client.client import connect
from orbtrio.errors import ConfigError, ConnectionLost, OrbError, RegistrationRefused
from orbtrio.inputs import Image

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from orbtrio.client._program_source import Source, Task
    from orbtrio.client.client import Client
    from orbtrio.client.many import Job

__all__ = ["main"]

_NO_ENGINE: Final = 3
_STREAMED: Final = ("llm", "vlm", "llm_fast")
# Of these a worker does a few per second at best: many at once would wait until their time is over.
_SLOW: Final = (*_STREAMED, "caption", "segmentation", "video_segmentation")
_IN_FLIGHT: Final = 256
_IN_FLIGHT_SLOW: Final = 32


@attrs.frozen(kw_only=True)
class _Plan:
    url: str
    token: str | None
    worker_type: str | None
    asked: Asked
    arguments: bool
    files: list[Path]
    lines: bool
    watcher: Watcher | None
    ordered: bool
    stream: bool
    folder: Path | None
    timeout: float | None
    in_flight: int
    shrinks: bool
    total: int | None
    quiet: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("worker_type", metavar="[TYPE]", required=False)
@click.argument("files", nargs=-1, metavar="[FILE|FOLDER|-]...")
@click.option("--text", "texts", multiple=True, help="A text to embed. May be repeated, as --prompt.")
@click.option("--prompt", "prompts", multiple=True, help="What to ask; or what to look for, in segmentation.")
@click.option("--system", metavar="TEXT", help="A first message for language models.")
@click.option("--session", metavar="NAME", help="Joins the frames of a video or camera. Default: a new one.")
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME=VALUE",
    help="One more field of each input; the value is JSON, or else text.",
)
@click.option(
    "--watch",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Submit every picture that comes into FOLDER, once it is whole, until a signal comes.",
)
@click.option("--existing", is_flag=True, help="With --watch: those that are there already, too.")
@click.option("--ordered", is_flag=True, help="Results in the order of the jobs, not of their completion.")
@click.option(
    "--pictures",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each picture there with its boxes, masks, labels and words drawn. Needs pillow.",
)
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Print tokens as they come, one job after the other. Default: for llm and vlm on a terminal.",
)
@click.option("--shrink", "shrinks", is_flag=True, help="Make pictures of more than 2 MiB smaller.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for each job.")
@click.option("--in-flight", type=click.IntRange(1, 100_000), help="Most jobs at a time. Default: 32 or 256.")
@click.option(
    "--url", envvar="SERVER_URL", default="ws://localhost:5000/ws", show_default=True, help="The engine's."
)
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
def main(
    worker_type: str | None,
    files: tuple[str, ...],
    texts: tuple[str, ...],
    prompts: tuple[str, ...],
    fields: tuple[str, ...],
    **options: Any,
) -> None:
    """Send jobs to an engine; print a line of JSON for each.

    \b
    embedding --text "how do I feed a kitten?"
    object_detection photo.jpg *.png --pictures drawn
    caption holidays/
    llm --prompt "Name three colours."
    vlm photo.jpg --prompt "What is this?" --stream
    motion_energy --watch /var/camera
    < jobs.jsonl

    A FOLDER stands for the pictures in it. Lines on standard input, if there is no TYPE or for "-", look
    like this; "id" comes back with the result, and {"$document": …} names a text file:

    \b
    {"worker_type": "caption", "input": {"images": [{"$image": "photo.jpg"}]}, "id": 7}

    A token, if the engine asks for one, comes from CLIENT_TOKEN, or from the file ORB_CLIENT_TOKEN_FILE.
    """
    open_standard_streams()
    try:
        asked = Asked(
            texts=texts,
            prompts=prompts,
            system=options.pop("system"),
            session=options.pop("session") or os.urandom(6).hex(),
            fields=dict(map(_field, fields)),
            image=pictures.shrink if options["shrinks"] else Image,
        )
        plan = _plan(worker_type, files, asked, options)
    except Refused as refusal:
        raise click.UsageError(str(refusal)) from None
    program = _Program(plan)
    try:
        sys.exit(trio.run(program.run))
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except (ConnectionLost, RegistrationRefused) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_NO_ENGINE)
    except ReaderGone:
        sys.exit(128 + signal.SIGPIPE)
    except Unwritable as error:
        click.echo(f"Error: results cannot be written to standard output: {error}", err=True)
        sys.exit(1)


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Refused(f"--field {text}: write it as NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _plan(worker_type: str | None, names: tuple[str, ...], asked: Asked, options: dict[str, Any]) -> _Plan:
    watch, existing, stream = options.pop("watch"), options.pop("existing"), options.pop("stream")
    lines = "-" in names or worker_type == "-"
    if worker_type in (None, "-"):
        worker_type, lines = None, True
        if names or asked.texts or asked.prompts or watch:
            raise Refused("name a worker TYPE first, e.g. object_detection")
        if sys.stdin.isatty():
            raise Refused("nothing to send: name a worker TYPE, or give lines of JSON on standard input")
    if worker_type is not None:
        inputs.check_words(worker_type, asked)
    if existing and not watch:
        raise Refused("--existing goes with --watch only")
    files = inputs.expand([Path(name) for name in names if name != "-"])
    bare = not (files or asked.texts or asked.prompts)
    if watch and (files or lines or asked.texts):
        raise Refused("--watch goes without files, lines and --text")
    arguments = worker_type is not None and not watch and not (lines and bare)
    if worker_type is not None and arguments and not files:
        # What a type needs is seen before anything is connected.
        list(inputs.from_arguments(worker_type, asked, ()))
    total = inputs.count(worker_type, asked, files) if worker_type and arguments and not lines else None
    for wanted, what in ((options["folder"], "--pictures"), (options["shrinks"], "--shrink")):
        if wanted:
            pictures.require_pillow(what)
    if options["folder"] is not None:
        try:
            options["folder"].mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"--pictures {options['folder']}: {error.strerror}") from None
    if stream is None:
        stream = worker_type in _STREAMED and sys.stdout.isatty() and options["folder"] is None
    most = options.pop("in_flight") or (_IN_FLIGHT_SLOW if worker_type in _SLOW else _IN_FLIGHT)
    return _Plan(
        worker_type=worker_type,
        asked=asked,
        arguments=arguments,
        files=files,
        lines=lines,
        watcher=Watcher(watch, existing=existing) if watch else None,
        total=total,
        stream=stream,
        in_flight=most,
        token=_token(),
        **options,
    )


def _token() -> str | None:
    path = os.environ.get("ORB_CLIENT_TOKEN_FILE")
    if token := os.environ.get("CLIENT_TOKEN"):
        return token
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise Refused(f"ORB_CLIENT_TOKEN_FILE is {path!r}: {reason}") from None


class _Program:
    # One run.
    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._writer = Writer(terminal=sys.stdout.isatty())
        self._progress = Progress(plan.total, quiet=plan.quiet)
        self._order = InOrder(self._writer.write, 4 * plan.in_flight) if plan.ordered else None
        self._work = trio.CancelScope()
        self._source: Source | None = None
        self._signals = 0
        self._status = 0

    async def run(self) -> int:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with open_service_nursery() as nursery:
                nursery.start_soon(self._writer.run)
                nursery.start_soon(self._progress.run)
                nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                with self._work:
                    await self._ask_everything()
                if self._plan.stream and self._work.cancelled_caught:
                    await self._writer.write("\n")
                await self._writer.finish()
        if self._progress.done > 1:
            self._progress.say(str(self._progress))
        return self._status or int(self._progress.failed > 0)

    async def _obey(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async for number in signals:
            self._signals += 1
            if self._work.cancel_called:
                everything.cancel()  # nobody reads what is left to be written
            if self._signals > 1 or self._source is None or self._plan.stream:
                self._status = 128 + number
                self._work.cancel()
                continue
            if self._plan.watcher is None:
                self._status = 128 + number
            self._source.stop()
            name = signal.Signals(number).name
            self._progress.say(f"{name}: waiting for the jobs that are open; a second signal cancels them")

    async def _ask_everything(self) -> None:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(connect(self._plan.url, token=self._plan.token))
            entries = await stack.enter_async_context(aclosing(self._entries()))
            room = self._order.room if self._order else None
            self._source = sources.Source(entries, self._report, room=room, timeout=self._plan.timeout)
            if self._plan.stream:
                async for job in self._source:
                    await self._stream(client, job)
                return
            results = client.submit_many(self._source, max_in_flight=self._plan.in_flight)
            await stack.enter_async_context(results)
            async for result in results:
                output = result.output if result.error is None else None
                await self._show(result.job.tag, output, result.error)

    async def _entries(self) -> AsyncGenerator[Entry | Problem, None]:
        plan = self._plan
        if plan.worker_type is not None and plan.arguments:
            async with aclosing(self._of(plan.worker_type, plan.files)) as entries:
                async for entry in entries:
                    yield entry
        if plan.lines:
            async with (
                aclosing(sources.read_lines()) as lines,
                aclosing(
                    sources.from_lines(lines, plan.worker_type, plan.asked, in_thread=plan.shrinks)
                ) as entries,
            ):
                async for entry in entries:
                    yield entry
        if plan.watcher is not None and plan.worker_type is not None:
            async with aclosing(plan.watcher.pictures(self._progress.say)) as found:
                async for path in found:
                    async with aclosing(self._of(plan.worker_type, [path])) as entries:
                        async for entry in entries:
                            yield entry

    def _of(self, worker_type: str, files: list[Path]) -> AsyncGenerator[Entry | Problem, None]:
        return sources.from_files(worker_type, self._plan.asked, files, in_thread=self._plan.shrinks)

    async def _report(self, task: Task, problem: Problem) -> None:
        await self._show(task, None, Refused(problem.text))

    # A result's line, and its picture.
    async def _show(self, task: Task, output: dict[str, Any] | None, error: Exception | None) -> None:
        self._progress.count(failed=error is not None)
        entry = task.entry
        fields: dict[str, Any] = {"index": task.index}
        if isinstance(entry, Entry) and entry.given_id is not None:
            fields["id"] = entry.given_id
        fields |= {"worker_type": entry.worker_type} if entry.worker_type else {}
        fields |= {"file": entry.file} if entry.file else {}
        if error is None:
            fields["output"] = output
            if self._plan.folder is not None and isinstance(entry, Entry) and entry.pictures:
                fields |= await self._draw(self._plan.folder, task.index, entry, output or {})
        else:
            fields["error"] = describe(error)
            if isinstance(error, ConnectionLost | RegistrationRefused):
                self._status = self._status or _NO_ENGINE
        line = to_line(fields)
        if self._order is None:
            await self._writer.write(line)
        else:
            await self._order.write(task.index, line)

    async def _draw(self, folder: Path, index: int, entry: Entry, output: dict[str, Any]) -> dict[str, str]:
        picture = entry.pictures[0]
        name = entry.file or (str(picture.source) if isinstance(picture.source, Path) else None)
        try:
            path = await trio.to_thread.run_sync(
                pictures.draw_result, folder, index, name, picture, output, abandon_on_cancel=True
            )
        except Refused as refusal:
            return {"picture_error": str(refusal)}
        return {} if path is None else {"picture": str(path)}

    async def _stream(self, client: Client, job: Job) -> None:
        shown, attempt = False, 1
        try:
            async with client.stream(
                job.worker_type, job.input, timeout=job.timeout, extra=job.extra
            ) as stream:
                async for piece in stream:
                    if stream.attempt > attempt and shown:
                        await self._writer.write("\n")
                        self._progress.say("its worker was lost: the answer begins again")
                    attempt = stream.attempt
                    if isinstance(piece.get("text"), str):
                        shown = True
                        await self._writer.write(piece["text"])
            output = stream.output
        except (OrbError, OSError, ValueError, TypeError) as error:
            if isinstance(error, ConnectionLost | RegistrationRefused):
                raise
            if shown:
                await self._writer.write("\n")
            await self._show(job.tag, None, error)
            return
        if shown or isinstance(output.get("response"), str):
            self._progress.count(failed=False)
            await self._writer.write("\n" if shown else f"{output['response']}\n")
        else:
            await self._show(job.tag, output, None)


if __name__ == "__main__":
    main(prog_name="python -m orbtrio.client")
