"""Hypothesis strategies for everything that travels: values, bytes, and one strategy per message.

A message is drawn as its *wire* form, the map that CBOR would decode to, because that is what both ends
agree on: ``cbor2.dumps(wire)`` is what a peer sends. `broken` draws a message in which exactly one rule is
broken, with the name of the rule, so that a test can demand a refusal and say what was not refused.

`Grammar` makes bytes instead of values: every way of writing an item that a decoder must understand (heads
longer than necessary, halves and singles, opaque tags), on demand every way that it must refuse, and damage.
`cbor_items` and `hostile_items` are strategies over it.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import cbor2
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = [
    "BROKEN",
    "Grammar",
    "batch_wire",
    "broken",
    "cbor_items",
    "cbor_values",
    "client_job_ids",
    "grammars",
    "hostile_items",
    "register_client_wire",
    "register_worker_wire",
    "worker_output_wire",
    "worker_request_wire",
    "worker_response_wire",
    "worker_types",
]

STRUCTURAL_TAGS: Final = (25, 28, 29, 256)

# --- Values -----------------------------------------------------------------------------------------------


@cache
def texts(*, max_size: int = 12) -> SearchStrategy[str]:
    """Any text that UTF-8 can carry, control characters and astral ones included."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=max_size)


@cache
def cbor_values(*, max_leaves: int = 12) -> SearchStrategy[Any]:
    """Whatever may stand in a job's input or a worker's result, and compares equal after a round trip."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**64), 2**64 - 1)
        | st.floats(allow_nan=False)
        | texts()
        | st.binary(max_size=12)
        | st.just(cbor2.undefined)
        | st.builds(cbor2.CBORSimpleValue, st.integers(0, 19) | st.integers(32, 255))
    )
    return st.recursive(leaves, _containers_of, max_leaves=max_leaves)


def _containers_of(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return (
        st.lists(values, max_size=4)
        | st.dictionaries(texts(), values, max_size=4)
        | st.builds(cbor2.CBORTag, opaque_tags(), values)
    )


@cache
def opaque_tags() -> SearchStrategy[int]:
    """Tags that pass through: dates, bignums, typed arrays, sets, whatever nobody has heard of."""
    known = st.sampled_from(
        [0, 1, 2, 3, 4, 5, 24, 27, 30, 35, 36, 37, 52, 64, 65, 100, 258, 259, 43000, 55799]
    )
    return known | st.integers(0, 2**64 - 1).filter(lambda tag: tag not in STRUCTURAL_TAGS)


@cache
def objects() -> SearchStrategy[dict[str, Any]]:
    """Maps of such values: inputs, results."""
    return st.dictionaries(texts(), cbor_values(max_leaves=6), max_size=4)


# --- Messages ---------------------------------------------------------------------------------------------


@cache
def worker_types() -> SearchStrategy[str]:
    """Names that a worker may give its type."""
    return st.sampled_from(["embedding", "llm", "motion_energy"]) | st.text(
        st.characters(categories=["L", "N"], include_characters="_-. "), min_size=1, max_size=128
    )


def whole_numbers(most: int) -> SearchStrategy[int | float]:
    """Positive whole numbers, also as the floats that JavaScript may send."""
    return st.integers(1, most) | st.integers(1, most).map(float)


@cache
def register_worker_wire() -> SearchStrategy[dict[str, Any]]:
    """An ``i_am_worker``."""
    config = st.fixed_dictionaries(
        {"worker_type": worker_types()},
        optional={
            "max_batch_size": st.none() | whole_numbers(2**40),
            "max_latency_ms": st.none() | whole_numbers(300_000),
            "eager": st.none() | st.booleans(),
            "max_unanswered_batches": st.none() | whole_numbers(2**20),
            "max_message_bytes": st.none() | whole_numbers(2**30),
            "extensions": st.none() | extensions(),
            "unheard_of": cbor_values(max_leaves=3),
        },
    )
    return st.fixed_dictionaries(
        {"type": st.just("i_am_worker"), "worker_secret": texts(), "worker_config": config}
    )


@cache
def extensions() -> SearchStrategy[list[str]]:
    """What a peer asks for: names that we know, and others."""
    return st.lists(st.sampled_from(["engine_errors", "progress", "cancel", "drain"]) | texts(), max_size=4)


@cache
def register_client_wire() -> SearchStrategy[dict[str, Any]]:
    """An ``i_am_server``."""
    return st.fixed_dictionaries(
        {"type": st.just("i_am_server")},
        optional={
            "version": st.just("1.0.1") | cbor_values(max_leaves=3),
            "token": st.none() | texts(),
            "extensions": st.none() | extensions(),
            "unheard_of": cbor_values(max_leaves=3),
        },
    )


@cache
def client_job_ids() -> SearchStrategy[Any]:
    """Ids of a client's own: mostly text, but whatever it likes."""
    return texts() | st.integers(-(2**63), 2**63) | st.none() | st.lists(st.integers(0, 9), max_size=3)


@cache
def worker_request_wire(*, resources: bool | None = None) -> SearchStrategy[dict[str, Any]]:
    """A ``worker_request``, all of whose jobs are valid.

    Args:
        resources: Whether it has any; None for sometimes.
    """
    job = st.fixed_dictionaries(
        {"job_id": client_job_ids(), "worker_type": worker_types(), "input": objects()},
        optional={"priority": cbor_values(max_leaves=2), "timeout_ms": st.integers(1, 300_000)},
    )
    jobs = st.lists(job, min_size=1 if resources else 0, max_size=4)
    data = st.binary(max_size=40)
    # A Uint8Array of JavaScript comes tagged.
    image = st.tuples(st.just("image"), data | data.map(lambda raw: cbor2.CBORTag(64, raw)))
    document = st.tuples(st.just("document"), texts(max_size=40))
    some = st.dictionaries(texts(), image | document, min_size=1 if resources else 0, max_size=3)
    return st.builds(_request, jobs, st.just({}) if resources is False else some, st.booleans())


def _request(jobs: list[Any], resources: dict[str, tuple[str, Any]], spelled_out: bool) -> dict[str, Any]:
    if jobs:
        # Every resource has to be referred to, from anywhere and any number of times.
        for index, name in enumerate(resources):
            jobs[index % len(jobs)]["input"][f"resource {index}"] = {"__type": "resource-ref", "id": name}
        jobs[-1]["input"]["all"] = [[{"deep": {"__type": "resource-ref", "id": name}}] for name in resources]
    else:
        resources = {}
    wire: dict[str, Any] = {"type": "worker_request", "jobs": jobs}
    if resources or spelled_out:
        listed = [{"id": name, "type": kind, "data": data} for name, (kind, data) in resources.items()]
        wire["resources"] = listed
    return wire


@cache
def job_ids() -> SearchStrategy[str]:
    """Ids as the engine gives them, and any other text."""
    ours = st.integers(0, 10**6).map(lambda number: f"0a1b2c3d4e-{number}")
    return ours | texts() | texts().map(lambda text: text * 50)


@cache
def batch_wire() -> SearchStrategy[dict[str, Any]]:
    """A batch."""
    job = st.fixed_dictionaries(
        {"id": job_ids(), "input": objects()}, optional={"priority": cbor_values(max_leaves=2)}
    )
    return st.fixed_dictionaries({"inputs": st.lists(job, max_size=4)})


@cache
def worker_output_wire() -> SearchStrategy[dict[str, Any]]:
    """A ``worker_output`` of good entries, with ``id`` anywhere in them."""
    entry = st.builds(_entry, objects(), job_ids(), st.integers(0, 4))
    return st.fixed_dictionaries({"type": st.just("worker_output"), "output": st.lists(entry, max_size=4)})


def _entry(fields: dict[str, Any], job_id: str, position: int) -> dict[str, Any]:
    pairs = [(name, value) for name, value in fields.items() if name != "id"]
    return dict([*pairs[:position], ("id", job_id), *pairs[position:]])


@cache
def worker_response_wire() -> SearchStrategy[dict[str, Any]]:
    """A ``worker_response``."""
    return st.fixed_dictionaries(
        {"type": st.just("worker_response"), "job_id": client_job_ids(), "output": objects()}
    )


# --- One rule broken ----------------------------------------------------------------------------------------

_NO_TEXT: Final[tuple[Any, ...]] = (None, 5, b"bytes", [], {}, True, cbor2.CBORTag(1, "text"))
_NO_LIST: Final[tuple[Any, ...]] = (5, "text", {}, b"", cbor2.CBORTag(258, []))
_NO_WHOLE: Final[tuple[Any, ...]] = (
    *(0, -1, 1.5, float("nan"), float("inf")),
    *("many", True, [], b"1", cbor2.CBORTag(2, b"\x20")),
)

Spoiler: TypeAlias = "Callable[[Any], Any]"


def _set(*path: str | int, values: tuple[Any, ...]) -> list[Spoiler]:
    """Put one of `values` in the place of what stands at `path`."""
    return [partial(_with, path=path, value=value) for value in values]


def _with(wire: Any, *, path: tuple[str | int, ...], value: Any) -> Any:
    step, *rest = path
    changed = wire.copy()
    changed[step] = _with(wire[step], path=tuple(rest), value=value) if rest else value
    return changed


def _duplicate_resource(wire: Any) -> Any:
    return {**wire, "resources": [*wire["resources"], wire["resources"][0]]}


def _unused_resource(wire: Any) -> Any:
    known = {resource["id"] for resource in wire["resources"]}
    name = next(name for name in map(str, range(9)) if name not in known)
    return {**wire, "resources": [*wire["resources"], {"id": name, "type": "image", "data": b""}]}


def _no_resources(wire: Any) -> Any:
    return {**wire, "resources": []}


def _resources_never_mentioned(wire: Any) -> Any:
    return {name: wire[name] for name in ("type", "jobs")}


# By message: the rule, and what breaks this one alone. Close code 1008, or 1009 where the name says so.
BROKEN: Final[dict[str, dict[str, list[Spoiler]]]] = {
    "i_am_worker": {
        "worker_config is a map": _set("worker_config", values=(None, [], "text", 5)),
        "worker_type is a name": _set(
            "worker_config", "worker_type", values=(*_NO_TEXT, "", "a/b", "a\x00b", "a\nb", "x" * 129)
        ),
        "max_batch_size is whole": _set("worker_config", "max_batch_size", values=_NO_WHOLE),
        "max_latency_ms is whole": _set("worker_config", "max_latency_ms", values=(*_NO_WHOLE, 1e300)),
        "max_unanswered_batches is whole": _set("worker_config", "max_unanswered_batches", values=_NO_WHOLE),
        "max_message_bytes is whole": _set("worker_config", "max_message_bytes", values=_NO_WHOLE),
        "eager is a flag": _set("worker_config", "eager", values=(0, 1, "true", [])),
        "extensions are a list of text": _set(
            "worker_config", "extensions", values=(*_NO_LIST, [1], ["a", None])
        ),
    },
    "i_am_server": {
        "token is text": _set("token", values=_NO_TEXT[1:]),
        "extensions are a list of text": _set("extensions", values=(*_NO_LIST, [1], ["a", None])),
    },
    "worker_request": {
        "jobs are a list": _set("jobs", values=(None, *_NO_LIST)),
        "jobs are not too many": _set("jobs", values=([None] * 10_001,)),
        "resources are a list": _set("resources", values=_NO_LIST),
        "a resource is a map": _set("resources", 0, values=(None, 5, [], "text")),
        "a resource has an id": _set("resources", 0, "id", values=_NO_TEXT),
        "a resource has a known type": _set("resources", 0, "type", values=(*_NO_TEXT, "video", "Image")),
        "a resource has data": _set("resources", 0, "data", values=(None, 5, [], cbor2.CBORTag(65, b""))),
        "a resource has its id alone": [_duplicate_resource],
        "1009: a resource is small": _set(
            "resources",
            0,
            values=(
                {"id": "big", "type": "image", "data": bytes(2**21 + 1)},
                {"id": "big", "type": "document", "data": "é" * (2**20) + "x"},
            ),
        ),
        "1009: a resource is used": [_unused_resource],
        "1009: a reference has its resource": [_no_resources, _resources_never_mentioned],
    },
    "batch": {"inputs are a list": _set("inputs", values=(None, *_NO_LIST))},
    "worker_output": {"output is a list": _set("output", values=(None, *_NO_LIST))},
    "worker_response": {"output is a map": _set("output", values=(None, 5, [], "text"))},
}

_VALID: Final[dict[str, SearchStrategy[Any]]] = {
    "i_am_worker": register_worker_wire(),
    "i_am_server": register_client_wire(),
    "worker_request": worker_request_wire(resources=True),
    "batch": batch_wire(),
    "worker_output": worker_output_wire(),
    "worker_response": worker_response_wire(),
}


@st.composite
def broken(draw: DrawFn, message: str) -> tuple[str, Any]:
    """A rule of this message, and a wire form that breaks this one and no other."""
    rule = draw(st.sampled_from(sorted(BROKEN[message])))
    spoil = draw(st.sampled_from(BROKEN[message][rule]))
    return rule, spoil(draw(_VALID[message]))


# --- Bytes ------------------------------------------------------------------------------------------------


class Grammar:
    """Makes items as bytes with any `random.Random`: hypothesis's, or a plain one for thousands at a time.

    Args:
        random: What decides.
        hostile: Also what must be refused.
    """

    def __init__(self, random: Random, *, hostile: bool = False) -> None:
        self._random = random
        self._hostile = hostile

    def item(self, levels: int = 4) -> bytes:
        """One item, at most `levels` deep."""
        if self._hostile and self._random.random() < 0.08:
            return self._random.choice(_REFUSED)
        kinds: list[Callable[[], bytes]] = [self._number, self._string, self._simple, self._run]
        if levels:
            kinds += [
                lambda: self._array(levels - 1),
                lambda: self._map(levels - 1),
                lambda: self._tag(levels - 1),
            ] * 2
        return self._random.choice(kinds)()

    def head(self, major: int, argument: int) -> bytes:
        """The head of an item, in as many bytes as the peer pleases."""
        sizes = [size for size in (0, 1, 2, 4, 8) if argument < (24 if size == 0 else 1 << 8 * size)]
        size = sizes[0] if self._random.random() < 0.7 else self._random.choice(sizes)
        if size == 0:
            return bytes((major << 5 | argument,))
        return bytes((major << 5 | 23 + size.bit_length(),)) + argument.to_bytes(size, "big")

    def text(self) -> bytes:
        """A text, written in any of the ways."""
        text = "".join(
            self._random.choices("ab\x00é文\U0001f600", k=self._random.choice([0, 1, 1, 2, 3, 30]))
        )
        return self.head(3, len(text.encode())) + text.encode()

    def _number(self) -> bytes:
        if self._random.random() < 0.5:
            return self.head(
                self._random.choice([0, 1]), self._random.getrandbits(self._random.choice([3, 8, 64]))
            )
        size, head = self._random.choice([(2, b"\xf9"), (4, b"\xfa"), (8, b"\xfb")])
        return head + self._random.randbytes(size)

    def _string(self) -> bytes:
        if self._random.random() < 0.5:
            return self.text()
        data = self._random.randbytes(self._random.choice([0, 1, 5, 30]))
        return self.head(2, len(data)) + data

    def _simple(self) -> bytes:
        return self._random.choice(
            [*(bytes((0xE0 + value,)) for value in range(24)), b"\xf8\x20", b"\xf8\xff"]
        )

    def _run(self) -> bytes:
        """Numbers of one width, or nearly: the scanner takes them in strides."""
        items = [
            self._random.choice(
                [b"\x07", b"\x38\x20", b"\xf9\x3c\x00", b"\xfa" + bytes(4), b"\xfb" + bytes(8)]
            )
        ]
        items *= self._random.choice([7, 8, 9, 300])
        for _ in range(self._random.choice([0, 0, 1, 2])):
            items[self._random.randrange(len(items))] = self.item(0)
        return self.head(4, len(items)) + b"".join(items)

    def _array(self, levels: int) -> bytes:
        items = [self.item(levels) for _ in range(self._random.choice([0, 1, 2, 3, 9]))]
        return self.head(4, len(items)) + b"".join(items)

    def _map(self, levels: int) -> bytes:
        names = self._random.sample(["", "a", "b", "id", "error", "é", "文" * 20], self._random.randrange(5))
        pairs = [self.head(3, len(name.encode())) + name.encode() + self.item(levels) for name in names]
        return self.head(5, len(pairs)) + b"".join(pairs)

    def _tag(self, levels: int) -> bytes:
        known = [0, 1, 2, 3, 4, 5, 24, 27, 30, 35, 36, 37, 52, 64, 65, 100, 258, 259, 43000, 55799, 2**64 - 1]
        return self.head(6, self._random.choice(known)) + self.item(levels)

    def damage(self, raw: bytes) -> bytes:
        """`raw` with a few changes anywhere: overwritten, cut out, put in, doubled, cut off."""
        spoiled = bytearray(raw)
        for _ in range(self._random.choice([1, 1, 2, 3])):
            at = self._random.randrange(len(spoiled) + 1)
            match self._random.randrange(5):
                case 0:
                    spoiled[at : at + 1] = self._random.randbytes(1)
                case 1:
                    del spoiled[at : at + self._random.randrange(1, 5)]
                case 2:
                    spoiled[at:at] = self._random.randbytes(self._random.randrange(1, 5))
                case 3:
                    spoiled[at:at] = spoiled[at : at + 8]
                case _:
                    del spoiled[at:]
        return bytes(spoiled)


# Bytes that no message may hold, each for one reason.
_REFUSED: Final = (
    # Reserved heads, indefinite lengths, simple values in too many bytes, structural tags.
    *(b"\x1c", b"\x3d", b"\x5e", b"\x7c", b"\x9d", b"\xbe", b"\xdc", b"\xfc", b"\xfe", b"\xff"),
    *(b"\x5f\x41a\xff", b"\x7f\x61a\xff", b"\x9f\xff", b"\xbf\xff", b"\x9f\x00", b"\x1f", b"\xdf\x00"),
    *(b"\xf8\x00", b"\xf8\x13", b"\xf8\x17", b"\xf8\x1f"),
    *(
        b"\xd8\x19\x00",
        b"\xd8\x1c\x80",
        b"\xd8\x1d\x00",
        b"\xd9\x01\x00\x80",
        b"\xdb" + bytes(7) + b"\x1c\x00",
    ),
    # Keys that are no text, the same key twice, text that is not UTF-8.
    *(
        b"\xa1\x00\x00",
        b"\xa1\x41a\x00",
        b"\xa1\xf6\x00",
        b"\xa1\x80\x00",
        b"\xa1\xc1\x61a\x00",
        b"\xa1\xa0\x00",
    ),
    *(b"\xa1\x7c" + bytes(17), b"\xa1\x7f\x61a\xff\x00"),
    *(b"\xa2\x61a\x00\x61a\x00", b"\xa2\x61a\x00\x78\x01a\x01", b"\xa2\x60\x00\x79\x00\x00\x00"),
    *(b"\x61\xff", b"\x62\xc0\x80", b"\x63\xed\xa0\x80", b"\xa1\x61\x80\x00", b"\x78\x01\xe2"),
    # Ends too early, or claims to end far away.
    *(
        b"\x42a",
        b"\x62a",
        b"\x78",
        b"\x19\x00",
        b"\x82\x00",
        b"\xa1\x61a",
        b"\xa1",
        b"\xc1",
        b"\xfb\x00",
        b"",
    ),
    *(b"\x5b" + b"\xff" * 8, b"\x7b" + b"\xff" * 8, b"\x9b" + b"\xff" * 8, b"\xbb" + b"\xff" * 8),
    *(b"\x5a\x80\x00\x00\x00a", b"\x9a\x00\xff\xff\xff\x00", b"\xba\xff\xff\xff\xff\x60\x00"),
)


def grammars(*, hostile: bool = False) -> SearchStrategy[Grammar]:
    """Grammars whose decisions are hypothesis's."""
    return st.randoms(use_true_random=False).map(lambda random: Grammar(random, hostile=hostile))


def cbor_items() -> SearchStrategy[bytes]:
    """One item that must be understood, in any of the ways of writing it."""
    return grammars().map(lambda grammar: grammar.item())


def hostile_items() -> SearchStrategy[bytes]:
    """The same with what must be refused in it, or with damage, or bytes without any sense."""
    hostile = grammars(hostile=True).map(lambda grammar: grammar.item())
    damaged = grammars().map(lambda grammar: grammar.damage(grammar.item()))
    return hostile | damaged | st.binary(max_size=40)
