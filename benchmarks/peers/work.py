"""What every system is asked to do, the proof that it did, and how large its batches were.

Each text begins with the number of its job, so that two answers that changed places are found.

How large batches get decides what a job costs, so it must be known; but no system tells in a way that the
others do. So the workers count, in the echo that all of them run, and answer a job with a certain text by
their counts. Rejected: to read it from each system's own statistics, or to have workers write files, which
costs them something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["QUESTION", "Counts", "Echo", "WrongAnswer", "texts", "verify"]

# A job with this text is answered by the counts.
QUESTION: Final = "how many?"


class WrongAnswer(Exception):
    """An answer is wrong, missing or one too many."""


@attrs.frozen
class Counts:
    """What a worker has done so far, or between two times."""

    jobs: int
    batches: int

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(self.jobs - earlier.jobs, self.batches - earlier.batches)

    @property
    def jobs_per_batch(self) -> float:
        """The mean size of batches."""
        return self.jobs / self.batches if self.batches else 0.0

    @classmethod
    def parse(cls, answer: str) -> Counts:
        """The counts that `Echo` answered.

        Raises:
            WrongAnswer: it is no such answer.
        """
        try:
            jobs, batches = map(int, answer.split())
        except ValueError:
            raise WrongAnswer(f"asked for its counts, a worker answered {answer[:100]!r}") from None
        return cls(jobs, batches)


class Echo:
    """The model of every worker: as many texts back as it got, the same and in their order."""

    def __init__(self) -> None:
        self._jobs = 0
        self._batches = 0

    def __call__(self, batch: Sequence[str]) -> list[str]:
        if batch[0] == QUESTION:
            return [f"{self._jobs} {self._batches}"] * len(batch)
        self._jobs += len(batch)
        self._batches += 1
        return list(batch)


def texts(first: int, count: int, size: int) -> list[str]:
    """Texts of jobs.

    Args:
        first: The first one's number.
        count: How many.
        size: Of each, in bytes; 9 at least.
    """
    repeats = size // 9 + 1
    return [(f"{number:08} " * repeats)[:size] for number in range(first, first + count)]


def verify(asked: Sequence[str], answers: Sequence[str]) -> None:
    """Hold every answer against its job.

    Raises:
        WrongAnswer: the first that is wrong.
    """
    if len(asked) != len(answers):
        raise WrongAnswer(f"{len(asked)} jobs have {len(answers)} answers")
    for text, answer in zip(asked, answers, strict=True):
        if text != answer:
            raise WrongAnswer(f"a job with {text[:20]!r}… was answered {answer[:200]!r}")
