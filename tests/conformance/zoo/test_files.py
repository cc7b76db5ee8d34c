"""Resources: what is stored, under which name, and for how long."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import cbor2
import pytest

from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.files import Resource, find_references
from tests.conformance.zoo.scenes import PNG, files, image, paths, reference, with_files
from tests.conformance.zoo.speaking import SECRET, answer, client, ids, worker


@pytest.fixture
def world(tmp_path: Path) -> SimulatedWorld:
    return SimulatedWorld(ModelEngine(tmp_path, secret=SECRET))


def test_a_reference_becomes_the_path_of_a_private_file(world: SimulatedWorld, tmp_path: Path) -> None:
    one, asker = worker(world), client(world)
    asker.say(with_files([image("img-001")], reference("img-001")))
    (path,) = map(Path, paths(one))
    assert path.read_bytes() == PNG
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tenant = path.relative_to(tmp_path).parts[1]
    assert path.parent == tmp_path / "unblink-engine" / tenant / "files" / "frames"
    assert path.name.startswith("img-001-")
    assert path.suffix == ".png"


@pytest.mark.parametrize(
    "resource_id",
    ["../../x", "/etc/x", "a/b", "..", "", "x" * 4096, "a\0b", "a\nb", "-rf", "CON", "%2e", "ü", "a b"],
)
def test_no_id_leaves_the_directory(world: SimulatedWorld, tmp_path: Path, resource_id: str) -> None:
    one, asker = worker(world), client(world)
    asker.say(with_files([image(resource_id)], reference(resource_id)))
    (path,) = map(Path, paths(one))
    assert path.resolve().parent.name == "frames"
    assert path.resolve().is_relative_to(tmp_path)
    assert path.read_bytes() == PNG


@pytest.mark.parametrize(
    ("data", "kind", "extension"),
    [
        (PNG, "image", "png"),
        (b"\xff\xd8\xff\xe0", "image", "jpg"),
        (b"GIF89a", "image", "gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image", "webp"),
        (b"%PDF-1.7", "document", "pdf"),
        (b"<html>", "image", "bin"),
        (b"", "image", "bin"),
        (b"text", "document", "txt"),
    ],
)
def test_the_extension_comes_from_the_content(tmp_path: Path, data: bytes, kind: str, extension: str) -> None:
    assert ModelEngine(tmp_path).extension(Resource("x", kind, data)) == extension


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        {"id": 1, "type": "image", "data": b""},
        {"id": "a", "type": "film", "data": b""},
        {"id": "a", "type": "image", "data": "text"},
        {"id": "a", "type": "document", "data": b"bytes"},
        {"id": "a", "type": ["image"], "data": b""},
        {"id": "a", "type": "image"},
        {"id": "a", "type": "image", "data": cbor2.CBORTag(65, b"x")},
    ],
    ids=str,
)
def test_malformed_resources_close_1008(world: SimulatedWorld, wrong: Any) -> None:
    asker = client(world)
    asker.say(with_files([wrong], reference()))
    assert asker.closed == (1008, "resource is not valid")


def test_duplicate_ids_and_no_list_close_1008(world: SimulatedWorld) -> None:
    wrong: list[Any] = [[image(), image()], {}]
    for resources in wrong:
        asker = client(world)
        asker.say(with_files(resources, reference()))
        assert asker.closed == (1008, "resource is not valid")
    assert files(world) == 0


@pytest.mark.parametrize(
    ("resources", "references", "reason"),
    [
        ([image(data=bytes(2_097_153))], [reference()], "resource too big"),
        ([image(data="ä" * 1_048_577, kind="document")], [reference()], "resource too big"),
        ([image()], [reference(), reference("b")], "resource is missing"),
        (None, [reference()], "resource is missing"),
        ([image(), image("b")], [reference()], "resource is not referenced"),
        ([image()], [{**reference(), "more": 1}], "resource is not referenced"),
        ([image()], [{"__type": "resource-ref", "id": 5}], "resource is not referenced"),
    ],
)
def test_size_and_references_close_1009_and_nothing_is_kept(
    world: SimulatedWorld, resources: Any, references: list[Any], reason: str
) -> None:
    one, asker = worker(world), client(world)
    asker.say(with_files(resources, *references))
    world.wait(1)
    assert asker.closed == (1009, reason)
    assert files(world) == 0
    assert one.messages == []


def test_two_mebibytes_are_accepted(world: SimulatedWorld) -> None:
    asker = client(world)
    asker.say(with_files([image(data=bytes(2_097_152))], reference()))
    assert not asker.gone
    assert files(world) == 1


def test_identical_bytes_of_a_request_are_one_file_that_lives_until_the_last_job(
    world: SimulatedWorld,
) -> None:
    one, asker = worker(world), client(world)
    asker.say(with_files([image("a"), image("b"), image("c", b"other")], *map(reference, "abc")))
    first, second, third = paths(one)
    assert first == second != third
    for job_id, left in zip(ids(one), (2, 1, 0), strict=True):
        answer(one, job_id)
        assert files(world) == left


def test_the_file_of_a_job_that_is_skipped_does_not_stay(world: SimulatedWorld) -> None:
    asker = client(world)
    message = with_files([image()], reference())
    message["jobs"][0]["worker_type"] = "unheard_of"
    asker.say(message)
    assert not asker.gone
    assert files(world) == 0


def test_references_are_found_and_resolved_at_any_depth(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    asker.say(with_files([image()], [{"deep": [reference()]}, "plain", 7]))
    (nested,) = paths(one)
    assert Path(nested[0]["deep"][0]).read_bytes() == PNG
    assert nested[1:] == ["plain", 7]


def test_only_the_exact_shape_is_a_reference() -> None:
    assert find_references([reference("x"), {"a": reference("y")}]) == ["x", "y"]
    assert find_references({"__type": "resource-ref"}) == []
    assert find_references({"__type": "other", "id": "x"}) == []
