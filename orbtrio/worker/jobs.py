"""Jobs on their way through a worker, and what a handler may do with one beside computing it.

A `Job` is a few fields and two ways out: `report`, which leads to the link's outbox, and `cancelled`, which
the link sets. It knows neither link nor engine, so a test of a handler makes one in a line and looks at what
it reports.

A flag and not a scope of Trio's: most models compute in a thread, where the only thing that can be done about
a lost cause is to look up from time to time. Handlers that run in the event loop get a scope as well, from
`handlers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from orbtrio.errors import OrbError

if TYPE_CHECKING:
    from orbtrio.protocol.messages import JobBatch

__all__ = ["Batch", "Job", "JobCancelled", "Report"]

# Called with a job's id and the fields of a report.
Report: TypeAlias = Callable[[str, Mapping[str, Any]], None]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class JobCancelled(OrbError):
    """Nobody waits for this job any more: the client took it back, its time is over, or the link is gone.

    Raised by `Job.report` and `Job.check_cancelled`, for a handler to let through. The runtime answers the
    job with the error ``cancelled`` and goes on with the next.
    """


class Job:
    """A job as a handler gets it, if it asked for jobs in place of inputs.

    Tests of a handler make their own: ``Job({"text": "hello"}, report=lambda job_id, fields: ...)``.

    Attributes:
        input: What to work on: what `prepare` returned if there is one, else the dict that was sent.
        extra: Fields beside the input; empty if there are none.
        job_id: The engine's name for it, for logs.
        cancelled: Nobody waits for it any more. May change at any time; to be read from any thread.
        failure: What `prepare` raised. Such a job is answered with it and gets to no handler.
        typed_arrays: Whether the engine takes arrays of its result as they are.
    """

    __slots__ = (
        "_report",
        "_reported",
        "cancelled",
        "extra",
        "failure",
        "input",
        "job_id",
        "typed_arrays",
    )

    def __init__(
        self,
        input: Any,
        extra: Mapping[str, Any] | None = None,
        job_id: str = "",
        report: Report | None = None,
        typed_arrays: bool = False,
    ) -> None:
        self.input = input
        self.extra: Mapping[str, Any] = extra or _NOTHING
        self.job_id = job_id
        self.cancelled = False
        self.failure: Exception | None = None
        self.typed_arrays = typed_arrays
        self._report = report
        self._reported = False

    def __repr__(self) -> str:
        return f"<Job {self.job_id!r}{', cancelled' if self.cancelled else ''}>"

    def check_cancelled(self) -> None:
        """Do nothing while the job is wanted.

        Raises:
            JobCancelled: it is not; let it pass.
        """
        if self.cancelled:
            raise JobCancelled("cancelled")

    def report(self, /, **fields: Any) -> None:
        """Tell whoever waits for the job how far it is: a piece of text, a percentage, whatever helps.

        Arrives in order, before the job's answer, and shows the engine that the job lives. From a thread it
        waits while more is unsent than the engine takes, so it may stand in the fastest of loops. Where the
        engine knows nothing of progress, nothing happens.

        Raises:
            JobCancelled: nobody waits for the job; let it pass, and the loop ends by itself.
            InvalidMessage: a field cannot be encoded, or they are larger than a message may be.
        """
        self.check_cancelled()
        if self._report is not None:
            self._reported = True
            self._report(self.job_id, fields)

    def start_over(self) -> None:
        """It will be computed a second time, after something went wrong in its batch.

        If it has reported, it reports no more: whoever has read half a text can still get the whole as the
        answer, but must not read the beginning twice.
        """
        if self._reported:
            self._report = None


class Batch:
    """Jobs that came together, until all of them are answered.

    Args:
        message: The message they came in.
        size: Bytes that it had.
        report: Where reports of its jobs go.
        typed_arrays: Whether the engine takes arrays of their results as they are.

    Attributes:
        jobs: By id, in their order. An engine that names an id twice gets one answer: a second would be for
            a job that no longer exists.
        size: Bytes of its message.
        resources: Paths on the engine's machine, and what is in those files; until it is written down here.
        files: Where that has been written.
    """

    __slots__ = ("files", "jobs", "resources", "size")

    def __init__(
        self,
        message: JobBatch,
        *,
        size: int = 0,
        report: Report | None = None,
        typed_arrays: bool = False,
    ) -> None:
        self.jobs = {
            job.job_id: Job(job.input, job.extra, job.job_id, report, typed_arrays) for job in message.jobs
        }
        self.size = size
        self.resources = message.resources
        self.files: list[str] = []
