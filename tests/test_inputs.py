"""Images and documents inside inputs: what becomes of them, and what is refused before anything is sent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.errors import InvalidMessage, ResourceRejected
from orbtrio.inputs import Document, Image, attach
from orbtrio.protocol.messages import MAX_RESOURCE_BYTES
from orbtrio.protocol.references import collect

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def reference(resource_id: str) -> dict[str, str]:
    return {"__type": "resource-ref", "id": resource_id}


async def test_values_at_any_depth_become_references_and_the_input_stays_as_it_was() -> None:
    image, text = Image(PNG), Document("hello")
    job_input = {"a": image, "deep": [{"x": (1, [image, text])}], "plain": {"n": 1.5}, "list": [b"raw"]}

    attached, resources = await attach(job_input)

    picture, document = resources
    assert attached == {
        "a": reference(picture.resource_id),
        "deep": [{"x": [1, [reference(picture.resource_id), reference(document.resource_id)]]}],
        "plain": {"n": 1.5},
        "list": [b"raw"],
    }
    assert (picture.kind, picture.data) == ("image", PNG)
    assert (document.kind, document.data) == ("document", b"hello")
    assert job_input["a"] is image
    assert job_input["deep"] == [{"x": (1, [image, text])}]
    assert collect(attached) == (picture.resource_id, document.resource_id)


async def test_an_input_without_values_has_no_resources() -> None:
    assert await attach({"text": "x", "n": [1, {"y": None}]}) == ({"text": "x", "n": [1, {"y": None}]}, ())


async def test_identical_bytes_are_one_resource_and_a_document_is_never_an_image() -> None:
    attached, resources = await attach(
        {"images": [Image(b"same"), Image(bytearray(b"same"))], "text": Document("same")}
    )

    assert sorted(resource.kind for resource in resources) == ["document", "image"]
    assert attached["images"][0] == attached["images"][1] != attached["text"]


async def test_files_are_read_when_asked_for_and_only_once_per_input(tmp_path: Path) -> None:
    picture = tmp_path / "frame.png"
    picture.write_bytes(PNG)
    text = tmp_path / "notes.txt"
    text.write_text("Grüße", encoding="utf-8")
    from_text, from_path = Image(str(picture)), Image(picture)
    assert from_text == from_path

    attached, resources = await attach({"a": from_text, "b": from_path, "c": from_path, "d": Document(text)})

    assert attached["a"] == attached["b"] == attached["c"]
    assert [resource.data for resource in resources] == [PNG, "Grüße".encode()]

    picture.write_bytes(b"another")
    assert (await from_path.load()).data == b"another"


async def test_large_data_is_digested_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    run_sync = trio.to_thread.run_sync

    async def watched(*args: Any, **kwargs: Any) -> Any:
        threads.append(args[0])
        return await run_sync(*args, **kwargs)

    monkeypatch.setattr(trio.to_thread, "run_sync", watched)
    await Image(bytes(64 * 1024)).load()
    assert not threads
    await Image(bytes(64 * 1024 + 1)).load()
    assert len(threads) == 1


async def test_two_mebibytes_pass_and_one_byte_more_is_told_what_to_change(tmp_path: Path) -> None:
    file = tmp_path / "frame.jpg"
    for value in (Image(bytes(MAX_RESOURCE_BYTES)), Document("ä" * (MAX_RESOURCE_BYTES // 2))):
        assert len((await value.load()).data) == MAX_RESOURCE_BYTES
    file.write_bytes(bytes(MAX_RESOURCE_BYTES + 1))
    for value in (Image(bytes(MAX_RESOURCE_BYTES + 1)), Image(file)):
        with pytest.raises(ResourceRejected, match=r"2097153 bytes .* 2097152 .* scale it down"):
            await attach({"filepath": value})
    # Measured in UTF-8, not in characters.
    for text in (Document("ä" * (MAX_RESOURCE_BYTES // 2) + "x"), Document(file)):
        with pytest.raises(ResourceRejected, match="split it"):
            await attach({"text": text})


async def test_of_a_file_that_is_far_too_large_only_the_start_is_read(tmp_path: Path) -> None:
    file = tmp_path / "disk.img"
    file.touch()
    os.truncate(file, 1 << 40)
    with pytest.raises(ResourceRejected, match=str(1 << 40)):
        await Image(file).load()


async def test_documents_must_be_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(InvalidMessage, match=r"latin\.txt is not valid UTF-8"):
        await Document(file).load()
    with pytest.raises(InvalidMessage, match="this text is not valid UTF-8"):
        await Document("\ud800").load()


async def test_a_missing_file_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await attach({"filepath": Image(tmp_path / "none.png")})


async def test_an_input_that_holds_itself_is_refused() -> None:
    loop: list[Any] = [Image(PNG)]
    loop += [loop, loop]
    with pytest.raises(InvalidMessage, match="inside itself"):
        await attach({"x": loop})


@pytest.mark.parametrize("source", [7, None, ["frame.png"]])
def test_what_is_neither_content_nor_path_is_refused_with_advice(source: Any) -> None:
    with pytest.raises(TypeError, match=r"Image takes the bytes .* path"):
        Image(source)
    with pytest.raises(TypeError, match=r"Document takes text.*pathlib\.Path"):
        Document(source)


def test_repr_shows_sizes_and_paths_but_no_content(tmp_path: Path) -> None:
    assert repr(Image(PNG)) == f"Image({len(PNG)} bytes)"
    assert repr(Document("secret")) == "Document(6 characters)"
    assert repr(Image("a.png")) == "Image('a.png')"


async def test_cancelling_while_a_file_is_read_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Image(pipe).load)
        # Opened as soon as somebody reads.
        writer = await trio.to_thread.run_sync(os.open, pipe, os.O_WRONLY)
        nursery.cancel_scope.cancel()
    # Let the reading thread go.
    os.close(writer)
