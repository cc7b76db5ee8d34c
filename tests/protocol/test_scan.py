"""The walk over CBOR bytes: it accepts what a strict decoder accepts, and nothing it accepts is expensive.

The decoder that it is held against is called here with options of its own, not through the codec.
"""

from __future__ import annotations

import contextlib
import gc
import os
import struct
import time
import tracemalloc
from random import Random
from typing import TYPE_CHECKING, Any, Final

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orbtrio.errors import DecodeError
from orbtrio.protocol.codec import decode_item
from orbtrio.protocol.scan import MAX_DEPTH, MAX_WORK, check, split_entries
from tests.strategies import Grammar, cbor_items, hostile_items, worker_output_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MARK: Final = b"\x1b" + (int.from_bytes(os.urandom(8), "big") | 1 << 63).to_bytes(8, "big")


class OpaqueTags(dict[int, Any]):
    def __missing__(self, tag: int) -> Any:
        if tag in (25, 28, 29, 256):
            raise ValueError(tag)
        return lambda value, immutable: cbor2.CBORTag(tag, value)


def text_keys_only(value: Mapping[Any, Any], immutable: bool) -> Mapping[Any, Any]:
    if not all(type(key) is str for key in value):
        raise ValueError("key")
    return value


def strictly_decoded(raw: bytes) -> Any:
    """What the library makes of `raw`; ValueError if the profile forbids it."""
    try:
        item, mark = cbor2.loads(
            b"\x82" + raw + MARK,
            max_depth=MAX_DEPTH + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=OpaqueTags(),
            object_hook=text_keys_only,
        )
    except cbor2.CBORError as error:
        raise ValueError from error
    if mark != int.from_bytes(MARK[1:], "big"):
        raise ValueError("bytes behind")
    return item


def is_strict(raw: bytes) -> bool:
    try:
        strictly_decoded(raw)
    except ValueError:
        return False
    return True


def is_accepted(raw: bytes) -> bool:
    try:
        check(raw)
    except DecodeError:
        return False
    return True


def array(*members: bytes) -> bytes:
    return b"\x9a" + struct.pack(">I", len(members)) + b"".join(members)


# --- The same as the decoder ------------------------------------------------------------------------------


@given(cbor_items())
def test_accepts_every_way_of_writing_an_item(raw: bytes) -> None:
    check(raw)
    assert is_strict(raw)


@given(hostile_items())
@example(b"\xf8\x20")
@example(b"\xf8\x1f")
@example(b"\xa1\x78\x01a\x00")
@example(b"\xa1\x7b\x00\x00\x00\x00\x00\x00\x00\x01a\x00")
def test_accepts_exactly_what_the_decoder_accepts(raw: bytes) -> None:
    assert is_accepted(raw) == is_strict(raw)


def test_accepts_exactly_what_the_decoder_accepts_ten_thousand_times() -> None:
    """B-41. As above, without hypothesis: it finds smaller examples, this looks at more of them."""
    random = Random(20261121)
    hostile, friendly = Grammar(random, hostile=True), Grammar(random)
    accepted = 0
    for _ in range(5000):
        for raw in (hostile.item(), friendly.damage(friendly.item())):
            assert is_accepted(raw) == is_strict(raw), raw.hex()
            accepted += is_accepted(raw)
    # Both ends of the property were put to the test.
    assert 1000 < accepted < 9000


@pytest.mark.parametrize("opened", [b"\x81", b"\xc1", b"\xa1\x61a"], ids=["arrays", "tags", "maps"])
@pytest.mark.parametrize("innermost", [b"\x00", b"\x80"])
def test_refuses_level_65(opened: bytes, innermost: bytes) -> None:
    """B-25. What is empty opens no level."""
    check(opened * MAX_DEPTH + innermost)
    assert is_strict(opened * MAX_DEPTH + innermost)
    with pytest.raises(DecodeError, match="levels"):
        check(opened * (MAX_DEPTH + 1) + innermost)
    assert not is_strict(opened * (MAX_DEPTH + 1) + innermost)
    check(opened * (MAX_DEPTH - 2) + innermost, depth=2)
    with pytest.raises(DecodeError, match="levels"):
        check(opened * (MAX_DEPTH - 1) + innermost, depth=2)


@pytest.mark.parametrize("key", [b"\x7f", b"\x7c", b"\x41a", b"\x00"], ids=bytes.hex)
def test_says_the_same_of_a_key_wherever_it_stands(key: bytes) -> None:
    raw = b"\xa1" + key + b"\x00"
    for walk in (check, lambda raw: split_entries(raw, "worker_output", "output")):
        with pytest.raises(DecodeError, match="a key that is no text"):
            walk(raw)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "ends too early"),
        (b"\x82\x00", "ends too early"),
        (b"\x62a", "ends too early"),
        (b"\x00\x00", "behind"),
        (b"\x9f\xff", "indefinite"),
        (b"\x1c", "reserved"),
        (b"\xf8\x18", "reserved"),
        (b"\x61\xff", "UTF-8"),
        (b"\xa1\x61\xff\x00", "UTF-8"),
        (b"\xa1\x00\x00", "no text"),
        (b"\xa2\x61a\x00\x78\x01a\x00", "twice"),
        (b"\xd8\x1c\x00", "tag 28"),
    ],
)
def test_says_what_is_wrong(raw: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        check(raw)


# --- The budget ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("major", [0x40, 0x60, 0x80, 0xA0])
@pytest.mark.parametrize("count", [2**32 - 1, 2**63, 2**64 - 1])
def test_lengths_that_cannot_be_true_are_refused_at_once(major: int, count: int) -> None:
    """B-26."""
    raw = bytes((major | 27,)) + count.to_bytes(8, "big")
    for message in (raw, raw + bytes(100), b"\x81" + raw, b"\xa1\x61a" + raw):
        with pytest.raises(DecodeError):
            check(message)


@pytest.mark.parametrize("item", [b"\x80", b"\xa0", b"\xc1\x00", b"\xa1\x60\x00", b"\xe0"], ids=bytes.hex)
def test_two_million_small_things_are_refused(item: bytes) -> None:
    """B-27."""
    with pytest.raises(DecodeError, match="too complex"):
        check(array(*[item] * 2_000_000))


def test_sixteen_megabytes_of_nested_maps_are_refused() -> None:
    """B-27."""
    with pytest.raises(DecodeError, match="too complex"):
        check(array(*[b"\xa1\x60" * 50 + b"\xa0"] * 160_000))


@pytest.mark.parametrize(
    ("item", "cost"),
    [
        (b"\x61a", 4),
        (b"\x80", 16),
        (b"\xa0", 16),
        (b"\xe0", 16),
        (b"\xf8\x20", 16),
        (b"\x81\xf6", 20),
        (b"\xc1\xf6", 20),
        (b"\xa1\x61a\xf6", 24),
        (b"\xa1\x78\x40" + b"k" * 64 + b"\xf6", 25),
        (b"\x58\x80" + bytes(128), 6),
        (b"\x78\x80" + b"a" * 128, 6),
        # In memory 76 bytes and 40 times four; twice, for while it is being decoded.
        (b"\x78\x2b" + b"a" * 39 + "\U0001f600".encode(), 4 + 2 * (76 + 160) // 64),
        (b"\xa1\x78\x2b" + b"a" * 39 + "\U0001f600".encode() + b"\xf6", 24 + 2 * (76 + 160) // 64),
    ],
    ids=lambda parameter: parameter.hex()[:16] if type(parameter) is bytes else str(parameter),
)
def test_the_budget_is_what_the_table_says(item: bytes, cost: int) -> None:
    affordable = (MAX_WORK - 16) // cost
    check(array(*[item] * affordable))
    with pytest.raises(DecodeError, match="too complex"):
        check(array(*[item] * (affordable + 1)))


def test_a_batch_has_as_many_budgets_as_jobs() -> None:
    affordable = (3 * MAX_WORK - 16) // 16
    check(array(*[b"\xa0"] * affordable), budgets=3)
    with pytest.raises(DecodeError, match="too complex"):
        check(array(*[b"\xa0"] * (affordable + 1)), budgets=3)


def test_numbers_in_a_run_cost_a_unit_each() -> None:
    pieces = MAX_WORK // (4 + 256) - 1
    for number in (b"\x00", b"\x18\x20", b"\xf9\x3c\x00", b"\xfa" + bytes(4), b"\xfb" + bytes(8)):
        check(array(*[number] * (256 * pieces)))
        with pytest.raises(DecodeError, match="too complex"):
            check(array(*[number] * (256 * (pieces + 2))))


FLOAT: Final = b"\xfb" + struct.pack(">d", 0.1)
DETECTION: Final = cbor2.dumps(
    {"label": "person", "score": 0.875, "box": {"x_min": 0.1, "y_min": 0.2, "x_max": 0.3, "y_max": 0.4}}
)
LEGITIMATE: Final[dict[str, Callable[[], bytes]]] = {
    "1,000 vectors of 768 floats": lambda: array(*[b"\xa1\x69embedding" + array(*[FLOAT] * 768)] * 1000),
    "1,000 vectors of 768 floats, some of them whole": lambda: array(
        *[array(*([FLOAT] * 63 + [b"\x00"]) * 12)] * 1000
    ),
    "32 texts of 10 KB": lambda: array(*[b"\x79\x27\x10" + b"x" * 10_000] * 32),
    "16 images of 2 MiB": lambda: array(*[b"\x5a\x00\x20\x00\x00" + bytes(2**21)] * 16),
    "16 documents of 2 MiB in Chinese": lambda: array(*[cbor2.dumps("文" * (2**21 // 3))] * 16),
    "1,000 lists of 10 detections": lambda: array(*[array(*[DETECTION] * 10)] * 1000),
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_large_messages_of_the_usual_kind_pass(name: str) -> None:
    check(LEGITIMATE[name]())


def keys(count: int) -> bytes:
    return b"\xba" + struct.pack(">I", count) + b"".join(b"\x78\x3f%063x\x00" % i for i in range(count))


# Of each kind as much as the budget lets through.
DEAREST: Final[dict[str, Callable[[], bytes]]] = {
    "empty maps": lambda: array(*[b"\xa0"] * 62_490),
    "maps of one key": lambda: array(*[b"\xa1\x61a\x00"] * 41_600),
    "nested tags": lambda: array(*[b"\xc1" * 60 + b"\x00"] * 1030),
    "integers of 64 bits": lambda: array(*[b"\x1b" + b"\xff" * 8] * 980_000),
    "runs that break off": lambda: array(*[b"\x00", b"\xf9\x3c\x01"] * 99_000),
    "short texts": lambda: array(*[b"\x63\xe6\x96\x87"] * 160_000),
    "keys": lambda: keys(124_000),
    "text with one rare character": lambda: array(cbor2.dumps("a" * 7_900_000 + "\U0001f600")),
    "32 MiB of text": lambda: array(cbor2.dumps("a" * (2**25 - 10))),
}


@pytest.mark.parametrize("name", DEAREST)
def test_what_the_budget_admits_is_soon_decoded_and_encoded(name: str) -> None:
    """A quarter of a second each on a slow machine; the limits here leave room for a busy one."""
    raw = DEAREST[name]()
    gc.collect()
    started = time.process_time()
    cbor2.dumps(decode_item(raw))
    assert time.process_time() - started < 2.5


@pytest.mark.parametrize(
    "name", ["maps of one key", "keys", "text with one rare character", "32 MiB of text"]
)
def test_what_the_budget_admits_takes_little_memory(name: str) -> None:
    """64 MiB beside the message itself, and some more while it is being decoded."""
    raw = DEAREST[name]()
    tracemalloc.start()
    try:
        value = cbor2.loads(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert value
    assert peak < 80 * 2**20


def test_the_last_item_counts_too() -> None:
    """A text is charged when it has been read: nothing may follow that would notice."""
    with pytest.raises(DecodeError, match="too complex"):
        check(cbor2.dumps("a" * 30_000_000 + "\U0001f600"))


# --- Outputs ----------------------------------------------------------------------------------------------


def split_output(raw: bytes) -> tuple[list[tuple[str, bytes]], list[int], int] | None:
    return split_entries(raw, "worker_output", "output")


def output(*entries: bytes) -> bytes:
    return b"\xa2\x64type\x6dworker_output\x66output" + array(*entries)


@given(worker_output_wire())
@settings(max_examples=50)
def test_output_is_cut_into_its_entries(wire: dict[str, Any]) -> None:
    raw = cbor2.dumps(wire)
    split = split_output(raw)
    assert split is not None
    entries, failed, malformed = split
    assert [job_id for job_id, _ in entries] == [entry["id"] for entry in wire["output"]]
    assert [entry for _, entry in entries] == [cbor2.dumps(entry) for entry in wire["output"]]
    assert failed == [index for index, entry in enumerate(wire["output"]) if "error" in entry]
    assert malformed == 0


def reference_split(raw: bytes) -> tuple[list[tuple[str, Any]], int] | None:
    """The same through the decoder; ValueError where the profile forbids it."""
    wire = strictly_decoded(raw)
    if type(wire) is not dict or wire.get("type") != "worker_output":
        return None
    if type(wire.get("output")) is not list:
        return None
    good = []
    for entry in wire["output"]:
        if type(entry) is dict:
            job_id = entry.get("id", cbor2.undefined)
            if job_id is cbor2.undefined:
                job_id = entry.get("job_id")
            if type(job_id) is str:
                good.append((job_id, entry))
    return good, len(wire["output"]) - len(good)


class OddOutputs(Grammar):
    """Outputs with odd entries, in odd order, with odd heads."""

    def message(self) -> bytes:
        fields = [
            (b"\x64type", self._random.choice([b"\x6dworker_output"] * 9 + [b"\x61x", b"\x05"])),
            (b"\x66output", self.members() if self._random.random() < 0.9 else self.item()),
            *self._random.choice([[]] * 5 + [[(b"\x61z", self.item())], [(b"\x64type", b"\x00")]]),
        ]
        self._random.shuffle(fields)
        return self.fields(fields)

    def members(self) -> bytes:
        entries = [self.entry() for _ in range(self._random.randrange(4))]
        return self.head(4, len(entries)) + b"".join(entries)

    def entry(self) -> bytes:
        if self._random.random() < 0.1:
            return self.item()
        names = [b"\x62id", b"\x66job_id", b"\x78\x02id", b"\x65error", b"\x61x", b"\x61y"]
        ids = [b"\x61a", b"\x78\x01b", b"\x79\x00\x01c", b"\x60", b"\xf7", b"\xf6", b"\x05", b"\x41a"]
        chosen = self._random.sample(names, self._random.randrange(5))
        return self.fields([(name, self._random.choice([*ids, self.item()])) for name in chosen])

    def fields(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        return self.head(5, len(fields)) + b"".join(key + value for key, value in fields)


@given(st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_cuts_exactly_what_the_decoder_would_decode(random: Random) -> None:
    compare_split(OddOutputs(random).message())


def test_cuts_exactly_what_the_decoder_would_decode_thousands_of_times() -> None:
    """B-41, B-66."""
    random = Random(20261122)
    friendly, hostile = OddOutputs(random), OddOutputs(random, hostile=True)
    for _ in range(1000):
        for raw in (friendly.message(), hostile.message()):
            compare_split(raw)
            compare_split(friendly.damage(raw))


def compare_split(raw: bytes) -> None:
    try:
        expected = reference_split(raw)
    except ValueError:
        # Another message may be anything: nobody has looked at all of it yet.
        with contextlib.suppress(DecodeError):
            assert split_output(raw) is None
        return
    split = split_output(raw)
    if expected is None:
        assert split is None
        return
    assert split is not None
    entries, failed, malformed = split
    decoded = [(job_id, strictly_decoded(entry)) for job_id, entry in entries]
    assert repr((decoded, malformed)) == repr(expected)
    assert failed == [index for index, (_, entry) in enumerate(expected[0]) if "error" in entry]


@pytest.mark.parametrize(
    "entry",
    [
        b"\xa1\x62id\x61a",
        b"\xb9\x00\x01\x62id\x61a",  # as cbor-x writes objects
        b"\xa2\x61x\x00\x62id\x61a",
        b"\xa1\x62id\x78\x01a",
        b"\xa1\x62id\x79\x00\x01a",
        b"\xa1\x66job_id\x61a",
        b"\xa2\x66job_id\x61b\x62id\x61a",
        b"\xa2\x62id\xf7\x66job_id\x61a",
        # Ninety-eight fields, the first of which looks like an id to whoever looks at the wrong place.
        b"\xb8\x62\x69dcheating\x00"
        + b"".join(b"\x62%02d\x00" % number for number in range(96))
        + b"\x62id\x61a",
    ],
    ids=lambda entry: entry.hex()[:24],
)
def test_finds_the_id(entry: bytes) -> None:
    assert split_output(output(entry)) == ([("a", entry)], [], 0)


@pytest.mark.parametrize(
    "entry",
    [b"\xa0", b"\xf6", b"\x80", b"\xa1\x62id\x05", b"\xa2\x62id\x05\x66job_id\x61a", b"\xc1\xa1\x62id\x61a"],
    ids=bytes.hex,
)
def test_counts_members_that_are_no_entries(entry: bytes) -> None:
    """B-66, P-23: the good ones count all the same."""
    good = b"\xa1\x62id\x61g"
    assert split_output(output(entry, good)) == ([("g", good)], [], 1)


def test_what_stands_behind_an_empty_entry_is_no_id_of_it() -> None:
    assert split_output(output(b"\xa0", b"\x62id", b"\x61a")) == ([], [], 3)


@pytest.mark.parametrize(
    "raw", [b"\x80", b"\xa0", b"\xa1\x64type\x61x", b"\xa1\x66output\x80", b"\xa1\x64type\x05"]
)
def test_leaves_other_messages_alone(raw: bytes) -> None:
    assert split_output(raw) is None


@pytest.mark.parametrize("raw", [b"\xa1\x64type\x6dworker_output", output()[:-5] + b"\xa0"])
def test_what_has_no_list_has_no_entries(raw: bytes) -> None:
    assert split_output(raw) is None


def test_other_messages_of_entries_are_cut_likewise() -> None:
    entry = b"\xa2\x62id\x61a\x64text\x61x"
    raw = b"\xa2\x64type\x6fworker_progress\x68progress" + array(entry, b"\x00")
    assert split_entries(raw, "worker_progress", "progress") == ([("a", entry)], [], 1)
    assert split_output(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        output(*[b"\xf6"] * 500_000),
        output(*[b"\xa0"] * 500_000),
        output(*[b"\xa1\x62id\x60"] * 300_000),
        output(*[b"\xa1\x66job_id\x60"] * 300_000),
        b"\xba\x00\x10\x00\x00" + b"".join(b"\x63%03x\x00" % i for i in range(4096)) + b"\x60\x00" * 2**20,
        b"\xba\x00\x10\x00\x00\x64type\x6dworker_output"
        + b"".join(b"\x68%08x\x00" % i for i in range(2**20)),
    ],
    ids=["nulls", "empty maps", "ids", "job_ids", "short keys", "keys"],
)
def test_outputs_of_too_many_members_are_refused(raw: bytes) -> None:
    """B-66: a million entries."""
    started = time.process_time()
    with pytest.raises(DecodeError):
        split_output(raw)
    assert time.process_time() - started < 2.5


def test_a_thousand_results_of_every_usual_kind_pass() -> None:
    vector = b"\xa3\x62id\x63abc\x69embedding" + array(*[FLOAT] * 768) + b"\x65shape\x81\x19\x03\x00"
    detections = b"\xa2\x6adetections" + array(*[DETECTION] * 10) + b"\x62id\x63abc"
    for entry in (vector, detections):
        split = split_output(output(*[entry] * 1000))
        assert split is not None
        assert split[0] == [("abc", entry)] * 1000
