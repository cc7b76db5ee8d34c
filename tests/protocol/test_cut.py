"""What is cut arrives as the decoder would have understood it, and nothing else is let through."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import cbor2
import pytest
from hypothesis import given, settings

from orbtrio.errors import DecodeError
from orbtrio.protocol import codec
from orbtrio.protocol.connection import Connection, Side
from orbtrio.protocol.cut import OUTPUTS, PROGRESS, Form, Luck, cut_entries
from orbtrio.protocol.messages import WorkerOutput
from orbtrio.protocol.registration import RegisterWorker
from orbtrio.protocol.scan import split_entries
from tests.protocol.test_scan import OddOutputs, array
from tests.strategies import worker_output_wire

OUTPUT: Final = OUTPUTS[0][0]
FORMS: Final = ["usual", "cbor-x", "sorted", "sorted by cbor-x"]


def output(*entries: bytes, form: Form = OUTPUTS[0]) -> bytes:
    return form[0] + array(*entries) + form[1]


def cut_output(
    raw: bytes, *, typed_arrays: bool = False
) -> tuple[list[tuple[str, bytes]], list[int], int] | None:
    return cut_entries(raw, OUTPUTS, Luck(), typed_arrays=typed_arrays)


def entry(number: int, rest: bytes = b"\x64text\x61x") -> bytes:
    return b"\xa2\x62id\x72a1b2c3d4e5f60718-%d" % (number % 10) + rest


def walked(raw: bytes, *, typed_arrays: bool = False) -> object:
    """What the walk makes of an output; False if it refuses it."""
    try:
        return split_entries(raw, "worker_output", "output", typed_arrays=typed_arrays)
    except DecodeError:
        return False


NAMED_FIRST: Final = [
    b"\xa2\x62id\x72a1b2c3d4e5f60718-1\x64text\x61x",
    b"\xa1\x62id\x72a1b2c3d4e5f60718-2",
    b"\xa3\x62id\x72a1b2c3d4e5f60718-3\x64text\x61x\x65error\x61e",
]
BY_CBORX: Final = [
    b"\xb9\x00\x02" + NAMED_FIRST[0][1:],
    b"\xb9\x00\x01" + NAMED_FIRST[1][1:],
    b"\xb9\x00\x02" + NAMED_FIRST[0][1:],
]
NAMED_LAST: Final = [b"\xa2\x64text\x63abc\x62id\x61%d" % number for number in range(3)]


@pytest.mark.parametrize("form", OUTPUTS, ids=FORMS)
@pytest.mark.parametrize(
    "entries",
    [
        [entry(0)],
        [entry(number) for number in range(2)],
        [entry(number) for number in range(32)],
        [entry(number) for number in range(300)],
        NAMED_FIRST,
        BY_CBORX,
        NAMED_LAST,
        NAMED_LAST[:1],
    ],
    ids=["1", "2", "32", "300", "different fields", "cbor-x", "id last", "one with its id last"],
)
def test_small_outputs_of_usual_forms_are_cut(entries: list[bytes], form: Form) -> None:
    split = cut_entries(output(*entries, form=form), OUTPUTS, Luck())
    assert split == walked(output(*entries, form=form))
    assert split is not None
    assert [one for _, one in split[0]] == entries


@pytest.mark.parametrize("form", PROGRESS, ids=FORMS)
def test_progress_is_cut_like_outputs(form: Form) -> None:
    raw = output(entry(1), entry(2), form=form)
    split = cut_entries(raw, PROGRESS, Luck())
    assert split is not None
    assert split == split_entries(raw, "worker_progress", "progress")
    assert cut_entries(raw, OUTPUTS, Luck()) is None


def vector(numbers: int) -> bytes:
    return b"\x61v" + cbor2.dumps([number + 0.5 for number in range(numbers)])


@pytest.mark.parametrize(
    ("fields", "is_cut"),
    [
        (vector(20), True),
        (vector(40), True),
        (vector(100), False),
        (vector(300), False),
        (vector(400), False),
        (b"\x61v\x98\xc8" + bytes(range(10, 20)) * 20, False),
        (b"\x61v\x98\xc8" + bytes(range(10, 20)) * 10 + b"\x18\xff" * 100, True),
        (b"\x61v\x98\xc8" + b"\x61a" * 200, True),
        (b"\x61v" + b"\x8a" + (b"\x98\x20" + b"\xf9\x3c\x00" * 32) * 10, False),
        (b"\x61v\x78\xc8" + "\u0618".encode() * 100, True),
    ],
    ids=["20", "40", "100", "300", "400", "integers", "mixed", "texts", "ten lists", "letters like lists"],
)
def test_only_long_lists_of_numbers_are_left_to_the_walk(fields: bytes, is_cut: bool) -> None:
    raw = output(*[entry(number, fields) for number in range(4)])
    assert (cut_output(raw) is not None) == is_cut
    assert walked(raw)
    if is_cut:
        assert cut_output(raw) == walked(raw)


def test_errors_are_noted_and_long_ones_cut() -> None:
    entries = [
        entry(0),
        entry(1, b"\x65error\x61x"),
        entry(2, b"\x65error" + cbor2.dumps("e" * 9000)),
        *(entry(number) for number in range(20)),
    ]
    split = cut_output(output(*entries))
    assert split is not None
    assert split[1] == [1, 2]
    message = codec.decode(output(*entries))
    assert isinstance(message, WorkerOutput)
    assert len(message.entries[2][1]) < 9000 < len(entries[2])


@pytest.mark.parametrize(
    "raw",
    [
        OUTPUT,
        OUTPUT + b"\x05",
        output(),
        b"\xa2\x66output\x80\x64type\x6dworker_output",
        output(entry(1, b"\x64text" + cbor2.dumps("x" * 5000))),
        output(*[entry(1, b"\x64text" + cbor2.dumps("x" * 900))] * 80),
        output(*NAMED_LAST, b"\xa1" + NAMED_LAST[0][9:]),
        output(entry(1), entry(2), b"\x05"),
        OUTPUT + b"\x82\xa1\x7b",
        output(entry(1), entry(2)[:-1] + b"\xff"),
        output(entry(1, b"\x64text" + cbor2.dumps(entry(1)[:21])), entry(2)),
        output(entry(1), entry(2)) + b"\x00",
        output(b"\xa1\x66job_id\x61a"),
        output(b"\xa1\x62id\x05"),
        output(b"\x05"),
        output(entry(1, b"\x41x\x05")),
    ],
    ids=[
        "ends early",
        "no list",
        "empty",
        "other order",
        "large entry",
        "walked",
        "different fields, id last",
        "no map at the end",
        "ends in a head",
        "no UTF-8",
        "looks like the next",
        "behind",
        "job_id",
        "id is a number",
        "no map",
        "key of bytes",
    ],
)
def test_other_outputs_are_left_to_the_walk(raw: bytes) -> None:
    assert cut_output(raw) is None


def test_typed_arrays_are_left_to_the_walk_where_they_mean_something() -> None:
    typed = output(entry(1, b"\x61v\xd8\x51\x44\x00\x00\x00\x00"))
    assert cut_output(typed) == walked(typed)
    assert cut_output(typed, typed_arrays=True) is None
    tagged = output(entry(1, b"\x61v\xc1\x00"))
    assert cut_output(tagged, typed_arrays=True) == walked(tagged, typed_arrays=True)


@pytest.mark.parametrize("levels", [59, 60, 61, 62])
def test_depth_is_counted_from_the_deepest_message_that_will_hold_an_entry(levels: int) -> None:
    raw = output(entry(1, b"\x61x" + b"\x81" * levels + b"\x00"))
    assert (cut_output(raw) is not None) == (walked(raw) is not False) == (levels < 61)


@given(worker_output_wire())
@settings(max_examples=50)
def test_outputs_are_cut_as_the_walk_cuts_them(wire: dict[str, Any]) -> None:
    raw = cbor2.dumps(wire)
    split = cut_output(raw)
    assert split is None or split == walked(raw)


def test_outputs_are_cut_as_the_walk_cuts_them_thousands_of_times() -> None:
    """B-41, B-66."""
    random = Random(20261124)
    cut = 0
    for outputs in (UsualOutputs(random), UsualOutputs(random, hostile=True)):
        for _ in range(1500):
            raw = outputs.message()
            for one in (raw, outputs.damage(raw)):
                typed_arrays = random.random() < 0.5
                split = cut_output(one, typed_arrays=typed_arrays)
                assert split is None or split == walked(one, typed_arrays=typed_arrays), one.hex()
                cut += split is not None
    assert cut > 800


class UsualOutputs(OddOutputs):
    """Outputs of the forms that are known, and mostly usual entries."""

    def message(self) -> bytes:
        before, behind = self._random.choice(OUTPUTS)
        self._last = self._random.random() < 0.3
        return before + self.members() + behind

    def entry(self) -> bytes:
        random = self._random
        if random.random() < 0.1:
            return super().entry()
        value = self.item() if random.random() < 0.3 else random.choice([b"\x61x", vector(99)[2:]])
        fields = [(b"\x62id", b"\x72a1b2c3d4e5f60718-%d" % random.randrange(10))]
        fields += [(random.choice([b"\x64text", b"\x65error"]), value)] * random.choice([1, 1, 1, 0])
        return self.fields(fields[::-1] if self._last else fields)


# --- Luck -------------------------------------------------------------------------------------------------


def test_who_is_out_of_luck_is_spared_more_and_more_guesses() -> None:
    """One that fails has cost as much as the message: one in 64 at last."""
    good, bad = output(entry(1), entry(2)), output(entry(1, b"\x61v\x41"), entry(2))
    luck = Luck()
    pauses = []
    for _ in range(8):
        assert cut_entries(bad, OUTPUTS, luck) is None
        pauses.append(luck.left)
        while luck.left:
            assert cut_entries(good, OUTPUTS, luck) is None
    assert pauses == [1, 3, 7, 15, 31, 63, 63, 63]
    assert cut_entries(good, OUTPUTS, luck) is not None
    assert cut_entries(good, OUTPUTS, luck) is not None
    assert cut_entries(bad, OUTPUTS, luck) is None
    assert luck.left == 31


@pytest.mark.parametrize(
    "raw",
    [output(entry(1), b"\xa1\x62id\x05"), output(entry(1), b"\x05"), output(entry(1), entry(2)[:-1])],
    ids=["id is a number", "looks like no other", "too short"],
)
def test_whatever_cost_something_is_bad_luck(raw: bytes) -> None:
    luck = Luck()
    assert cut_entries(raw, OUTPUTS, luck) is None
    assert luck.left == 1


def test_what_is_seen_at_once_is_no_bad_luck() -> None:
    luck = Luck()
    for raw in (b"\xa0", output(), output(entry(1, vector(3000)))):
        assert cut_entries(raw, OUTPUTS, luck) is None
    assert luck.left == luck.pause == 0


def test_vectors_are_looked_for_in_one_of_eight_messages() -> None:
    luck = Luck()
    vectors, texts = output(*[entry(1, vector(100))] * 2), output(entry(1))
    assert [cut_entries(raw, OUTPUTS, luck) for raw in [vectors] + [texts] * 7] == [None] * 8
    assert cut_entries(texts, OUTPUTS, luck) is not None
    assert luck.pause == 0


def test_a_connection_remembers_its_luck() -> None:
    """Each message is understood all the same."""
    connection = Connection(Side.ENGINE)
    connection.receive(
        codec.encode(
            RegisterWorker(worker_type="t", worker_secret="secret", extensions=frozenset({"typed_arrays"}))
        )
    )
    entries = [entry(1, b"\x61v\xd8\x51\x44\x00\x00\x00\x00"), b"\xa1\x62id\x05"]
    for _ in range(10):
        message = connection.receive(output(*entries))
        assert isinstance(message, WorkerOutput)
        assert (len(message.entries), message.malformed) == (1, 1)
    assert connection._luck.pause == 7
