"""What clients send is read: right requests pass, and what is wrong is said."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.client import ModelClient
from tests.conformance.cases.client_judging import Brief, ClientCases, Mute, complaint, judge


class TestClients(ClientCases):
    CASES = tuple(f"ORB-CLI-{number:02}" for number in range(1, 7))
    SAYS: ClassVar = {
        "client-that-says-worker": "a message of type 'i_am_worker'",
        "client-introduces-twice": "messages of type i_am_server",
        "jobs-without-type": "jobs[0].worker_type is None",
        "jobs-by-id": "`jobs` is of type dict, not a list",
        "ids-start-again": "'job-0' again",
        "ids-come-round": "'job-0' again",
        "no-job-id": "a job without: ['input', 'worker_type']",
        "resource-sent-once": "resource 'logo', which a job refers to, is in the same request",
        "unused-resource": "is referred to by a job of its request",
        "huge-resource": "2,097,153 bytes",
        "base64-image": "data of type str",
        "one-id-for-all-resources": "'file' twice",
        "status-as-text": 'a text message: [\'{"status": "fine"}\']',
        "bytes-behind": "bytes behind the CBOR item",
        "unmasked-frames": "unmasked frame",
        "indefinite-lengths": "indefinite lengths",
        "no-pongs-while-waiting": "0 pongs",
        "empty-pongs": "pongs, with [0",
    }


class Shapeless(ModelClient):
    """Sends what is no map, in places where maps belong."""

    part = ""

    def request(self, jobs: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
        whole: dict[str, Any] = super().request(jobs, resources)
        match self.part:
            case "job":
                return {**whole, "jobs": ["a job"]}
            case "input":
                return {**whole, "jobs": [{**jobs[0], "input": "text"}]}
            case "resources":
                return {**whole, "resources": {"id": "img"}}
            case "kind":
                return {**whole, "resources": [{**resource, "type": "video"} for resource in resources]}
            case "id":
                return {**whole, "resources": [{**resource, "id": 7} for resource in resources]}
            case "resource":
                return {**whole, "resources": ["img"]}
            case _:
                return {**whole, "type": "work_request"}


@pytest.mark.parametrize(
    ("part", "case_id", "words"),
    [
        ("job", "ORB-CLI-01", "jobs[0] is of type str, not a map"),
        ("input", "ORB-CLI-01", "jobs[0].input is of type str, not a map"),
        ("resources", "ORB-CLI-01", "`resources` is of type dict, not a list"),
        ("kind", "ORB-CLI-04", "the type 'video'"),
        ("id", "ORB-CLI-04", "the id 7"),
        ("resource", "ORB-CLI-04", "the id None"),
        ("resource", "ORB-CLI-03", "resource None is referred to by a job of its request"),
    ],
)
def test_requests_without_shape_are_told_part_by_part(part: str, case_id: str, words: str) -> None:
    client = type("Shapeless", (Shapeless,), {"part": part})
    assert words in complaint(case_id, client)


def test_what_is_nobodys_message_is_told() -> None:
    class Stray(ModelClient):
        def on_answer(self, job_id: Any, output: Any) -> None:
            self.send({"type": "thank_you"})

    assert "messages of other types" in complaint("ORB-CLI-01", Stray)


def test_a_program_that_ends_when_it_has_what_it_wants_passes() -> None:
    assert judge("ORB-CLI-01", Brief).reading == "asks"
    for case_id in ("ORB-CLI-02", "ORB-CLI-05", "ORB-CLI-06"):
        assert judge(case_id, Brief).verdict is Verdict.PASS
    for case_id in ("ORB-CLI-03", "ORB-CLI-04"):
        assert "launch a program whose jobs do" in judge(case_id, Brief).reason


def test_a_program_that_submits_nothing_is_told_to_the_user() -> None:
    assert "hears within 10 s" in complaint("ORB-CLI-01", Mute)
    assert "at best over and over" in judge("ORB-CLI-02", Mute).reason
    assert judge("ORB-CLI-05", Mute).verdict is Verdict.SKIP


def test_the_token_is_shown() -> None:
    assert judge("ORB-CLI-01", token="sesame-sesame").verdict is Verdict.PASS

    class Forgetful(ModelClient):
        def introduction(self) -> dict[str, Any] | None:
            return {"type": "i_am_server"}

    assert complaint("ORB-CLI-01", Forgetful, token="sesame-sesame").endswith("seen: no token")


def test_resources_between_the_two_meanings_of_two_megabytes_are_read_so() -> None:
    class Large(ModelClient):
        def resources_for(self, number: int) -> list[dict[str, Any]]:
            return [{"id": "photo", "type": "image", "data": bytes(2_000_001)}]

    result = judge("ORB-CLI-04", Large, profile="spec")
    assert (result.reading, result.verdict) == ("2 MiB", Verdict.NON_STRICT)
