from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from orbtrio.toolkit.jobs import TaskInput, json_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.toolkit.settings import ToolkitSettings


@pytest.fixture
def parse(toolkit_settings: Callable[..., ToolkitSettings]) -> Callable[[object], TaskInput]:
    settings = toolkit_settings(max_ttl=120.0)
    return lambda job_input: TaskInput.parse(job_input, settings=settings)


PAYLOAD = {
    "applicationId": "app",
    "token": "tok123",
    "mode": "library-run",
    "libraryId": "lib1",
    "libraryEngineModelId": "lem1",
    "veritoneApiBaseUrl": "https://api.example",
}


def test_every_field_is_read(parse: Callable[[object], TaskInput]) -> None:
    task = parse(
        {
            "chunk": "/tmp/chunk.jpg",
            "chunkMimeType": "image/jpeg",
            "chunkIndex": 3,
            "startOffsetMS": 1000,
            "endOffsetMS": 2000,
            "width": 100,
            "height": 68,
            "cacheURI": "http://there/animal.jpg",
            "payload": PAYLOAD,
            "engineType": "batch",
            "sendOutputToUris": ["http://a", "https://b"],
            "metadata": {"x-aiware-a": "1"},
            "maxTTL": 60,
            "libraryId": "lib2",
            "libraryEngineModelId": "lem2",
            "jobId": "job1",
            "taskId": "task1",
            "internalJobId": "ij",
            "internalTaskId": "it",
            "inputFolderID": "in1",
        }
    )
    assert task == TaskInput(
        chunk=Path("/tmp/chunk.jpg"),
        chunk_mime_type="image/jpeg",
        chunk_index=3,
        start_offset_ms=1000,
        end_offset_ms=2000,
        width=100,
        height=68,
        cache_uri="http://there/animal.jpg",
        payload_text=json.dumps(PAYLOAD, separators=(",", ":")),
        payload=PAYLOAD,
        engine_type="batch",
        send_output_to=("http://a", "https://b"),
        metadata={"x-aiware-a": "1"},
        max_ttl=60.0,
        library_id="lib2",
        library_engine_model_id="lem2",
        job_id="job1",
        task_id="task1",
        internal_job_id="ij",
        internal_task_id="it",
        input_folder_id="in1",
        veritone_api_base_url="https://api.example",
        token="tok123",
        engine_id="words",
    )


def test_an_empty_input_is_a_chunk_engines_without_a_chunk(parse: Callable[[object], TaskInput]) -> None:
    task = parse({})
    assert (task.chunk, task.cache_uri, task.payload_text, task.max_ttl) == (None, None, "{}", 120.0)
    assert (task.engine_type, task.asynchronous, task.send_output_to) == ("chunk", False, ())
    # Their names are fresh, or two jobs without ids would share their keys.
    assert UUID(task.internal_job_id) != UUID(task.internal_task_id)
    assert parse({}).internal_job_id != task.internal_job_id


def test_none_stands_for_what_is_not_there(parse: Callable[[object], TaskInput]) -> None:
    names = [
        "chunk",
        "chunkIndex",
        "payload",
        "engineType",
        "sendOutputToUris",
        "metadata",
        "maxTTL",
        "jobId",
    ]
    assert parse(dict.fromkeys(names)).max_ttl == 120.0


@pytest.mark.parametrize("text", ['{"a": 1.0,  "b":"ä"}', "{}", ' {"n": 12345678901234567890}'])
def test_et_40_80_payload_that_is_text_is_kept_to_the_byte(
    parse: Callable[[object], TaskInput], text: str
) -> None:
    assert parse({"payload": text}).payload_text == text


def test_et_80_payload_that_is_a_map_becomes_compact_json(parse: Callable[[object], TaskInput]) -> None:
    assert parse({"payload": {"a": [1, 2.5], "b": "ä"}}).payload_text == '{"a":[1,2.5],"b":"ä"}'


def test_et_78_79_address_and_token_come_from_the_payload(parse: Callable[[object], TaskInput]) -> None:
    task = parse({"payload": PAYLOAD})
    assert (task.veritone_api_base_url, task.token) == ("https://api.example", "tok123")
    assert "tok123" not in repr(task)
    secret = parse({"cacheURI": "http://a/?key=tok123", "sendOutputToUris": ["http://b/?key=tok123"]})
    assert "tok123" not in repr(secret)
    # A payload is the engine's business: what is no text is no mistake.
    assert parse({"payload": {"token": 5}}).token == ""


@pytest.mark.parametrize("payload", [PAYLOAD, json.dumps(PAYLOAD)])
def test_et_132_library_ids_come_from_the_payload(
    parse: Callable[[object], TaskInput], payload: object
) -> None:
    task = parse({"payload": payload})
    assert (task.library_id, task.library_engine_model_id) == ("lib1", "lem1")
    assert not task.training


def test_et_126_training_is_asynchronous_whatever_the_engine(parse: Callable[[object], TaskInput]) -> None:
    task = parse({"engineType": "chunk", "payload": {"mode": "library-train", "libraryId": "lib1"}})
    assert task.training
    assert task.asynchronous
    assert task.library_id == "lib1"


def test_et_86_87_internal_ids_default_to_the_authors(parse: Callable[[object], TaskInput]) -> None:
    task = parse({"jobId": "job1", "taskId": "task1"})
    assert (task.internal_job_id, task.internal_task_id) == ("job1", "task1")


def test_et_91_125_metadata_becomes_text(parse: Callable[[object], TaskInput]) -> None:
    metadata = {"a": "as is", "b": 5, "c": 1.5, "d": True, "e": None, "f": {"g": ["h"]}, "i": ""}
    assert parse({"metadata": metadata}).metadata == {
        "a": "as is",
        "b": "5",
        "c": "1.5",
        "d": "true",
        "e": "null",
        "f": '{"g":["h"]}',
        "i": "",
    }


def test_unknown_fields_pass(parse: Callable[[object], TaskInput]) -> None:
    assert parse({"colour": "red", "taskId": "t"}).task_id == "t"


@pytest.mark.parametrize(
    ("job_input", "message"),
    [
        ([], "input is list: it must be a map"),
        ({"cacheUri": "http://a"}, "'cacheUri' is not a field of the input: write 'cacheURI'"),
        ({"chunk": b"\xff\xd8"}, "chunk is bytes: it must be text"),
        ({"chunk": "/tmp/\0"}, "chunk is no file's path"),
        ({"chunkIndex": -1}, "chunkIndex is -1: it must be a whole number, 0 or more"),
        ({"width": 2**63}, f"width is {2**63}: it must"),
        ({"height": True}, "height is bool: it must"),
        ({"startOffsetMS": "1000"}, "startOffsetMS is str: it must"),
        ({"endOffsetMS": 1.5}, "endOffsetMS is float: it must"),
        ({"engineType": "any"}, "engineType is 'any': write 'chunk', 'stream' or 'batch'"),
        ({"maxTTL": 0}, "maxTTL must be a number of seconds above 0"),
        ({"maxTTL": "60"}, "maxTTL must be"),
        ({"maxTTL": True}, "maxTTL must be"),
        ({"maxTTL": float("inf")}, "maxTTL must be"),
        ({"maxTTL": float("nan")}, "maxTTL must be"),
        ({"payload": "{"}, "payload is text that is not JSON"),
        ({"payload": "[1]"}, "payload is JSON of list: it must be an object"),
        ({"payload": 5}, "payload is int: it must be a map"),
        ({"payload": {"a": b"x"}}, "payload is not all JSON"),
        ({"payload": {"a": float("nan")}}, "payload is not all JSON"),
        ({"sendOutputToUris": "http://a"}, "sendOutputToUris must be a list"),
        ({"sendOutputToUris": [5]}, "sendOutputToUris must be a list"),
        ({"sendOutputToUris": [""]}, "sendOutputToUris must be a list"),
        ({"metadata": ["a"]}, "metadata must be a map"),
        ({"metadata": {"": "a"}}, "metadata must be a map"),
        ({"metadata": {5: "a"}}, "metadata must be a map"),
        ({"metadata": {"a": b"x"}}, r"metadata\['a'\]: .*; write it as text"),
        ({"jobId": 5}, "jobId is int: it must be text"),
    ],
    ids=repr,
)
def test_what_cannot_work_is_told_to_the_author(
    parse: Callable[[object], TaskInput], job_input: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse(job_input)


def test_a_payload_that_is_too_deep_is_told_to_the_author(parse: Callable[[object], TaskInput]) -> None:
    value: dict[str, Any] = {}
    for _ in range(10_000):
        value = {"a": value}
    with pytest.raises(ValueError, match="payload is not all JSON"):
        parse({"payload": value})
    with pytest.raises(ValueError, match="payload is text that is not JSON"):
        parse({"payload": "[" * 200_000})


def test_names_that_are_no_text_pass(parse: Callable[[object], TaskInput]) -> None:
    assert parse({5: "a"}).chunk is None


def test_json_text_is_compact_and_whole() -> None:
    assert json_text({"ä": [1, None]}) == '{"ä":[1,null]}'
