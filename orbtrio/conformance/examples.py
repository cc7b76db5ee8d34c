"""Messages that the spec prints, as data, and what it says about inputs and outputs of each worker type.

Cases send and expect the messages exactly as printed; that a peer can be fed from the page is what a reader
of the spec tries first. Where the page elides something, `Example.elided` says what stands here instead.

For the eight documented worker types the spec prints types, no values. Their examples are made up here, one
job and one output each. What a worker really answers is checked by `shapes`.
"""

from __future__ import annotations

import base64
import copy
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.model import Role
from orbtrio.conformance.shapes import check_output, check_path

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "EXAMPLES",
    "PICTURE",
    "TYPE_EXAMPLES",
    "Example",
    "TypeExample",
    "check_output",
    "check_path",
    "message",
    "sample_input",
]

# A PNG of 16 by 16 grey pixels: small enough to read in a wire log, real enough for any decoder.
PICTURE: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAdUlEQVR42j3OQRHAIBAEwZOABCQgAQmRgAQkIAEJSEBCJERCJCAhO/vIfqaq"
    "H1cXodWrdXo/74mkAdSQNYAaigZQQ6Rcqjbm2tRwaQA1NA2ghq4BNIbGUeqjUwOoYWkANWwNoP8ft8ZRang0gBpeDaCGowH0A9AreAG9EgjqAAAA"
    "AElFTkSuQmCC"
)

# Put together from parts, because it is a path of nobody's machine: the one that the page prints.
_PRINTED_PATH: Final = "/".join(
    ("", "home", "user", ".local/share/unblink-engine/tenant-1/files/frames/img-001-abc123.png")
)
_DIMENSIONS: Final = 768


def _vector(first: float) -> list[float]:
    return [round(first + 0.1 * (number % 10), 1) for number in range(_DIMENSIONS)]


@attrs.frozen(kw_only=True)
class Example:
    """Something that the spec prints.

    Attributes:
        name: To ask for it.
        section: The title under which it stands.
        sender: Who sends it.
        printed: The map. Use `message` for one that may be changed.
        elided: What the page leaves out, and what stands here instead; empty if it is complete.
        part: It is not a message, but a job of one.
    """

    name: str
    section: str
    sender: Role
    printed: Mapping[str, Any]
    elided: str = ""
    part: bool = False


_VECTORS: Final = "`[0.1, 0.2, ...]`: 768 numbers that go on in steps of 0.1, ten of them over and over"

EXAMPLES: Final[Mapping[str, Example]] = {
    example.name: example
    for example in (
        Example(
            name="registration",
            section="Worker Registration",
            sender=Role.WORKER,
            printed={
                "type": "i_am_worker",
                "worker_secret": "my-secret-key",
                "worker_config": {"worker_type": "embedding", "max_batch_size": 32, "max_latency_ms": 5000},
            },
        ),
        Example(
            name="batch",
            section="Job Batch Distribution",
            sender=Role.ENGINE,
            printed={
                "inputs": [
                    {"id": "job-uuid-1", "input": {"text": "hello world", "prompt_name": "query"}},
                    {"id": "job-uuid-2", "input": {"text": "goodbye world", "prompt_name": "passage"}},
                ]
            },
        ),
        Example(
            name="output with one error",
            section="Worker Output",
            sender=Role.WORKER,
            printed={
                "type": "worker_output",
                "output": [{"id": "job-uuid-1", "error": "Model failed to process input: invalid format"}],
            },
        ),
        Example(
            name="output of two successes",
            section="Worker Output",
            sender=Role.WORKER,
            printed={
                "type": "worker_output",
                "output": [
                    {"id": "job-1", "embedding": _vector(0.1), "shape": [_DIMENSIONS]},
                    {"id": "job-2", "embedding": _vector(0.3), "shape": [_DIMENSIONS]},
                ],
            },
            elided=_VECTORS,
        ),
        Example(
            name="output of a success and an error",
            section="Worker Output",
            sender=Role.WORKER,
            printed={
                "type": "worker_output",
                "output": [
                    {"id": "job-1", "embedding": _vector(0.1), "shape": [_DIMENSIONS]},
                    {"id": "job-2", "error": "Image too large"},
                ],
            },
            elided=_VECTORS,
        ),
        Example(
            name="request",
            section="Resource Example",
            sender=Role.CLIENT,
            printed={
                "type": "worker_request",
                "resources": [{"id": "img-001", "type": "image", "data": PICTURE}],
                "jobs": [
                    {
                        "job_id": "job-1",
                        "worker_type": "embedding",
                        "input": {"filepath": {"__type": "resource-ref", "id": "img-001"}},
                    }
                ],
            },
            elided="`<Uint8Array of PNG bytes>`: `PICTURE`",
        ),
        Example(
            name="job with a reference",
            section="Worker Resource Access",
            sender=Role.CLIENT,
            printed={"id": "job-1", "input": {"filepath": {"__type": "resource-ref", "id": "img-001"}}},
            part=True,
        ),
        Example(
            name="job with the path",
            section="Worker Resource Access",
            sender=Role.ENGINE,
            printed={"id": "job-1", "input": {"filepath": _PRINTED_PATH}},
            part=True,
        ),
        Example(
            name="test registration",
            section="Unit Test Example",
            sender=Role.WORKER,
            printed={
                "type": "i_am_worker",
                "worker_secret": "test-secret",
                "worker_config": {"worker_type": "test", "max_batch_size": 10},
            },
        ),
        Example(
            name="test batch",
            section="Unit Test Example",
            sender=Role.ENGINE,
            printed={
                "inputs": [
                    {"id": "job-1", "input": {"text": "hello"}},
                    {"id": "job-2", "input": {"text": "world"}},
                ]
            },
        ),
    )
}


def message(name: str) -> dict[str, Any]:
    """A copy of what the example of that name prints."""
    return copy.deepcopy(dict(EXAMPLES[name].printed))


# --- Worker types -----------------------------------------------------------------------------------------


def _inputs(image_path: str) -> Mapping[str, tuple[dict[str, Any], ...]]:
    """For each documented type, inputs that its page allows; the first is what any worker of it can do."""
    stream = {"media_id": "camera-1", "current_frame": image_path}
    session = {"cross_job_id": "session-1", "current_frame": image_path}
    question = {"type": "text", "text": "What is in the picture?"}
    return {
        "embedding": (
            {"text": "hello world", "prompt_name": "query"},
            {"text": "goodbye world", "prompt_name": "passage"},
            {"text": "hello"},
            {"filepath": image_path},
        ),
        "llm": (
            {"messages": [{"role": "user", "content": "Say hello."}]},
            {
                "messages": [
                    {"role": "system", "content": "Answer in one word."},
                    {"role": "user", "content": "What colour is the sky?"},
                    {"role": "assistant", "content": "Blue."},
                    {"role": "user", "content": "And grass?"},
                ]
            },
        ),
        "vlm": (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": image_path}, question]}]},
            {"messages": [{"role": "user", "content": [question]}]},
        ),
        "caption": (
            {"images": [image_path]},
            {"images": [image_path, image_path], "query": "What has changed?"},
        ),
        "object_detection": ({"filepath": image_path},),
        "segmentation": ({"filepath": image_path}, {"filepath": image_path, "prompts": ["square"]}),
        "video_segmentation": (
            {**session, "prompts": ["square"]},
            session,
            {**session, "prompts": ["square"], "reset_session": True},
        ),
        "motion_energy": (stream, {**stream, "media_id": "camera-2"}),
    }


def sample_input(worker_type: str, image_path: str, number: int = 0) -> dict[str, Any]:
    """A valid ``input`` of a job of that type.

    Args:
        worker_type: A type that the spec does not document gets what the spec's own test sends, a text.
        image_path: Of a picture that the worker can read, for the types that want one.
        number: Which; counts through all the ways that are documented, over and over.
    """
    texts = ({"text": "hello"}, {"text": "world"})
    ways = _inputs(image_path).get(worker_type, texts)
    return copy.deepcopy(ways[number % len(ways)])


@attrs.frozen(kw_only=True)
class TypeExample:
    """A job of a documented worker type, and an answer to it; made up, for the spec prints only types.

    Attributes:
        worker_type: As it registers.
        section: The title under which its types stand.
        job: As it stands in a batch.
        output: As it stands in a worker's output.
    """

    worker_type: str
    section: str
    job: Mapping[str, Any]
    output: Mapping[str, Any]


_FRAME: Final = f"{_PRINTED_PATH.rpartition('/')[0]}/frame-1-abc123.png"
_MASK_EXAMPLE: Final = {"size": [16, 16], "counts": "04L4d0"}
_RESULT_EXAMPLES: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "embedding": ("Embedding Worker", {"embedding": _vector(0.1), "shape": [_DIMENSIONS]}),
    "llm": ("LLM Worker", {"response": "Hello."}),
    "vlm": ("Vision Language Model (VLM) Worker", {"response": "Grey squares."}),
    "caption": ("Image Captioning Worker", {"response": "a pattern of grey squares"}),
    "object_detection": (
        "Object Detection Worker",
        {
            "detections": [
                {"label": "square", "score": 0.9, "box": {"x_min": 0, "y_min": 4.5, "x_max": 4, "y_max": 8.5}}
            ]
        },
    ),
    "segmentation": (
        "Image Segmentation Worker",
        {"masks": [_MASK_EXAMPLE], "labels": ["square"], "boxes": [[0, 4.5, 4, 8.5]]},
    ),
    "video_segmentation": (
        "Video Segmentation Worker (SAM3)",
        {
            "cross_job_id": "session-1",
            "frame_count": 1,
            "objects": [7],
            "scores": [0.9],
            "labels": ["square"],
            "boxes": [[0, 4.5, 4, 8.5]],
            "masks": [_MASK_EXAMPLE],
        },
    ),
    "motion_energy": ("Motion Energy Detection Worker", {"motion_energy": 0.25}),
}

TYPE_EXAMPLES: Final[Mapping[str, TypeExample]] = {
    worker_type: TypeExample(
        worker_type=worker_type,
        section=section,
        job={"id": "job-1", "input": sample_input(worker_type, _FRAME)},
        output={"id": "job-1", **result},
    )
    for worker_type, (section, result) in _RESULT_EXAMPLES.items()
}
