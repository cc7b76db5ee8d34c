"""What jobs ask for and what workers answer.

Every job is recognisable: its input holds its number, and so does the right answer, so that two results that
changed places are found. Workers only echo; what a model costs is no business of the engine.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import cbor2

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Echo", "Image", "Vector", "Work"]


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


@attrs.frozen
class Vector:
    """A hundred bytes of text there, 768 floats back, as embedding workers send them."""

    _vectors: tuple[list[float], ...] = attrs.field(init=False, repr=False)
    _encoded: tuple[bytes, ...] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # A prime number of them, so that neighbours in a batch differ.
        chance = random.Random(768)
        vectors = tuple([chance.gauss(0, 0.05) for _ in range(768)] for _ in range(61))
        object.__setattr__(self, "_vectors", vectors)
        object.__setattr__(self, "_encoded", tuple(cbor2.dumps(vector) for vector in vectors))

    def resources(self, number: int) -> list[dict[str, Any]]:
        return []

    def input(self, number: int) -> dict[str, Any]:
        return {"text": _text(number, 100)}

    def delivered(self, number: int) -> dict[str, Any]:
        return self.input(number)

    def entry(self, job_id: str, input: Mapping[str, Any]) -> bytes:
        return self.answer(job_id, int(input["text"].partition(" ")[0]))

    def answer(self, job_id: str, number: int) -> bytes:
        encoded = self._encoded[number % len(self._encoded)]
        # Encoding a vector takes longer than all that the engine does with it.
        return b"\xa3\x62id%b\x69embedding%b\x65shape\x81\x19\x03\x00" % (cbor2.dumps(job_id), encoded)

    def expected(self, number: int) -> dict[str, Any]:
        return {"embedding": self._vectors[number % len(self._vectors)], "shape": [768]}


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
