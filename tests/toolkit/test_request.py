from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from orbtrio.toolkit import request as request_module
from orbtrio.toolkit.items import Item
from orbtrio.toolkit.jobs import TaskInput
from orbtrio.toolkit.request import Surroundings, open_body, process_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

PAYLOAD: Final = (
    '{"applicationId":"app","jobId":"job1","taskId":"task1","recordingId":"tdo1","token":"tok123",'
    '"mode":"library-run","libraryId":"lib1","libraryEngineModelId":"lem1",'
    '"veritoneApiBaseUrl":"https://api.example"}'
)
JPEG: Final = b"\xff\xd8\xff\xe0 not much of a picture \r\n--\x00\xff\xd9"
AROUND: Final = Surroundings(
    cache_uri="http://127.0.0.1:39399/animal.jpg",
    heartbeat_webhook="http://127.0.0.1:1234/heartbeat/h",
    result_webhook="http://127.0.0.1:1234/result/r",
    external_webhook="http://127.0.0.1:1234/external/e",
    task_directory=Path("/cache/task/tmp"),
    engine_directory=Path("/cache/engine/words"),
)


def make_item(**fields: Any) -> Item:
    return Item(TaskInput(**fields), now=0.0)


async def encode(fields: Sequence[tuple[str, str]], chunk: Path | None = None) -> tuple[bytes, str]:
    """The whole body, once its length has been compared, and its boundary."""
    async with open_body(fields, chunk) as body:
        data = b"".join([piece async for piece in body])
        assert body.content_length == len(data)
        kind, _, boundary = body.content_type.partition("; boundary=")
    assert kind == "multipart/form-data"
    assert re.fullmatch("[0-9a-f]{60}", boundary)
    return data, boundary


def parts_of(data: bytes, boundary: str) -> list[tuple[bytes, bytes]]:
    """Heads and contents. Byte by byte what the old toolkit's writer (Go) puts around them."""
    line = b"--" + boundary.encode()
    assert data.startswith(line + b"\r\n")
    assert data.endswith(b"\r\n" + line + b"--\r\n")
    inside = data[len(line) + 2 : -len(line) - 6]
    pairs = [part.partition(b"\r\n\r\n") for part in inside.split(b"\r\n" + line + b"\r\n")]
    return [(head, content) for head, _, content in pairs]


# As recorded from the old toolkit; its form has these parts and no others.
WIRE_SAMPLE: Final = [
    (b'Content-Disposition: form-data; name="chunkMimeType"', b"image/jpeg"),
    (b'Content-Disposition: form-data; name="chunkIndex"', b"3"),
    (b'Content-Disposition: form-data; name="startOffsetMS"', b"1000"),
    (b'Content-Disposition: form-data; name="endOffsetMS"', b"2000"),
    (b'Content-Disposition: form-data; name="width"', b"100"),
    (b'Content-Disposition: form-data; name="height"', b"68"),
    (b'Content-Disposition: form-data; name="libraryId"', b"lib1"),
    (b'Content-Disposition: form-data; name="libraryEngineModelId"', b"lem1"),
    (b'Content-Disposition: form-data; name="cacheURI"', b"http://127.0.0.1:39399/animal.jpg"),
    (b'Content-Disposition: form-data; name="veritoneApiBaseUrl"', b"https://api.example"),
    (b'Content-Disposition: form-data; name="token"', b"tok123"),
    (b'Content-Disposition: form-data; name="payload"', PAYLOAD.encode()),
    (
        b'Content-Disposition: form-data; name="chunk"; filename="chunk.data"\r\n'
        b"Content-Type: application/octet-stream",
        JPEG,
    ),
]


async def test_et_07_68_69_70_71_72_73_74_75_76_77_78_79_80_golden_wire(tmp_path: Path) -> None:
    chunk = tmp_path / "any name.jpg"
    chunk.write_bytes(JPEG)
    item = make_item(
        chunk=chunk,
        chunk_mime_type="image/jpeg",
        chunk_index=3,
        start_offset_ms=1000,
        end_offset_ms=2000,
        width=100,
        height=68,
        library_id="lib1",
        library_engine_model_id="lem1",
        veritone_api_base_url="https://api.example",
        token="tok123",
        payload_text=PAYLOAD,
        max_ttl=59.5,
        internal_job_id="ij",
        internal_task_id="it",
        metadata={"x-aiware-chunk-timestamp": "1593", 'a"b\r\nc\\d;é': '--x\r\n"\\é'},
        input_folder_id="in1",
    )
    around = Surroundings(
        cache_uri=AROUND.cache_uri,
        heartbeat_webhook=AROUND.heartbeat_webhook,
        result_webhook=AROUND.result_webhook,
        external_webhook=AROUND.external_webhook,
        task_directory=AROUND.task_directory,
        engine_directory=AROUND.engine_directory,
        library_directory=Path("/cache/1/libraries/lib1/lem1"),
        redis_url="http://localhost:1234",
        controller_token="ct",
    )
    parts = parts_of(*await encode(process_fields(item, around), chunk))
    assert [*parts[:12], parts[-1]] == WIRE_SAMPLE
    new = parts[12:-1]
    head = b'Content-Disposition: form-data; name="%s"'
    assert new == [
        (head % b"chunkContext", item.chunk_context.encode()),
        (head % b"heartbeatWebhook", b"http://127.0.0.1:1234/heartbeat/h"),
        (head % b"resultWebhook", b"http://127.0.0.1:1234/result/r"),
        (head % b"externalCallbackWebhook", b"http://127.0.0.1:1234/external/e"),
        (head % b"maxTTL", b"60"),
        (head % b"internalJobId", b"ij"),
        (head % b"internalTaskId", b"it"),
        (head % b"taskTmpDir", b"/cache/task/tmp"),
        (head % b"engineDir", b"/cache/engine/words"),
        (head % b"libraryModelDirectory", b"/cache/1/libraries/lib1/lem1"),
        (head % b"chunk-metadata-x-aiware-chunk-timestamp", b"1593"),
        (head % "chunk-metadata-a%22b%0D%0Ac%5Cd;é".encode(), '--x\r\n"\\é'.encode()),
        (head % b"inputFolderID", b"in1"),
        (head % b"redisETUrl", b"http://localhost:1234"),
        (head % b"controllerToken", b"ct"),
    ]


@pytest.fixture
def bare() -> dict[str, str]:
    """The fields of a job that says nothing."""
    return dict(process_fields(make_item(internal_job_id="ij", internal_task_id="it"), AROUND))


def test_what_is_unknown_is_sent_as_the_old_toolkit_did(bare: dict[str, str]) -> None:
    for name in ("chunkIndex", "startOffsetMS", "endOffsetMS", "width", "height"):
        assert bare[name] == "0"
    for name in ("chunkMimeType", "libraryId", "libraryEngineModelId", "veritoneApiBaseUrl", "token"):
        assert bare[name] == ""
    assert (bare["payload"], bare["libraryModelDirectory"], bare["maxTTL"]) == ("{}", "", "3600")


def test_et_92_without_keys_there_is_no_redis_url(bare: dict[str, str]) -> None:
    assert "redisETUrl" not in bare


def test_et_93_without_a_controller_there_is_no_token(bare: dict[str, str]) -> None:
    assert "controllerToken" not in bare


def test_tokens_are_kept_out_of_repr() -> None:
    around = Surroundings(
        cache_uri="very secret",
        heartbeat_webhook="very secret",
        result_webhook="very secret",
        external_webhook="very secret",
        task_directory=Path(),
        engine_directory=Path(),
        controller_token="very secret",
    )
    assert "very secret" not in repr(around)


async def test_et_69_without_a_file_there_is_no_chunk() -> None:
    assert parts_of(*await encode([("a", "1")])) == [(b'Content-Disposition: form-data; name="a"', b"1")]


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 2_500_000])
async def test_et_69_a_file_of_any_size_is_sent_whole(tmp_path: Path, size: int) -> None:
    chunk, content = tmp_path / "chunk", os.urandom(size)
    chunk.write_bytes(content)
    data, boundary = await encode([("a", "1")], chunk)
    assert parts_of(data, boundary)[1][1] == content


async def test_a_large_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    chunk = tmp_path / "chunk"
    with chunk.open("wb") as file:
        file.truncate(10 * 1024 * 1024)
    async with open_body([], chunk) as body:
        sizes = [len(piece) async for piece in body]
    assert max(sizes) == 1024 * 1024
    assert sum(sizes) == body.content_length


async def test_a_small_file_leaves_in_one_piece(tmp_path: Path) -> None:
    chunk = tmp_path / "chunk"
    chunk.write_bytes(JPEG)
    async with open_body([("a", "1")], chunk) as body:
        assert len([piece async for piece in body]) == 1


@pytest.mark.parametrize("size", [1000, 2_500_000])
async def test_a_file_that_shrinks_is_an_error_and_one_that_grows_is_not(tmp_path: Path, size: int) -> None:
    chunk = tmp_path / "chunk"
    chunk.write_bytes(bytes(size))
    async with open_body([], chunk) as body:
        os.truncate(chunk, size + 100)
        assert sum([len(piece) async for piece in body]) == body.content_length
    chunk.write_bytes(bytes(size))
    async with open_body([], chunk) as body:
        os.truncate(chunk, size - 100)
        with pytest.raises(OSError, match="has become shorter"):
            [piece async for piece in body]


async def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits for a writer
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(OSError, match=re.escape(str(path))):
            async with open_body([], path):
                pass


async def test_files_are_closed(tmp_path: Path) -> None:
    chunk = tmp_path / "chunk"
    chunk.write_bytes(JPEG)
    before = len(os.listdir("/proc/self/fd"))
    async with open_body([], chunk):
        pass
    with trio.CancelScope() as scope:
        async with open_body([], chunk):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert len(os.listdir("/proc/self/fd")) == before


async def test_text_that_is_no_unicode_does_not_end_the_call() -> None:
    data, boundary = await encode([("a\ud800", "b\ud800")])
    assert parts_of(data, boundary) == [(b'Content-Disposition: form-data; name="a?"', b"b?")]


@pytest.mark.parametrize("name", ['"', "\\", "\r", "\n", "\0", "\x7f"])
def test_et_124_names_cannot_end_their_header(name: str) -> None:
    head = request_module._head(f"chunk-metadata-{name}")
    assert head == f'Content-Disposition: form-data; name="chunk-metadata-%{ord(name):02X}"\r\n\r\n'.encode()
