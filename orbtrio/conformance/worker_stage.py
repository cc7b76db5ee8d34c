"""The stage for a worker under test: the suite plays the engine.

The worker connects to us, so a case cannot have as many links as it likes: it takes over the one that is
there, or waits for the next. A process lives through many plans, because loading a model takes seconds; what
is known of it, and the link that a plan left in order, are on its `Bench`.

A *barrier* is one more job that is known to be answered: what was sent before it has been seen.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from orbtrio.conformance.examples import PICTURE
from orbtrio.conformance.model import TargetGone, Violation
from orbtrio.conformance.stage import PROMPTLY, Conditions, Stage
from orbtrio.conformance.worker_bench import IMAGE, Bench, WorkerLink, WorkJob

if TYPE_CHECKING:
    import collections
    from collections.abc import Sequence
    from pathlib import Path

    from orbtrio.conformance.world import World

__all__ = ["LONGEST_AWAY", "WorkerStage"]

# Seconds that a worker may stay away, at the end of its back-off.
LONGEST_AWAY: Final = 60.0

# How much longer than when it was measured a job may take, with neighbours on the machine.
_BUSY: Final = 10.0


class WorkerStage(Stage):
    """The engine that a worker under test connects to.

    Attributes:
        bench: What is known of it.
        jobs: All that were sent on this stage.
    """

    def __init__(
        self,
        world: World,
        conditions: Conditions,
        counters: collections.Counter[str],
        bench: Bench,
        *,
        nonce: str,
    ) -> None:
        super().__init__(world, conditions, counters)
        self.bench = bench
        self.jobs: list[WorkJob] = []
        self._nonce = nonce
        self._pictures: list[Path] = []
        self._links = 0
        self._made = 0
        self._struck = False
        self._current: WorkerLink | None = None
        self._announces: frozenset[str] = frozenset()
        if bench.link is not None:
            link, bench.link = bench.link, None
            link.take_over(self.log, self._next_name())
            self._adopt(link)

    # --- Links ---

    def announce(self, *names: str) -> None:
        """From now on be an engine that understands these extensions; a stage begins with none."""
        self._announces = frozenset(names)

    def link(self) -> WorkerLink:
        """The worker's link; if there is none, or one on which we are another engine, its next.

        Raises:
            Violation: it does not connect.
        """
        current = self._current
        if current is not None and current.closed is None and current.announced != self._announces:
            self.note("the engine is replaced by one with other extensions")
            self._end(current, 1001)
        if self._current is None or self._current.closed is not None:
            self.next_link(LONGEST_AWAY)
        if self._current is None:
            self.fail(
                f"the worker connects and sends its registration within {LONGEST_AWAY:.0f} s", "nothing"
            )
        return self._current

    def next_link(self, seconds: float) -> WorkerLink | None:
        """The next link on which the worker says something, if there is one in time."""
        self._current = None
        deadline = self.now() + seconds
        while (left := deadline - self.now()) > 0:
            # In pieces: of a process that has ended no connection comes.
            pipe = self.world.accept(min(left, 0.25))
            if pipe is None:
                if not self.world.alive():
                    break
                continue
            link = WorkerLink(pipe, self.log, self._next_name(), announces=self._announces)
            self.peers.append(link)
            self.world.wait(max(deadline - self.now(), 0.0), link.has_spoken)
            if link.first is not None:
                self.peers.remove(link)
                self._adopt(link)
                return link
        return None

    def end(self, kind: Any, jobs: Sequence[WorkJob] = ()) -> float:
        """End the worker's link: by a close code, ``"FIN"``, ``"RST"``, or ``"cut"`` amidst a batch.

        Returns:
            When it was over.
        """
        return self._end(self.link(), kind, jobs)

    def _end(self, link: WorkerLink, kind: Any, jobs: Sequence[WorkJob] = ()) -> float:
        self._current = None
        self.bench.losses += 1
        if isinstance(kind, int):
            link.close(kind)
            self.world.wait(2.0, lambda: link.closed is not None)
            link.pipe.close()
        elif kind == "cut":
            jobs = jobs or [self.job()]
            batch = {"inputs": [job.entry for job in jobs]}
            link.cut(batch, len(link.frame(batch)) // 2)
        else:
            link.drop(kind)
        return self.now()

    def restart(self, *, after: int = 1) -> None:
        """Have a process that has lost fewer links than so many: its back-off has not grown yet."""
        if self.bench.restart is not None and self.bench.losses >= after:
            if self._current is not None:
                self._current.drop("FIN")
                self._current = None
            self.note("the worker is started again")
            self.bench.restart()

    def _adopt(self, link: WorkerLink) -> None:
        self._current = link
        self.peers.append(link)
        if self.bench.worker_type is None:
            self.bench.worker_type = str(link.registered_as.get("worker_type", ""))

    def _next_name(self) -> str:
        self._links += 1
        return f"link#{self._links}"

    # --- Jobs ---

    def job(self, number: int = 0, *, job_id: str | None = None, **extra: Any) -> WorkJob:
        """A job that the worker can do.

        Args:
            number: Which of the good inputs; counts through them over and over.
            job_id: Its identifier; made up if not given.
            extra: Further fields of the job; ``input`` replaces the input.
        """
        self._made += 1
        good = self.bench.good
        if good == ():
            self.skip("it answered every input that we know by an error: say with --inputs what it can do")
        entry_id = job_id or f"{self._nonce}-{self._made}"
        if "input" not in extra:
            ways = self.bench.inputs(self.picture() if self.wants_pictures(number) else IMAGE)
            extra["input"] = ways[self._good(number) % len(ways)]
        return WorkJob(entry_id, {"id": entry_id, **extra})

    def wants_pictures(self, number: int = 0) -> bool:
        """Whether that input has the path of a picture in it."""
        ways = self.bench.inputs(IMAGE)
        return IMAGE in repr(ways[self._good(number) % len(ways)])

    def picture_inputs(self) -> list[int]:
        """Numbers of the good inputs that have a path in them."""
        count = len(self.bench.inputs(IMAGE)) if self.bench.good is None else len(self.bench.good)
        return [number for number in range(count) if self.wants_pictures(number)]

    def input_with(self, number: int, image: str) -> dict[str, Any]:
        """That input, with this path in it."""
        ways = self.bench.inputs(image)
        return ways[self._good(number) % len(ways)]

    def _good(self, number: int) -> int:
        good = self.bench.good
        return number if good is None else good[number % len(good)]

    def picture(self, content: bytes = PICTURE) -> str:
        """The path of a new file with a picture, as an engine stores a resource. Gone with the stage."""
        path = self.bench.folder / f"img-{self._nonce}-{len(self._pictures)}.png"
        path.write_bytes(content)
        self._pictures.append(path)
        return str(path)

    def deliver(self, *jobs: WorkJob, **fields: Any) -> None:
        """Send these jobs in one batch, with further fields beside ``inputs``."""
        link = self.link()
        for job in jobs:
            job.link = link
        self.jobs += jobs
        link.send({"inputs": [job.entry for job in jobs], **fields})

    def seconds_for(self, jobs: int) -> float:
        """Within which the worker must have done so many jobs, slack not counted."""
        return PROMPTLY + _BUSY * self.bench.job_seconds * jobs

    def expect_answers(self, jobs: Sequence[WorkJob], expected: str) -> None:
        """Demand that each job gets an answer.

        Raises:
            Violation: one does not.
        """
        link = self.link() if not jobs or jobs[0].link is None else jobs[0].link

        def answered() -> bool:
            return all(job.answers for job in jobs)

        self.wait(lambda: answered() or link.closed is not None, self.seconds_for(len(jobs)))
        missing = [job.id for job in jobs if not job.answers]
        if missing:
            seen = f"no answer to {', '.join(missing[:5])}" + (" and others" if len(missing) > 5 else "")
            if link.closed is not None:
                seen += f"; {link.name} {link.closed}"
            # A process that dies takes its link with it, a moment before one can tell.
            self.world.wait(self.slack, lambda: not self.world.alive())
            self.fail(f"{expected}, within {self.seconds_for(len(jobs)):.1f} s", seen)

    def barrier(self) -> WorkJob:
        """Wait until the worker has seen what was sent before: one more job is answered.

        Raises:
            Violation: it is not.
        """
        job = self.job()
        self.deliver(job)
        self.expect_answers([job], f"job {job.id}, which is good, is answered")
        return job

    # --- The end ---

    def strike(self) -> None:
        """Leave the link in order for the next plan, or end it. Once."""
        if self._struck:
            return
        self._struck = True
        link = self._current
        with contextlib.suppress(Violation, TargetGone):
            if link is not None and link.closed is None:
                link.pipe.paused = False
                left = [job for job in self.jobs if job.link is link and not job.answers]
                self.wait(
                    lambda: all(job.answers for job in left) or link.closed is not None,
                    2 * self.bench.job_seconds * len(left),
                )
                if all(job.answers for job in left) and not link.has_ended():
                    self.bench.link = link
                    self.peers.remove(link)
        if self.bench.link is None and link is not None:
            self.bench.losses += 1
        super().strike()
        for path in self._pictures:
            path.unlink(missing_ok=True)
