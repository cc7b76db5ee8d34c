"""What the checks of shapes say, against results that break one rule each."""

from __future__ import annotations

import copy
import re
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.conformance.examples import TYPE_EXAMPLES
from orbtrio.conformance.shapes import check_output, check_path

STORE: Final = "/srv/data/unblink-engine/tenant-1/files/frames"

MISSING: Final = object()


def changed(worker_type: str, path: str, value: Any) -> dict[str, Any]:
    """The example of the type, with one value replaced or (`MISSING`) removed: ``"masks.0.size"``."""
    entry: dict[str, Any] = copy.deepcopy(dict(TYPE_EXAMPLES[worker_type].output))
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    inside: Any = entry
    for step in way:
        inside = inside[step]
    if value is MISSING:
        del inside[last]
    else:
        inside[last] = value
    return entry


@pytest.mark.parametrize(
    ("worker_type", "path", "value", "said"),
    [
        ("embedding", "id", MISSING, "id is missing"),
        ("embedding", "id", 7, "id must be a text, not int 7"),
        ("embedding", "embedding", MISSING, "embedding is missing"),
        ("embedding", "embedding", None, "embedding must be a list, not NoneType None"),
        ("embedding", "embedding", [], "embedding must not be empty"),
        ("embedding", "embedding.5", "0.1", "embedding[5] must be a number, not str '0.1'"),
        ("embedding", "embedding.5", float("nan"), "embedding[5] must be a number, not float nan"),
        ("embedding", "embedding.5", float("inf"), "embedding[5] must be a number, not float inf"),
        ("embedding", "embedding.5", True, "embedding[5] must be a number, not bool True"),
        ("embedding", "shape", 768, "shape must be a list, not int 768"),
        ("embedding", "shape", [1, 768], "shape must have 1 entries, not 2"),
        ("embedding", "shape", [0], "shape[0] must be a whole number of at least 1, not int 0"),
        ("embedding", "shape", [767], "shape is [767], but the embedding has 768 numbers"),
        ("llm", "response", MISSING, "response is missing"),
        ("llm", "response", b"hi", "response must be a text, not bytes b'hi'"),
        ("vlm", "response", ["hi"], "response must be a text, not list ['hi']"),
        ("caption", "response", None, "response must be a text, not NoneType None"),
        ("object_detection", "detections", {}, "detections must be a list, not dict {}"),
        ("object_detection", "detections.0", "square", "detections[0] must be a map, not str 'square'"),
        ("object_detection", "detections.0.label", 3, "detections[0].label must be a text, not int 3"),
        (
            "object_detection",
            "detections.0.score",
            1.1,
            "detections[0].score must be a number in [0, 1], not float 1.1",
        ),
        (
            "object_detection",
            "detections.0.score",
            -0.1,
            "detections[0].score must be a number in [0, 1], not float -0.1",
        ),
        (
            "object_detection",
            "detections.0.box",
            [0, 0, 1, 1],
            "detections[0].box must be a map, not list [0, 0, 1, 1]",
        ),
        ("object_detection", "detections.0.box.y_max", MISSING, "detections[0].box.y_max is missing"),
        (
            "object_detection",
            "detections.0.box.x_min",
            5,
            "detections[0].box: x_min (5) must not be above x_max (4)",
        ),
        ("segmentation", "masks", MISSING, "masks is missing"),
        ("segmentation", "masks.0.size", [16], "masks[0].size must have 2 entries, not 1"),
        (
            "segmentation",
            "masks.0.size",
            [16, 0],
            "masks[0].size[1] must be a whole number of at least 1, not int 0",
        ),
        (
            "segmentation",
            "masks.0.size",
            [16, 1.5],
            "masks[0].size[1] must be a whole number of at least 1, not float 1.5",
        ),
        ("segmentation", "masks.0.counts", [1, 2], "masks[0].counts must be a text, not list [1, 2]"),
        ("segmentation", "labels", [7], "labels[0] must be a text, not int 7"),
        ("segmentation", "boxes", [[0, 0, 4]], "boxes[0] must have 4 entries, not 3"),
        ("segmentation", "boxes", [[0, 9, 4, 8]], "boxes[0]: y_min (9) must not be above y_max (8)"),
        (
            "segmentation",
            "labels",
            [],
            "parallel lists must be equally long, and are not: labels 0, boxes 1, masks 1",
        ),
        ("video_segmentation", "cross_job_id", MISSING, "cross_job_id is missing"),
        (
            "video_segmentation",
            "frame_count",
            -1,
            "frame_count must be a whole number of at least 0, not int -1",
        ),
        (
            "video_segmentation",
            "frame_count",
            1.5,
            "frame_count must be a whole number of at least 0, not float 1.5",
        ),
        ("video_segmentation", "objects", ["7"], "objects[0] must be a whole number, not str '7'"),
        ("video_segmentation", "scores", [2], "scores[0] must be a number in [0, 1], not int 2"),
        (
            "video_segmentation",
            "objects",
            [7, 8],
            "parallel lists must be equally long, and are not: "
            "objects 2, scores 1, labels 1, boxes 1, masks 1",
        ),
        ("motion_energy", "motion_energy", 1.01, "motion_energy must be a number in [0, 1], not float 1.01"),
        (
            "motion_energy",
            "motion_energy",
            "x" * 100,
            f"motion_energy must be a number in [0, 1], not str '{'x' * 36}...",
        ),
    ],
)
def test_a_broken_rule_is_told_in_words(worker_type: str, path: str, value: Any, said: str) -> None:
    assert check_output(worker_type, changed(worker_type, path, value)) == [said]


@pytest.mark.parametrize(
    ("worker_type", "path", "value"),
    [
        ("embedding", "shape", MISSING),
        ("embedding", "shape", [768.0]),
        ("embedding", "embedding.0", 10**400),
        ("embedding", "model", "extra fields are nobody's fault"),
        ("object_detection", "detections", []),
        ("object_detection", "detections.0.score", 1),
        ("segmentation", "labels", MISSING),
        ("segmentation", "objects", []),
        ("video_segmentation", "frame_count", 3.0),
        ("motion_energy", "motion_energy", 0),
        ("motion_energy", "motion_energy", 1.0),
    ],
)
def test_what_the_page_allows_is_no_fault(worker_type: str, path: str, value: Any) -> None:
    assert check_output(worker_type, changed(worker_type, path, value)) == []


@pytest.mark.parametrize("worker_type", [*TYPE_EXAMPLES, "test"])
def test_an_error_takes_the_place_of_results(worker_type: str) -> None:
    session = {"cross_job_id": "s"} if worker_type == "video_segmentation" else {}
    assert check_output(worker_type, {"id": "a", "error": "no", **session}) == []


@pytest.mark.parametrize("error", [None, "", {"text": "no"}, b"no"])
def test_an_error_is_a_text(error: Any) -> None:
    complaints = check_output("llm", {"id": "a", "error": error})
    assert complaints == (
        [] if error == "" else [f"error must be a text, not {type(error).__name__} {error!r}"]
    )


def test_results_beside_an_error_are_told() -> None:
    entry = dict(TYPE_EXAMPLES["embedding"].output, error="no")
    assert check_output("embedding", entry) == [
        "embedding and shape beside the error: results or an error, never both"
    ]


def test_an_error_of_a_video_names_its_session() -> None:
    assert check_output("video_segmentation", {"id": "a", "error": "no"}) == ["cross_job_id is missing"]


def test_other_types_have_any_results_but_an_identifier() -> None:
    assert check_output("test", {"id": "a", "anything": [1]}) == []
    assert check_output("test", {"anything": [1]}) == ["id is missing"]


def test_all_that_is_missing_is_told_at_once() -> None:
    assert len(check_output("video_segmentation", {"id": "a"})) == 7


@given(worker_type=st.sampled_from([*TYPE_EXAMPLES, "test"]), data=st.data())
def test_no_value_makes_the_check_fail(worker_type: str, data: st.DataObject) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    )
    path = data.draw(st.sampled_from(list(TYPE_EXAMPLES.get(worker_type, TYPE_EXAMPLES["llm"]).output)))
    entry = {**TYPE_EXAMPLES.get(worker_type, TYPE_EXAMPLES["llm"]).output, path: data.draw(values)}
    for value in (entry, data.draw(values)):
        assert all(line for line in check_output(worker_type, value))


@pytest.mark.parametrize("resource_id", ["img-001", "a", "A_b-9"])
@pytest.mark.parametrize("nonce", ["abc123", "0"])
def test_a_path_as_printed_fits(resource_id: str, nonce: str) -> None:
    assert check_path(f"{STORE}/{resource_id}-{nonce}.png", resource_id) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ({"__type": "resource-ref", "id": "img-001"}, r"must be a text, not dict"),
        ("unblink-engine/tenant-1/files/frames/img-001-abc.png", r"is not an absolute path like"),
        ("/srv/unblink-engine/files/frames/img-001-abc.png", r"is not an absolute path like"),
        ("/srv/tenant-1/files/frames/img-001-abc.png", r"is not an absolute path like"),
        (f"{STORE}/img-001.png", r"does not begin with the resource's id, 'img-001'"),
        (f"{STORE}/img-001-abc", r"is not an absolute path like"),
        (f"{STORE}/img-001-.png", r"is not an absolute path like"),
        (f"{STORE}/img-002-abc.png", r"'img-002-abc\.png' does not begin with the resource's id, 'img-001'"),
    ],
)
def test_a_path_of_another_shape_is_told(path: Any, said: str) -> None:
    (complaint,) = check_path(path, "img-001")
    assert re.search(said, complaint)


@pytest.mark.parametrize("resource_id", ["../../x", "", "a/b", "ü", "x" * 65])
def test_an_identifier_that_is_not_plain_may_be_written_in_another_way(resource_id: str) -> None:
    assert check_path(f"{STORE}/0f3a9c-abc.png", resource_id) == []
