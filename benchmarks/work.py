"""What jobs ask for and what workers answer.

Every job is recognisable: its input holds its number, and so does the right answer, so that two results that
changed places are found. Workers only echo; what a model costs is no business of the engine.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import cbor2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Detections", "Echo", "Image", "TokenUsage", "Vector", "Work"]


class Work(Protocol):
    """What jobs ask for, and what workers answer."""

    def resources(self, number: int) -> list[dict[str, Any]]:
        """The resources that the request of this job brings along."""

    def input(self, number: int) -> dict[str, Any]:
        """The input of this job."""

    def delivered(self, number: int) -> dict[str, Any]:
        """Its input as it reaches the worker, or as long as that."""

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        """The worker's answer to what it got, encoded."""

    def answer(self, job_id: str, number: int) -> bytes:
        """The right answer, encoded, for which nothing needs to be looked at."""

    def expected(self, number: int) -> dict[str, Any]:
        """The fields of the right answer, ``id`` left out."""


@attrs.frozen
class Echo:
    """Text of `size` bytes, there and back."""

    size: int

    def resources(self, number: int) -> list[dict[str, Any]]:
        return []

    def input(self, number: int) -> dict[str, Any]:
        return {"text": _text(number, self.size)}

    def delivered(self, number: int) -> dict[str, Any]:
        return self.input(number)

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        return cbor2.dumps({"id": job_id, "text": input["text"]})

    def answer(self, job_id: str, number: int) -> bytes:
        return self.entry(job_id, self.input(number))

    def expected(self, number: int) -> dict[str, Any]:
        return self.input(number)


class _Canned:
    """A hundred bytes of text there, one of a few results back: to encode one takes longer than all that the
    engine does with it.
    """

    def __init__(self, results: Sequence[dict[str, Any]]) -> None:
        self._results = results
        self._encoded = [cbor2.dumps(result)[1:] for result in results]  # without the map's head
        self._head = bytes((0xA1 + len(results[0]),)) + b"\x62id"

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def resources(self, number: int) -> list[dict[str, Any]]:
        return []

    def input(self, number: int) -> dict[str, Any]:
        return {"text": _text(number, 100)}

    def delivered(self, number: int) -> dict[str, Any]:
        return self.input(number)

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        return self.answer(job_id, int(input["text"].partition(" ")[0]))

    def answer(self, job_id: str, number: int) -> bytes:
        return self._head + cbor2.dumps(job_id) + self._encoded[number % len(self._encoded)]

    def expected(self, number: int) -> dict[str, Any]:
        return self._results[number % len(self._results)]


# A prime number of results, so that neighbours in a batch differ.
_RESULTS: Final = 61


class Vector(_Canned):
    """Back come 768 floats, as embedding workers send them."""

    def __init__(self) -> None:
        chance = random.Random(768)
        vectors = [[chance.gauss(0, 0.05) for _ in range(768)] for _ in range(_RESULTS)]
        super().__init__([{"embedding": vector, "shape": [768]} for vector in vectors])


class Detections(_Canned):
    """Back come ten boxes of integers, each with a label and how sure the model is."""

    def __init__(self) -> None:
        chance = random.Random(10)
        super().__init__([{"detections": [_detection(chance) for _ in range(10)]} for _ in range(_RESULTS)])


class TokenUsage(_Canned):
    """Back come a sentence, and what it cost."""

    def __init__(self) -> None:
        chance = random.Random(34)
        results = []
        for number in range(_RESULTS):
            tokens = chance.randrange(10, 60), chance.randrange(10, 400)
            usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
            results.append({"text": _text(number, 3 * tokens[0]), "usage": usage})
        super().__init__(results)


def _detection(chance: random.Random) -> dict[str, Any]:
    label = chance.choice(["person", "car", "bicycle", "traffic light"])
    box = [chance.randrange(1920) for _ in range(4)]
    return {"label": label, "confidence": chance.random(), "box": box}


@attrs.frozen
class Image:
    """An image of `size` bytes per job, as a resource; back comes what the worker found in the file."""

    size: int
    _noise: bytes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_noise", os.urandom(self.size))

    def resources(self, number: int) -> list[dict[str, Any]]:
        head = b"\x89PNG\r\n\x1a\n" + number.to_bytes(8, "big")
        return [{"id": f"frame-{number}", "type": "image", "data": head + self._noise[len(head) :]}]

    def input(self, number: int) -> dict[str, Any]:
        return {"filepath": {"__type": "resource-ref", "id": f"frame-{number}"}}

    def delivered(self, number: int) -> dict[str, Any]:
        name = f"frame-{number:06}-0123456789abcdef.png"
        return {"filepath": f"/tmp/orbtrio-bench-01234567/unblink-engine/tenant-0/files/frames/{name}"}

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        path = Path(input["filepath"])
        with path.open("rb") as file:
            number = int.from_bytes(file.read(16)[8:], "big")
        return cbor2.dumps({"id": job_id, "number": number, "size": path.stat().st_size})

    def answer(self, job_id: str, number: int) -> bytes:
        return cbor2.dumps({"id": job_id, **self.expected(number)})

    def expected(self, number: int) -> dict[str, Any]:
        return {"number": number, "size": self.size}


def _text(number: int, size: int) -> str:
    return (f"{number:08} " * (size // 9 + 1))[:size]
