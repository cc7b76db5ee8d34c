"""Resources, and finding, replacing and matching what refers to them. P-40, P-41."""

from __future__ import annotations

import copy
from typing import Any

import cbor2
import pytest
from hypothesis import given

from orbtrio.errors import InvalidMessage, ResourceRejected
from orbtrio.protocol.references import (
    MAX_RESOURCE_BYTES,
    Resource,
    collect,
    match,
    replace,
    resources_from_wire,
)
from tests.strategies import cbor_values


def reference(name: str) -> dict[str, Any]:
    return {"__type": "resource-ref", "id": name}


IMAGE = Resource("a", "image", b"\x89PNG")

# --- Finding and replacing --------------------------------------------------------------------------------


def test_collects_each_id_once_in_order_of_appearance() -> None:
    value = {
        "first": reference("b"),
        "list": [reference("a"), {"deep": [[reference("c")]]}],
        "x": reference("b"),
    }
    assert collect(value) == ("b", "a", "c")


@pytest.mark.parametrize(
    "value",
    [
        {"__type": "resource-ref"},
        {"__type": "resource-ref", "id": 5},
        {"__type": "resource-ref", "id": None},
        {"__type": "resource-ref", "id": "a", "more": 1},
        {"__type": "resource-refs", "id": "a"},
        {"type": "resource-ref", "id": "a"},
        cbor2.CBORTag(1, reference("a")),
        (reference("a"),),
        "resource-ref",
    ],
)
def test_what_is_not_exactly_a_reference_is_data(value: Any) -> None:
    """B-62."""
    assert collect({"field": value}) == ()
    assert replace(value, {"a": "/path"}) == value


def test_a_map_with_one_key_more_may_hold_references() -> None:
    value = {"__type": "resource-ref", "id": reference("a"), "more": [reference("b")]}
    assert collect(value) == ("a", "b")
    assert replace(value, {"a": "/a", "b": "/b"}) == {"__type": "resource-ref", "id": "/a", "more": ["/b"]}


def test_replaces_references_by_paths() -> None:
    value = {"messages": [{"content": [{"type": "image", "image": reference("a")}, reference("b")]}], "n": 1}
    before = copy.deepcopy(value)
    replaced = replace(value, {"a": "/a.png"})
    assert replaced == {
        "messages": [{"content": [{"type": "image", "image": "/a.png"}, reference("b")]}],
        "n": 1,
    }
    assert value == before


def test_a_value_may_be_a_reference_itself() -> None:
    assert collect(reference("a")) == ("a",)
    assert replace(reference("a"), {"a": "/a"}) == "/a"


@given(cbor_values())
def test_a_copy_without_references_is_equal_and_new(value: Any) -> None:
    replaced = replace(value, {})
    assert replaced == value
    assert type(value) not in (dict, list) or replaced is not value
    assert collect(value) == ()


def test_deep_values_are_no_danger() -> None:
    """B-64: what a program submits in process knows no limit of levels."""
    value: Any = reference("a")
    for _ in range(50_000):
        value = [value]
    assert collect(value) == ("a",)
    replaced = replace(value, {"a": "/a"})
    for _ in range(50_000):
        (replaced,) = replaced
    assert replaced == "/a"


def test_many_references_to_one_resource() -> None:
    """B-64."""
    value = [reference("a") for _ in range(100_000)]
    assert collect(value) == ("a",)
    assert replace(value, {"a": "/a"}) == ["/a"] * 100_000


# --- Resources --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "resource"),
    [
        ({"id": "a", "type": "image", "data": b"\x00"}, Resource("a", "image", b"\x00")),
        ({"id": "", "type": "document", "data": "é"}, Resource("", "document", "é".encode())),
        ({"id": "../a\x00", "type": "image", "data": b"", "more": 1}, Resource("../a\x00", "image", b"")),
    ],
)
def test_reads_a_resource(wire: Any, resource: Resource) -> None:
    assert resources_from_wire([wire]) == (resource,)


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        ({}, "resources: expected a list"),
        ([5], r"resources\[0\]: expected a map"),
        ([{"id": 5, "type": "image", "data": b""}], r"resources\[0\]: id: expected text"),
        ([{"type": "image", "data": b""}], r"resources\[0\]: id: expected text"),
        ([{"id": "a", "type": "video", "data": b""}], r"resources\[0\]: type: expected image or document"),
        ([{"id": "a", "type": "image", "data": "text"}], r"resources\[0\]: data: "),
        ([{"id": "a", "type": "document", "data": b"bytes"}], r"resources\[0\]: data: "),
        ([{"id": "a", "type": "document"}], r"resources\[0\]: data: "),
    ],
)
def test_refuses_what_is_no_resource(wire: Any, problem: str) -> None:
    """B-60."""
    with pytest.raises(InvalidMessage, match=problem) as caught:
        resources_from_wire(wire)
    assert caught.value.close_code == 1008


@pytest.mark.parametrize(
    ("kind", "data"), [("image", bytes(MAX_RESOURCE_BYTES)), ("document", "é" * (MAX_RESOURCE_BYTES // 2))]
)
def test_a_resource_has_two_mebibytes_at_most(kind: str, data: Any) -> None:
    """B-56, P-41: of documents their UTF-8 counts."""
    assert len(resources_from_wire([{"id": "a", "type": kind, "data": data}])[0].data) == MAX_RESOURCE_BYTES
    with pytest.raises(ResourceRejected, match=r"resources\[0\]: data: more than 2097152 bytes") as caught:
        resources_from_wire([{"id": "a", "type": kind, "data": data + data[:1]}])
    assert caught.value.close_code == 1009


def test_the_data_of_an_image_may_be_a_view_of_bytes() -> None:
    """And of nothing that might change."""
    data = b"__\x89PNG__"
    for member in (memoryview(data)[2:-2], cbor2.CBORTag(64, data[2:-2])):
        (resource,) = resources_from_wire([{"id": "a", "type": "image", "data": member}])
        assert resource == IMAGE
        assert hash(resource) == hash(IMAGE)
        assert "memory" not in repr(resource)
    for wrong in (
        memoryview(bytearray(data)),
        memoryview(bytearray(data)).toreadonly(),
        memoryview(data)[::2],
        memoryview(data).cast("b"),
        bytearray(data),
    ):
        with pytest.raises(InvalidMessage, match="data: "):
            resources_from_wire([{"id": "a", "type": "image", "data": wrong}])
    for kind in ("document", "video"):
        with pytest.raises(InvalidMessage):
            Resource("a", kind, memoryview(data))  # type: ignore[arg-type]


def test_a_resource_keeps_its_data_out_of_logs() -> None:
    assert "PNG" not in repr(IMAGE)


# --- Matching ---------------------------------------------------------------------------------------------


def test_notes_what_each_job_refers_to() -> None:
    other = Resource("b", "image", b"")
    inputs = [{"x": reference("a")}, {}, {"x": [reference("b"), reference("a")]}]
    assert match(inputs, [IMAGE, other]) == [("a",), (), ("b", "a")]


def test_a_reference_needs_its_resource() -> None:
    """B-58."""
    with pytest.raises(ResourceRejected, match=r"jobs\[1\]: refers to a resource that is not in the request"):
        match([{}, {"x": reference("b")}], [])


def test_a_resource_needs_a_reference() -> None:
    """B-59."""
    with pytest.raises(ResourceRejected, match="resources: expected each to be referred to by a job"):
        match([{}], [IMAGE])


def test_a_job_that_cannot_run_may_be_the_reason_for_a_resource() -> None:
    assert match([], [IMAGE], skipped=[{"job_id": 1, "input": {"x": reference("a")}}]) == []
    # Nor does anybody miss what only such a job refers to.
    assert match([{}], [], skipped=[{"input": reference("nowhere")}]) == [()]


def test_an_id_names_one_resource() -> None:
    """B-60."""
    with pytest.raises(InvalidMessage, match="resources: expected each id once") as caught:
        match([{"x": reference("a")}], [IMAGE, IMAGE])
    assert caught.value.close_code == 1008
