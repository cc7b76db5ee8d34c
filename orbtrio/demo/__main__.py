"""The demo at work: asks, shows what happens, judges. See `orbtrio.demo`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

import orbtrio
from orbtrio._nursery import open_service_nursery
from orbtrio.demo import verdict
from orbtrio.demo.clip import SCENES, UnreadableVideo, film, read_clip
from orbtrio.demo.jobs import QUESTIONS, ask, make_streams
from orbtrio.demo.system import ProcessFailed, fetch_workers, open_system

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orbtrio.demo.clip import Clip
    from orbtrio.demo.jobs import Tag

_WORKERS: Final = {
    "motion-1": "workers.motion_energy",
    "motion-2": "workers.motion_energy",
    "embedding": "workers.embedding",
    "llm": "workers.llm",
    "detection": "workers.object_detection",
    "segmentation": "workers.segmentation",
    "video": "workers.video_segmentation",
}
_MISTAKES_SHOWN: Final = 10


@click.command()
@click.argument("video", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="demo.png",
    show_default=True,
    help="Where to write the picture.",
)
def main(video: Path | None, out: Path) -> None:
    """Run an engine, a worker of each type that brings a model, and a client.

    The client sends VIDEO, or a clip made of photographs, and photographs, texts and questions.
    """
    console = Console(soft_wrap=True, highlight=False)
    try:
        mistakes = trio.run(run_demo, video, out, console)
    except (ProcessFailed, UnreadableVideo) as error:
        sys.exit(f"The demo failed: {error}")
    for mistake in mistakes[:_MISTAKES_SHOWN]:
        console.print(f"wrong: {mistake}", markup=False)
    if mistakes:
        sys.exit(f"{len(mistakes)} answers are missing or wrong.")
    console.print("Every job was answered, and answered rightly.")


async def run_demo(video: Path | None, out: Path, console: Console) -> list[str]:
    """Ask, show, judge and draw.

    Returns:
        What was answered wrongly, or not at all; empty if all is well.
    """
    with tempfile.TemporaryDirectory(prefix="orbtrio-demo-") as name:
        folder = Path(name)
        clip = await trio.to_thread.run_sync(_open_clip, video, folder)
        progress = await _ask_everything(clip, folder, console)
    if progress.failures:
        return progress.failures
    title = f"orbtrio: {progress.jobs} jobs, {len(_WORKERS)} workers, {progress.seconds:.0f} s"
    await trio.to_thread.run_sync(verdict.draw, out, title, clip, progress.answers)
    console.print(f"What went in and what came out: {out}")
    return verdict.find_mistakes(clip, progress.answers)


def _open_clip(video: Path | None, folder: Path) -> Clip:
    if video is not None:
        return read_clip(video)
    film(folder / "clip.avi")
    return read_clip(folder / "clip.avi", SCENES)


# --- Asking ----------------------------------------------------------------------------------------------


@attrs.define
class Progress:
    """How far the jobs are.

    Attributes:
        jobs: How many there are.
        started: When the first was sent, by `time.perf_counter`.
        answers: The outputs so far, by the tags of their jobs.
        failures: Why there is no output, where there is none.
        workers: For each worker what the engine counts about it.
        ended: When all were answered; 0 before.
    """

    jobs: int
    started: float = attrs.field(factory=time.perf_counter)
    answers: dict[Tag, dict[str, Any]] = attrs.field(factory=dict)
    failures: list[str] = attrs.field(factory=list)
    workers: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """Since the first job was sent, or from then to the last answer if all are there."""
        return (self.ended or time.perf_counter()) - self.started

    def __str__(self) -> str:
        done = len(self.answers) + len(self.failures)
        return f"{done} of {self.jobs} jobs answered after {self.seconds:.1f} s"


async def _ask_everything(clip: Clip, folder: Path, console: Console) -> Progress:
    streams = make_streams(clip)
    async with open_system(folder, _WORKERS) as address, orbtrio.connect(f"ws://{address}/ws") as client:
        progress = Progress(sum(map(len, streams)) + len(QUESTIONS))
        async with open_service_nursery() as showing:
            showing.start_soon(_show, progress, address, console)
            async with trio.open_nursery() as asking:
                for stream in streams:
                    asking.start_soon(_ask, client, stream, progress)
                for question in QUESTIONS:
                    asking.start_soon(_talk, client, question, progress)
        progress.ended = time.perf_counter()
        progress.workers = await fetch_workers(address)
        console.print(_make_table(progress))
    return progress


async def _ask(client: orbtrio.Client, stream: Iterable[orbtrio.Job], progress: Progress) -> None:
    async for result in client.submit_many(stream):
        if result.error is None:
            progress.answers[result.job.tag] = result.output
        else:
            progress.failures.append(f"{result.job.tag}: {result.error!r}")


async def _talk(client: orbtrio.Client, question: str, progress: Progress) -> None:
    pieces: list[str] = []
    try:
        async with client.stream("llm", ask(question)) as stream:
            async for piece in stream:
                pieces.append(piece["text"])
    except orbtrio.OrbError as error:
        progress.failures.append(f"{question!r}: {error!r}")
    else:
        progress.answers["talk", question] = {**stream.output, "pieces": pieces}


# --- Showing ---------------------------------------------------------------------------------------------


async def _show(progress: Progress, address: str, console: Console) -> None:
    # On a terminal a table that stays in its place, elsewhere a line from time to time.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            progress.workers = await fetch_workers(address)
            if console.is_terminal:
                live.update(_make_table(progress), refresh=True)
                await trio.sleep(0.2)
            else:
                console.print(str(progress))
                await trio.sleep(2)


def _make_table(progress: Progress) -> Table:
    table = Table(title=str(progress))
    table.add_column("worker", no_wrap=True)
    for column in ("jobs", "batches", "jobs/batch", "ms/batch", "queued", "sent"):
        table.add_column(column, justify="right")
    for name, numbers in sorted(progress.workers.items()):
        jobs, batches = numbers["orb_worker_jobs_total"], numbers["orb_worker_batches_total"]
        answered = numbers["orb_worker_latency_seconds_count"]
        seconds = numbers["orb_worker_latency_seconds_sum"]
        table.add_row(
            name,
            f"{jobs:.0f}",
            f"{batches:.0f}",
            f"{jobs / batches:.1f}" if batches else "",
            f"{1000 * seconds / answered:.0f}" if answered else "",
            f"{numbers['orb_worker_queued']:.0f}",
            f"{numbers['orb_worker_unanswered']:.0f}",
        )
    return table


if __name__ == "__main__":
    main()
