"""Inputs that are cut arrive as the decoder would have understood them, and nothing else is let through."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbtrio.errors import InvalidMessage
from orbtrio.protocol import codec, cut_requests
from orbtrio.protocol.cut import Luck
from orbtrio.protocol.cut_requests import REQUESTS
from orbtrio.protocol.messages import JobRequest, WorkerRequest
from tests.protocol.test_scan import array, strictly_decoded
from tests.strategies import Grammar, worker_request_wire

# As any client may send it.
HEAD: Final = REQUESTS[0][0]


def job(client_job_id: bytes, worker_type: bytes, job_input: bytes) -> bytes:
    return b"\xa3\x66job_id" + client_job_id + b"\x6bworker_type" + worker_type + b"\x65input" + job_input


def request(*jobs: bytes) -> bytes:
    return HEAD + array(*jobs)


def cut_request(raw: bytes) -> list[JobRequest] | None:
    return cut_requests.cut_request(raw, Luck())


JOB: Final = job(b"\x61a", b"\x61t", b"\xa1\x61x\x05")


def parts(raw: bytes) -> list[tuple[str, str, Any]] | None:
    jobs = cut_request(raw)
    return None if jobs is None else [(one.client_job_id, one.worker_type, one.encoded) for one in jobs]


def in_form(form: tuple[bytes, bytes, bytes], jobs: list[bytes]) -> bytes:
    """A request of jobs in the usual form, in another."""
    before, behind, start = form
    written = []
    for one in jobs:
        at = one.index(b"\x65input") + 6
        names, job_input = one[8:at], one[at:]
        if start.endswith(b"input"):
            written.append(start + job_input + b"\x66job_id" + names[:-6])
        else:
            written.append(start + names + job_input)
    return before + array(*written) + behind


SORTED: Final = REQUESTS[4]
FORMS: Final = ["usual", "ours", "cbor-x", "cbor-x with resources", "sorted"]


@pytest.mark.parametrize("form", REQUESTS, ids=FORMS)
@pytest.mark.parametrize("size", [300, 3000], ids=["small", "large"])
def test_a_usual_request_is_cut_into_its_jobs(form: tuple[bytes, bytes, bytes], size: int) -> None:
    inputs = [{"text": "a" * size, "é": 1}, {}, {"vector": [0.1] * 20, "x": {"y": None}}, {"z": "ü" * size}]
    names = ["", "b" * 23, "c" * 24, "é" * 100]
    jobs = [
        cbor2.dumps({"job_id": name, "worker_type": f"t{len(name) % 3}", "input": value})
        for name, value in zip(names, inputs, strict=True)
    ]
    expected = [
        (name, f"t{len(name) % 3}", cbor2.dumps(value)) for name, value in zip(names, inputs, strict=True)
    ]
    assert parts(in_form(form, jobs)) == expected
    assert compare_request(in_form(form, jobs))
    assert cut_request(in_form(form, [])) is None


@given(worker_request_wire())
@settings(max_examples=50)
def test_requests_are_cut_as_the_decoder_reads_them(wire: dict[str, Any]) -> None:
    compare_request(cbor2.dumps(wire))


class OddRequests(Grammar):
    """Requests of nearly the usual form."""

    def message(self) -> bytes:
        before, behind, self._start = self._random.choice(REQUESTS)
        jobs = [self.job() for _ in range(self._random.randrange(4))]
        return before + self.head(4, len(jobs)) + b"".join(jobs) + behind

    def job(self) -> bytes:
        if self._random.random() < 0.03:
            return self.item()
        choice, odd = self._random.choice, self._random.random() < 0.1
        name = choice([b"\x61a", b"\x60", b"\x78\x02bc", b"\x62\xc3\xa9", self.item() if odd else b"\x61d"])
        worker_type = choice(
            [b"\x61t"] * 5 + [b"\x62uv", b"\x60", b"\x78\x01t", self.item() if odd else b"\x61w"]
        )
        job_input = self.item() if odd else self.input()
        if self._start.endswith(b"input"):
            return self._start + job_input + b"\x66job_id" + name + b"\x6bworker_type" + worker_type
        return self._start + job(name, worker_type, job_input)[8:]

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
            assert not has_wide_heads(bytes(one.encoded))
        else:
            assert bytes(4) in raw
    return True


def has_wide_heads(raw: bytes) -> bool:
    """Whether an item, which is proved, has a head of nine bytes where five are enough."""
    at, wide = 0, False
    while at < len(raw):
        major, info = raw[at] >> 5, raw[at] & 31
        size = 1 << info - 24 if info > 23 else 0
        number = int.from_bytes(raw[at + 1 : at + 1 + size], "big") if size else info
        wide |= size == 8 and major < 7 and number < 1 << 32
        at += 1 + size + (number if major in (2, 3) else 0)
    return wide


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
        request(job(b"\x61a", b"\x61t", LARGE[:-1] + b"\xff")),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x05", b"\x98\x66" + b"\xc1\x05" * 102))),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x05", b"\xd8\x19\x05"))),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x05", b"\x9f\xff"))),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x05", b"\x81\x6cresource-ref"))),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x05", b"\x81\x78\x0cresource-ref"))),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x05", b"\x99\x40\x01" + b"\x80" * 0x4001))),
        request(*[job(b"\x61a", b"\x61t", b"\xa1\x61x\x99\xff\xff" + b"\x05" * 0xFFFF)] * 5),
        request(job(b"\x61a", b"\x61t", b"\xa1\x61x\x9b" + bytes(3) + b"\xff" * 5 + b"x" * 2000)),
        request(job(b"\x61a", b"\x61t", LARGE.replace(b"\x61n\x05", b"\x41n\x05"))),
        request(job(b"\x61a", b"\x61t", b"\xa3" + LARGE[1:] + LARGE[1:4])),
        request(job(b"\x61a", b"\x61t", b"\xa2\x66__type\x6cresource-ref\x62id" + cbor2.dumps("i" * 2000))),
        request(*[job(b"\x61a", b"\x61t", LARGE)] * 110),
        HEAD,
    ],
    ids=[
        "behind",
        "too short",
        "no map",
        "id is a number",
        "long id",
        "worker type is a number",
        "input is a list",
        "no UTF-8",
        "many tags",
        "structural tag",
        "indefinite length",
        "a reference, maybe",
        "a reference with a long head",
        "many items",
        "many numbers",
        "more members than bytes",
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
        b"\xff\x81\xa0",
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
        request(job(b"\x61a", b"\x61t", b"\xa1\x61x\x68\xa3\x66job_id")),
        request(JOB) + b"\x00",
        request(JOB)[:-1],
        HEAD + b"\x82" + JOB,
        HEAD + b"\x81\xa3\x66job_id",
        request(job(b"\x61\xff", b"\x61t", b"\xa0")),
        request(job(b"\x61a", b"\x61t", b"\xa1\x41x\x00")),
        HEAD + b"\x99\x27\x11" + JOB * 10_001,
        in_form(SORTED, [JOB]).replace(b"job_id", b"job_ie"),
        in_form(SORTED, [job(b"\x61a", b"\x61t", b"\x05\x66job_id\x61a\x6bworker_type\x61t\x65input\xa1")]),
        SORTED[0] + array(SORTED[2] + b"AAAA" + JOB[10:] + b"\x66job_id\x6cxy") + SORTED[1],
        in_form(SORTED, [job(b"\x61a", b"\x61t", LARGE)]).replace(b"job_id", b"job_ie"),
        in_form(SORTED, [job(b"\x61a", b"\x61t", LARGE)]).replace(b"worker_type\x61", b"worker_typf\x61"),
        in_form(SORTED, [job(b"\x61a", b"\x05", LARGE)]),
        request(JOB)[:-11],
    ],
    ids=[
        "no list",
        "other order",
        "no CBOR",
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
        "looks like the next",
        "behind",
        "too short",
        "too few",
        "ends in a job",
        "no UTF-8",
        "key of bytes",
        "too many jobs",
        "sorted, no id",
        "sorted, two inputs",
        "sorted, id goes on in the input",
        "sorted, large, no id",
        "sorted, large, no worker type",
        "sorted, large, worker type is a number",
        "ends in a field",
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
    cut = cut_request(HEAD + array(jobs[0] + wide, jobs[1] + usual))
    assert cut is not None
    assert cut[0].encoded is None
    assert bytes(cut[1].encoded or b"") == usual


# --- Luck -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        request(JOB, job(b"\x61b", b"\x61t", b"\xa1\x61x\x41")),
        request(JOB, job(b"\x61b", b"\x61t", b"\x80")),
        request(job(b"\x61a", b"\x61t", LARGE), b"\xa4" + job(b"\x61b", b"\x61t", LARGE)[1:]),
        request(job(b"\x61a", b"\x61t", LARGE), b"\xa3"),
    ],
    ids=["refused", "no map", "large, one field more", "large, too short"],
)
def test_who_is_out_of_luck_is_spared_more_and_more_guesses(bad: bytes) -> None:
    luck = Luck()
    good = request(JOB, JOB)
    for pause in (1, 3, 7):
        assert cut_requests.cut_request(bad, luck) is None
        assert luck.left == pause
        while luck.left:
            assert cut_requests.cut_request(good, luck) is None
    assert cut_requests.cut_request(good, luck) is not None
    assert luck.pause == 3


def test_requests_are_understood_the_same_with_and_without_luck() -> None:
    random = Random(20261126)
    cut = 0
    for requests in (OddRequests(random, hostile=True), LargeRequests(random)):
        for _ in range(300):
            for raw in (one := requests.message(), requests.damage(one)):
                unlucky = Luck()
                unlucky.lost()
                assert understood(raw, unlucky) == understood(raw, Luck())
                cut += cut_request(raw) is not None
    assert cut > 100


def understood(raw: bytes, luck: Luck) -> str:
    try:
        message = codec.decode(raw, luck=luck)
    except InvalidMessage as error:
        return repr(error)
    if not isinstance(message, WorkerRequest):
        return type(message).__name__
    return repr(([contents(job) for job in message.jobs], message.invalid, message.resources))
