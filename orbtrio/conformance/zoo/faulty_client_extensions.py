"""Clients that are wrong about extensions."""

from __future__ import annotations

from typing import Any

from orbtrio.conformance.model import Role
from orbtrio.conformance.simulation import Crashed
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.mutants import mutant

__all__: list[str] = []


@mutant("client-cancels-unannounced", kills=("ORB-EXT-61",), role=Role.CLIENT)
class CancelsUnannounced(ModelClient):
    """Tells any engine what it has given up, and soon."""

    def watch(self, job_ids: list[Any]) -> None:
        self.host.call_at(self.host.now() + 0.5, lambda: self.give_up(job_ids))


@mutant("client-times-unannounced", kills=("ORB-EXT-61",), role=Role.CLIENT)
class TimesUnannounced(ModelClient):
    """Has a timeout_ms in each job, for any engine."""

    def timed(self, job: dict[str, Any]) -> dict[str, Any]:
        return {**job, "timeout_ms": 60_000}


@mutant("client-repeats-times", kills=("ORB-EXT-61",), role=Role.CLIENT)
class RepeatsTimes(ModelClient):
    """Repeats jobs as it has sent them before, to another engine that knows less."""

    def submit(self) -> None:
        super().submit()
        for job, _ in self.waiting.values():
            job.update(self.timed(job))


@mutant("client-cancels-by-number", kills=("ORB-EXT-62",), role=Role.CLIENT)
class CancelsByNumber(ModelClient):
    """Cancels by its own numbers of jobs, which the engine never heard."""

    def send(self, message: dict[str, Any]) -> None:
        if message.get("type") == "cancel_request":
            message = {**message, "job_ids": list(range(len(message["job_ids"])))}
        super().send(message)


@mutant("client-cancels-twice", kills=("ORB-EXT-62",), role=Role.CLIENT)
class CancelsTwice(ModelClient):
    """Says twice that it has given a job up, to be sure."""

    def send(self, message: dict[str, Any]) -> None:
        super().send(message)
        if message.get("type") == "cancel_request":
            super().send(message)


@mutant("client-dies-of-late-answers", kills=("ORB-EXT-62",), role=Role.CLIENT)
class DiesOfLateAnswers(ModelClient):
    """An answer to a job that it has given up ends the process."""

    def __init__(self, token: str | None = None) -> None:
        super().__init__(token)
        self.given_up: set[Any] = set()

    def give_up(self, job_ids: list[Any]) -> None:
        self.given_up |= set(job_ids) & set(self.waiting)
        super().give_up(job_ids)

    def on_response(self, job_id: Any, response: dict[str, Any]) -> None:
        if job_id in self.given_up:
            raise Crashed("an answer to nobody")
        super().on_response(job_id, response)


@mutant("client-takes-the-first-of-many", kills=("ORB-EXT-63",), role=Role.CLIENT)
class TakesTheFirstOfMany(ModelClient):
    """Takes the first of answers that come together."""

    def on_responses(self, responses: Any) -> None:
        super().on_responses(responses[:1])


@mutant("client-deaf-to-many", kills=("ORB-EXT-63",), role=Role.CLIENT)
class DeafToMany(ModelClient):
    """Asks for answers together, and does not know them when they come."""

    def on_responses(self, responses: Any) -> None:
        pass


@mutant("client-dies-of-progress", kills=("ORB-EXT-64",), role=Role.CLIENT)
class DiesOfProgress(ModelClient):
    """Progress of a job that it does not wait for ends the process."""

    def on_progress(self, message: dict[str, Any]) -> None:
        if message["job_id"] not in self.waiting:
            raise Crashed("progress of an unknown job")


@mutant("client-drowns-in-progress", kills=("ORB-EXT-64",), role=Role.CLIENT)
class DrownsInProgress(ModelClient):
    """Forgets a job when it has heard of its progress, and never submits another in its place."""

    def on_progress(self, message: dict[str, Any]) -> None:
        job = self.waiting.pop(message["job_id"], None)
        if job is not None:
            self.waiting[object()] = job


@mutant("client-dies-of-typed-arrays", kills=("ORB-EXT-65",), role=Role.CLIENT)
class DiesOfTypedArrays(ModelClient):
    """Asks for typed arrays, and ends when one comes where it counts on a list."""

    def on_answer(self, job_id: Any, output: Any) -> None:
        if not isinstance(output.get("embedding", []), list):
            raise Crashed("no list")


@mutant("client-waits-for-lists", kills=("ORB-EXT-65",), role=Role.CLIENT)
class WaitsForLists(ModelClient):
    """Asks for typed arrays, and takes an answer with one for none."""

    def on_response(self, job_id: Any, response: dict[str, Any]) -> None:
        if isinstance(response["output"].get("embedding", []), list):
            super().on_response(job_id, response)
