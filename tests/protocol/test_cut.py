"""What is cut arrives as the decoder would have understood it, and nothing else is let through."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbtrio.errors import DecodeError
from orbtrio.protocol import codec
from orbtrio.protocol.cut import OUTPUT, REQUESTS, cut_output, cut_request
from orbtrio.protocol.messages import JobRequest, WorkerOutput, WorkerRequest
from orbtrio.protocol.scan import split_entries
from tests.protocol.test_scan import OddOutputs, array, strictly_decoded
from tests.strategies import Grammar, worker_output_wire, worker_request_wire

# --- Outputs ----------------------------------------------------------------------------------------------


def output(*entries: bytes) -> bytes:
    return OUTPUT + array(*entries)


def entry(number: int, rest: bytes = b"\x64text\x61x") -> bytes:
    return b"\xa2\x62id\x72a1b2c3d4e5f60718-%d" % (number % 10) + rest


def walked(raw: bytes, *, typed_arrays: bool = False) -> object:
    """What the walk makes of an output; False if it refuses it."""
    try:
        return split_entries(raw, "worker_output", "output", typed_arrays=typed_arrays)
    except DecodeError:
        return False


@pytest.mark.parametrize("count", [1, 2, 32, 300])
def test_small_outputs_of_the_usual_form_are_cut(count: int) -> None:
    entries = [entry(number) for number in range(count)]
    split = cut_output(output(*entries))
    assert split == walked(output(*entries))
    assert split is not None
    assert [one for _, one in split[0]] == entries


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
        output(entry(1, b"\x64text" + cbor2.dumps("x" * 2000))),
        output(*[entry(1, b"\x64text" + cbor2.dumps("x" * 900))] * 80),
        output(entry(1), b"\xa1" + entry(1)[1:-7]),
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
        "different fields",
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


@pytest.mark.parametrize("levels", [60, 61, 62])
def test_depth_is_counted_from_the_message(levels: int) -> None:
    raw = output(entry(1, b"\x61x" + b"\x81" * levels + b"\x00"))
    assert (cut_output(raw) is not None) == (walked(raw) is not False) == (levels < 62)


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
    assert cut > 500


class UsualOutputs(OddOutputs):
    """Outputs with the head that most have, and mostly usual entries."""

    def message(self) -> bytes:
        return OUTPUT + self.members()

    def entry(self) -> bytes:
        if self._random.random() < 0.1:
            return super().entry()
        value = self.item() if self._random.random() < 0.3 else b"\x61x"
        return entry(self._random.randrange(10), self._random.choice([b"\x64text", b"\x65error"]) + value)


# --- Requests ---------------------------------------------------------------------------------------------


def job(client_job_id: bytes, worker_type: bytes, job_input: bytes) -> bytes:
    return b"\xa3\x66job_id" + client_job_id + b"\x6bworker_type" + worker_type + b"\x65input" + job_input


def request(*jobs: bytes) -> bytes:
    return REQUESTS[0] + array(*jobs)


JOB: Final = job(b"\x61a", b"\x61t", b"\xa1\x61x\x05")


def parts(raw: bytes) -> list[tuple[str, str, Any]] | None:
    jobs = cut_request(raw)
    return None if jobs is None else [(one.client_job_id, one.worker_type, one.encoded) for one in jobs]


@pytest.mark.parametrize("head", REQUESTS, ids=["as any client", "as ours"])
def test_a_usual_request_is_cut_into_its_jobs(head: bytes) -> None:
    inputs = [{"text": "a" * 300, "é": 1}, {}, {"vector": [0.1] * 20, "x": {"y": None}}, {"z": "ü"}]
    names = ["", "b" * 23, "c" * 24, "é" * 100]
    jobs = [
        cbor2.dumps({"job_id": name, "worker_type": f"t{len(name) % 3}", "input": value})
        for name, value in zip(names, inputs, strict=True)
    ]
    expected = [
        (name, f"t{len(name) % 3}", cbor2.dumps(value)) for name, value in zip(names, inputs, strict=True)
    ]
    assert parts(head + array(*jobs)) == expected
    assert cut_request(head + b"\x80") is None


@given(worker_request_wire())
@settings(max_examples=50)
def test_requests_are_cut_as_the_decoder_reads_them(wire: dict[str, Any]) -> None:
    compare_request(cbor2.dumps(wire))


class OddRequests(Grammar):
    """Requests of nearly the usual form."""

    def message(self) -> bytes:
        jobs = [self.job() for _ in range(self._random.randrange(4))]
        return self._random.choice(REQUESTS) + self.head(4, len(jobs)) + b"".join(jobs)

    def job(self) -> bytes:
        choice, odd = self._random.choice, self._random.random() < 0.1
        name = choice([b"\x61a", b"\x60", b"\x78\x02bc", b"\x62\xc3\xa9", self.item() if odd else b"\x61d"])
        worker_type = choice(
            [b"\x61t"] * 5 + [b"\x62uv", b"\x60", b"\x78\x01t", self.item() if odd else b"\x61w"]
        )
        return job(name, worker_type, self.item() if odd else self.input())

    def input(self) -> bytes:
        names = [b"\x61x", b"\x64text", b"\x66__type", b"\x62id", b"\x78\x01y", b"\x62\xc3\xa9"]
        values = [b"\x6cresource-ref", b"\x61a", b"\x79\x01\x00" + b"z" * 256, b"\xf7", b"\x05", self.item()]
        chosen = self._random.sample(names, self._random.randrange(4))
        fields = [name + self._random.choice(values) for name in chosen]
        return self.head(5, len(fields)) + b"".join(fields)


@given(st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_cuts_requests_exactly_as_the_decoder_reads_them(random: Random) -> None:
    compare_request(OddRequests(random).message())


def test_cuts_requests_exactly_as_the_decoder_reads_them_thousands_of_times() -> None:
    random = Random(20261123)
    friendly, hostile = OddRequests(random), OddRequests(random, hostile=True)
    cut = 0
    for _ in range(2000):
        for raw in (friendly.message(), hostile.message()):
            cut += compare_request(raw)
            compare_request(friendly.damage(raw))
    assert cut > 800


def compare_request(raw: bytes) -> bool:
    jobs = cut_request(raw)
    if jobs is None:
        return False
    checked = WorkerRequest.from_wire(strictly_decoded(raw))
    assert not checked.invalid
    assert repr([contents(job) for job in jobs]) == repr([contents(job) for job in checked.jobs])
    for one in jobs:
        if one.encoded is not None:
            assert repr(strictly_decoded(bytes(one.encoded))) == repr(one.input)
            assert bytes(4) not in bytes(one.encoded)
        else:
            assert bytes(4) in raw
    return True


# --- Requests with large inputs ---------------------------------------------------------------------------


class LargeRequests(OddRequests):
    """Requests of nearly the usual form, most of them with large texts."""

    def input(self) -> bytes:
        return super().input() if self._random.random() < 0.05 else self.large_input()

    def large_input(self) -> bytes:
        names = [b"\x61x", b"\x64text", b"\x62id", b"\x78\x01y", b"\x62\xc3\xa9", b"\x78\x18" + b"n" * 24]
        scalars = [b"\x61a", b"\x42\xff\x00", b"\xf7", b"\x05", b"\xfb" + bytes(8), b"\x6cresource-ref"]
        chosen = self._random.sample(names, self._random.randrange(4))
        fields = [name + self._random.choice(scalars) for name in chosen]
        if self._random.random() < 0.1:
            fields.append(self._random.choice([b"\x66__type\x6cresource-ref", b"\x61z" + self.item()]))
        text = self._random.choice(["a", "é", "\x00", "job_id\U0001f600"]) * self._random.randrange(
            1000, 3000
        )
        fields.append(b"\x61t" + self._random.choice([cbor2.dumps(text), cbor2.dumps(text.encode())]))
        return self.head(5, len(fields)) + b"".join(fields)


def test_requests_with_large_inputs_are_cut_exactly_as_the_decoder_reads_them() -> None:
    random = Random(20261125)
    friendly, hostile = LargeRequests(random), LargeRequests(random, hostile=True)
    cut = 0
    for _ in range(400):
        for raw in (friendly.message(), hostile.message()):
            cut += compare_request(raw)
            compare_request(friendly.damage(raw))
    assert cut > 150


LARGE: Final = b"\xa2\x61n\x05\x64text" + cbor2.dumps("é" * 5000)


@pytest.mark.parametrize("count", [1, 32, 100])
def test_large_inputs_stay_as_they_came(count: int) -> None:
    """Also in messages that would be walked if they were of another form."""
    names = [f"{number:03}" for number in range(count)]
    raw = request(*[job(cbor2.dumps(name), b"\x61t", LARGE) for name in names])
    assert parts(raw) == [(name, "t", LARGE) for name in names]
    assert compare_request(raw)


def test_large_inputs_may_have_long_names_and_types_that_change() -> None:
    jobs = [
        job(cbor2.dumps("n" * 30), b"\x61t", LARGE),
        job(b"\x61b", b"\x77" + b"u" * 23, LARGE),
    ]
    assert parts(request(*jobs)) == [("n" * 30, "t", LARGE), ("b", "u" * 23, LARGE)]


@pytest.mark.parametrize(
    "raw",
    [
        request(job(b"\x61a", b"\x61t", LARGE)) + b"\x00",
        request(job(b"\x61a", b"\x61t", LARGE))[:-1],
        request(job(b"\x61a", b"\x61t", LARGE), b"\x05"),
        request(job(b"\x05", b"\x61t", LARGE)),
        request(job(cbor2.dumps("n" * 300), b"\x61t", LARGE)),
        request(job(b"\x61a", b"\x05", LARGE)),
        request(job(b"\x61a", b"\x61t", cbor2.dumps(["x" * 5000]))),
        request(job(b"\x61a", b"\x61t", b"\xb8\x02" + LARGE[1:])),
        request(job(b"\x61a", b"\x61t", LARGE[:-1] + b"\xff")),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x05", b"\xc1\x05"))),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x61n\x05", b"\x41n\x05"))),
        request(job(b"\x61a", b"\x61t", b"\xa3" + LARGE[1:] + LARGE[1:4])),
        request(job(b"\x61a", b"\x61t", b"\xa2\x66__type\x6cresource-ref\x62id" + cbor2.dumps("i" * 2000))),
        request(*[job(b"\x61a", b"\x61t", LARGE)] * 110),
        REQUESTS[0],
    ],
    ids=[
        "behind",
        "too short",
        "no map",
        "id is a number",
        "long id",
        "worker type is a number",
        "input is a list",
        "long head of a map",
        "no UTF-8",
        "tag",
        "key of bytes",
        "the same key twice",
        "input is a reference",
        "too large",
        "ends early",
    ],
)
def test_large_inputs_of_other_forms_are_left_to_the_decoder(raw: bytes) -> None:
    assert cut_request(raw) is None


def contents(job: JobRequest) -> tuple[Any, ...]:
    return job.client_job_id, job.worker_type, job.input, job.extra, job.references


@pytest.mark.parametrize(
    "raw",
    [
        b"\xa2\x64type\x6eworker_request\x64jobs\x05",
        b"\xa2\x64jobs\x80\x64type\x6eworker_request",
        request(b"\x05"),
        request(b"\xa2" + JOB[1:-11]),
        request(JOB, b"\xa4" + JOB[1:] + b"\x61x\x05"),
        request(job(b"\x05", b"\x61t", b"\xa0")),
        request(job(b"\x79\x00\x01a", b"\x61t", b"\xa0")),
        request(job(b"\x61a", b"\x60", b"\xa0")),
        request(job(b"\x61a", b"\x05", b"\xa0")),
        request(job(b"\x61a", b"\x78\x18" + b"t" * 24, b"\xa0")),
        request(JOB.replace(b"worker_type", b"worker_tyqe")),
        request(JOB.replace(b"input", b"inpuu")),
        request(job(b"\x61a", b"\x61t", b"\x80")),
        request(job(b"\x61a", b"\x61t", b"\xa2\x66__type\x6cresource-ref\x62id\x61i")),
        request(job(b"\x61a", b"\x61t", b"\xa1\x61x\x81\x6cresource-ref")),
        request(*[job(b"\x61a", b"\x61t", b"\xa1\x61x" + cbor2.dumps("x" * 900))] * 80),
        request(job(b"\x61a", b"\x61t", b"\xa1\x61x\x68\xa3\x66job_id")),
        request(JOB) + b"\x00",
        request(JOB)[:-1],
        REQUESTS[0] + b"\x82" + JOB,
        REQUESTS[0] + b"\x81\xa3\x66job_id",
        request(job(b"\x61\xff", b"\x61t", b"\xa0")),
        request(job(b"\x61a", b"\x61t", b"\xa1\x41x\x00")),
        REQUESTS[0] + b"\x99\x27\x11" + JOB * 10_001,
    ],
    ids=[
        "no list",
        "other order",
        "no map",
        "no input",
        "one field more",
        "id is a number",
        "long head of an id",
        "empty worker type",
        "worker type is a number",
        "long worker type",
        "no worker type",
        "other field",
        "input is a list",
        "input is a reference",
        "reference in a list",
        "walked",
        "looks like the next",
        "behind",
        "too short",
        "too few",
        "ends in a job",
        "no UTF-8",
        "key of bytes",
        "too many jobs",
    ],
)
def test_requests_of_other_forms_are_left_to_the_decoder(raw: bytes) -> None:
    assert cut_request(raw) is None


@pytest.mark.parametrize("size", [10, 3000], ids=["small", "large"])
@pytest.mark.parametrize("item", [b"\x7b%ba", b"\x5b%ba", b"\x1b%b", b"\x3b%b"])
def test_inputs_with_needlessly_wide_heads_are_encoded_anew(item: bytes, size: int) -> None:
    """P-50: cbor-x in JavaScript cannot read lengths of eight bytes, and would lose the whole batch."""
    wide = b"\xa2\x61x" + item % (1).to_bytes(8, "big") + b"\x61y" + cbor2.dumps("y" * size)
    usual = cbor2.dumps({"x": 0, "y": "y" * size, "z": 0x0123456789})
    jobs = [b"\xa3\x66job_id\x61%c\x6bworker_type\x61t\x65input" % name for name in b"ab"]
    cut = cut_request(REQUESTS[0] + array(jobs[0] + wide, jobs[1] + usual))
    assert cut is not None
    assert cut[0].encoded is None
    assert bytes(cut[1].encoded or b"") == usual
