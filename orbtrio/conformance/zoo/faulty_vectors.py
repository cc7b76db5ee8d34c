"""Engines that are wrong about typed arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cbor2

from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.extensions import NUMBERS
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.wire import Refused

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Client, Worker

__all__: list[str] = []


@mutant("typed-arrays-for-everybody", kills=("ORB-EXT-27",))
class TypedArraysForEverybody(ModelEngine):
    """Passes typed arrays on to whoever waits."""

    def takes_arrays(self, client: Client) -> bool:
        return True


@mutant("lists-for-everybody", kills=("ORB-EXT-27",))
class ListsForEverybody(ModelEngine):
    """Takes typed arrays apart for those, too, who asked for them."""

    def takes_arrays(self, client: Client) -> bool:
        return False


@mutant("typed-arrays-at-the-top", kills=("ORB-EXT-27",))
class TypedArraysAtTheTop(ModelEngine):
    """Looks for typed arrays in the fields of an entry, and no deeper."""

    def with_lists(self, value: Any) -> Any:
        def shallow(member: Any) -> Any:
            is_array = isinstance(member, cbor2.CBORTag) and member.tag in NUMBERS
            return self.numbers_in(member) if is_array else member

        return {name: shallow(member) for name, member in value.items()}


@mutant("typed-arrays-in-one-order", kills=("ORB-EXT-27",))
class TypedArraysInOneOrder(ModelEngine):
    """Takes all numbers for little-endian."""

    def numbers_in(self, tag: cbor2.CBORTag) -> list[float]:
        return super().numbers_in(cbor2.CBORTag({81: 85, 82: 86}.get(tag.tag, tag.tag), tag.value))


@mutant("typed-arrays-in-progress", kills=("ORB-EXT-27",))
class TypedArraysInProgress(ModelEngine):
    """Forgets that progress, too, may have typed arrays."""

    def reported_to(self, client: Client, worker: Worker, entry: dict[str, Any]) -> dict[str, Any]:
        return entry


@mutant("broken-typed-arrays-close", kills=("ORB-EXT-28",))
class BrokenTypedArraysClose(ModelEngine):
    """Closes the connection over a typed array that is none."""

    def is_broken(self, worker: Worker, entry: dict[str, Any]) -> bool:
        if super().is_broken(worker, entry):
            raise Refused("output is not valid")
        return False


@mutant("broken-typed-arrays-spoil-all", kills=("ORB-EXT-28",))
class BrokenTypedArraysSpoilAll(ModelEngine):
    """Drops all entries of a message of which one has a typed array that is none."""

    def on_output(self, worker: Worker, message: dict[str, Any]) -> None:
        entries = message.get("output")
        if type(entries) is list and any(
            type(entry) is dict and self.is_broken(worker, entry) for entry in entries
        ):
            message = {**message, "output": []}
        super().on_output(worker, message)


@mutant("broken-typed-arrays-pass", kills=("ORB-EXT-28",))
class BrokenTypedArraysPass(ModelEngine):
    """Passes on what it cannot make a list of."""

    def is_broken(self, worker: Worker, entry: dict[str, Any]) -> bool:
        return False

    def numbers_in(self, tag: cbor2.CBORTag) -> Any:
        return super().numbers_in(tag) if self.is_whole(tag) else tag


@mutant("typed-arrays-of-everybody", kills=("ORB-EXT-29",))
class TypedArraysOfEverybody(ModelEngine):
    """Takes the tags of any worker for typed arrays."""

    def makes_arrays(self, worker: Worker) -> bool:
        return True
