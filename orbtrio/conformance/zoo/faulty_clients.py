"""Clients that are wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cbor2
from wsproto.events import CloseConnection, Ping, Pong

from orbtrio.conformance.model import Role
from orbtrio.conformance.simulation import Crashed
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.mutants import mutant

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__: list[str] = []


# --- CLI-01: what comes first -------------------------------------------------------------------------------


@mutant("client-that-says-worker", kills=("ORB-CLI-01",), role=Role.CLIENT)
class SaysWorker(ModelClient):
    """Introduces itself as a worker."""

    def introduction(self) -> dict[str, Any] | None:
        return {"type": "i_am_worker", "worker_config": {"worker_type": "embedding"}}


@mutant("client-introduces-twice", kills=("ORB-CLI-01",), role=Role.CLIENT)
class IntroducesTwice(ModelClient):
    """Says who it is before each request."""

    def request(self, jobs: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
        introduction = self.introduction()
        assert introduction is not None
        self.send(introduction)
        return super().request(jobs, resources)


@mutant("jobs-without-type", kills=("ORB-CLI-01",), role=Role.CLIENT)
class JobsWithoutType(ModelClient):
    """Calls a job's `worker_type` `type`, like everything else."""

    def request(self, jobs: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
        renamed = [{("type" if key == "worker_type" else key): job[key] for key in job} for job in jobs]
        return super().request(renamed, resources)


@mutant("jobs-by-id", kills=("ORB-CLI-01",), role=Role.CLIENT)
class JobsById(ModelClient):
    """Sends its jobs as a map from identifier to job, for a list has no keys."""

    def request(self, jobs: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
        return {**super().request(jobs, resources), "jobs": {job["job_id"]: job for job in jobs}}


# --- CLI-02: identifiers ------------------------------------------------------------------------------------


@mutant("ids-start-again", kills=("ORB-CLI-02",), role=Role.CLIENT)
class IdsStartAgain(ModelClient):
    """Numbers the jobs of each request from 0."""

    def job_id(self, number: int) -> Any:
        return f"job-{number % 2}"


@mutant("ids-come-round", kills=("ORB-CLI-02",), role=Role.CLIENT)
class IdsComeRound(ModelClient):
    """Has 32 numbers for its jobs, and does not look whether one is still in use."""

    def job_id(self, number: int) -> Any:
        return f"job-{number % 32}"


@mutant("no-job-id", kills=("ORB-CLI-02",), role=Role.CLIENT)
class NoJobId(ModelClient):
    """Leaves the identifier out, for the input says it all."""

    def request(self, jobs: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
        bare = [{key: job[key] for key in job if key != "job_id"} for job in jobs]
        return super().request(bare, resources)


# --- CLI-03: references -------------------------------------------------------------------------------------


@mutant("resource-sent-once", kills=("ORB-CLI-03",), role=Role.CLIENT)
class ResourceSentOnce(ModelClient):
    """Sends a resource with the first request that needs it, and only refers to it later."""

    def resources_for(self, number: int) -> list[dict[str, Any]]:
        return [{"id": "logo", "type": "image", "data": b"\x89PNG\r\n\x1a\n"}]

    def request(self, jobs: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
        return super().request(jobs, resources if jobs[0]["job_id"] == "job-0" else [])


@mutant("unused-resource", kills=("ORB-CLI-03",), role=Role.CLIENT)
class UnusedResource(ModelClient):
    """Refers to the first of its resources only."""

    def input_for(self, number: int, resources: list[dict[str, Any]]) -> dict[str, Any]:
        return super().input_for(number, resources[:1])


# --- CLI-04: resources --------------------------------------------------------------------------------------


@mutant("huge-resource", kills=("ORB-CLI-04",), role=Role.CLIENT)
class HugeResource(ModelClient):
    """Sends pictures as the camera made them."""

    def resources_for(self, number: int) -> list[dict[str, Any]]:
        return [{"id": "photo", "type": "image", "data": bytes(2_097_153)}]


@mutant("base64-image", kills=("ORB-CLI-04",), role=Role.CLIENT)
class Base64Image(ModelClient):
    """Sends an image as a data URL."""

    def resources_for(self, number: int) -> list[dict[str, Any]]:
        return [{"id": "photo", "type": "image", "data": "data:image/png;base64,iVBORw0KGgo="}]


@mutant("one-id-for-all-resources", kills=("ORB-CLI-04",), role=Role.CLIENT)
class OneIdForAllResources(ModelClient):
    """Gives each resource of a request the same id."""

    def resources_for(self, number: int) -> list[dict[str, Any]]:
        return [{**resource, "id": "file"} for resource in super().resources_for(number)]


# --- CLI-05: bytes ------------------------------------------------------------------------------------------


@mutant("status-as-text", kills=("ORB-CLI-05",), role=Role.CLIENT)
class StatusAsText(ModelClient):
    """Tells the engine now and then how it is, in a text message of JSON."""

    def on_answer(self, job_id: Any, output: Any) -> None:
        self.send_text(json.dumps({"status": "fine"}))


@mutant("bytes-behind", kills=("ORB-CLI-05",), role=Role.CLIENT)
class BytesBehind(ModelClient):
    """Ends its tenth request, as a line, with a line end."""

    def encode(self, message: dict[str, Any]) -> bytes:
        jobs = message.get("jobs") or [{}]
        return super().encode(message) + (b"\n" if jobs[0].get("job_id") == "job-10" else b"")


@mutant("unmasked-frames", kills=("ORB-CLI-05",), role=Role.CLIENT)
class UnmaskedFrames(ModelClient):
    """Does not mask its frames: that is for browsers."""

    def send(self, message: dict[str, Any]) -> None:
        data = self.encode(message)
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        if self.link is not None:
            self.link.send(b"\x82" + size + data)


@mutant("indefinite-lengths", kills=("ORB-CLI-05",), role=Role.CLIENT)
class IndefiniteLengths(ModelClient):
    """Streams the jobs of a request into a list whose length it does not know yet."""

    def encode(self, message: dict[str, Any]) -> bytes:
        return cbor2.dumps(message, indefinite_containers=True)


# --- CLI-06: pings ------------------------------------------------------------------------------------------


@mutant("no-pongs-while-waiting", kills=("ORB-CLI-06",), role=Role.CLIENT)
class NoPongsWhileWaiting(ModelClient):
    """Answers pings only when it waits for no job, for it reads nothing but answers then."""

    def on_ping(self, ping: Ping) -> None:
        if not self.waiting:
            super().on_ping(ping)


@mutant("empty-pongs", kills=("ORB-CLI-06",), role=Role.CLIENT)
class EmptyPongs(ModelClient):
    """Answers a ping without its payload."""

    def on_ping(self, ping: Ping) -> None:
        self.send_event(Pong())


# --- CLI-07: what it does not know --------------------------------------------------------------------------


@mutant("unknown-type-ends-it", kills=("ORB-CLI-07",), role=Role.CLIENT)
class UnknownTypeEndsIt(ModelClient):
    """Closes the connection over a message that it does not know."""

    def on_unknown(self, message: Any) -> None:
        self.send_event(CloseConnection(1002, "unknown message"))
        self.lose()


@mutant("unknown-job-crashes", kills=("ORB-CLI-07",), role=Role.CLIENT)
class UnknownJobCrashes(ModelClient):
    """Looks a job up by the identifier of an answer, and has nobody catch the KeyError."""

    def on_response(self, job_id: Any, response: dict[str, Any]) -> None:
        if str(job_id) not in self.waiting:
            raise Crashed(f"KeyError: {job_id!r}")
        super().on_response(job_id, response)


@mutant("strict-answers", kills=("ORB-CLI-07",), role=Role.CLIENT)
class StrictAnswers(ModelClient):
    """Ignores an answer with a field that it does not know, and waits for another."""

    def on_response(self, job_id: Any, response: dict[str, Any]) -> None:
        if set(response) <= {"type", "job_id", "output"}:
            super().on_response(job_id, response)
        else:
            self.deaf = True

    deaf = False

    def submit(self) -> None:
        if not self.deaf:
            super().submit()


# --- CLI-08: reconnecting -----------------------------------------------------------------------------------


@mutant("hammers", kills=("ORB-CLI-08",), role=Role.CLIENT)
class Hammers(ModelClient):
    """Connects again at once, as often as it takes."""

    def pause(self) -> float:
        return 0.001


@mutant("steady-pause", kills=("ORB-CLI-08",), role=Role.CLIENT)
class SteadyPause(ModelClient):
    """Connects again each second, for ever."""

    def pause(self) -> float:
        return 1.0


# --- CLI-09: what was not answered --------------------------------------------------------------------------


@mutant("only-the-newest-again", kills=("ORB-CLI-09",), role=Role.CLIENT)
class OnlyTheNewestAgain(ModelClient):
    """Submits only its newest job again, and waits for the others for ever."""

    def jobs_to_repeat(self) -> Iterable[Any]:
        return list(self.waiting)[-1:]


@mutant("answered-jobs-again", kills=("ORB-CLI-09",), role=Role.CLIENT)
class AnsweredJobsAgain(ModelClient):
    """Submits the job that was answered last again, too: it forgets one when the next is answered."""

    last: tuple[Any, Any] | None = None

    def on_response(self, job_id: Any, response: dict[str, Any]) -> None:
        if str(job_id) in self.waiting:
            self.last = job_id, self.waiting[job_id]
        super().on_response(job_id, response)

    def jobs_to_repeat(self) -> Iterable[Any]:
        if self.last is not None:
            self.waiting.setdefault(*self.last)
        return super().jobs_to_repeat()


# --- CLI-10: errors -----------------------------------------------------------------------------------------


@mutant("error-crashes", kills=("ORB-CLI-10",), role=Role.CLIENT)
class ErrorCrashes(ModelClient):
    """Reads a field of the result that an error does not have."""

    def on_answer(self, job_id: Any, output: Any) -> None:
        if "error" in output:
            raise Crashed("KeyError: 'embedding'")


@mutant("stops-at-an-error", kills=("ORB-CLI-10",), role=Role.CLIENT)
class StopsAtAnError(ModelClient):
    """Submits nothing more once a job has failed."""

    failed = False

    def on_answer(self, job_id: Any, output: Any) -> None:
        self.failed = self.failed or "error" in output

    def submit(self) -> None:
        if not self.failed:
            super().submit()


@mutant("good-bye-at-an-error", kills=("ORB-CLI-10",), role=Role.CLIENT)
class GoodByeAtAnError(ModelClient):
    """Closes the connection when a job fails, and lets the others be."""

    def on_answer(self, job_id: Any, output: Any) -> None:
        if "error" in output:
            self.send_event(CloseConnection(1000, "a job failed"))
            self.lose()
