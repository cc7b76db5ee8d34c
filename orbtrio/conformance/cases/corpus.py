"""Bytes that no well-meaning peer sends, as data: what they are, who sends them, and what is to become of
it.

Each `Vector` is of a row (B-14 to B-71) of the project's table of bad input. They are made when they are
asked for: some are megabytes. Ill-formed and hostile CBOR comes twice, as the whole message and inside one
that is otherwise right, since an engine may well look at those two with different eyes.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.cases.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame
from orbtrio.conformance.cases.items import HUGE, ILL_FORMED, STRANGE, UNUSUAL, random_item
from orbtrio.conformance.notation import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "CLIENT",
    "CORPUS",
    "STRANGER",
    "WORKER",
    "Vector",
    "attacks",
    "noise",
]

# Who sends it: a WebSocket that has not registered yet, or one that has.
STRANGER: Final = "stranger"
CLIENT: Final = "client"
WORKER: Final = "worker"
_EVERYBODY: Final = (STRANGER, CLIENT, WORKER)


# What became of the connection: a close code, "gone" without a close frame, or "open".
_POLICY: Final = ("1008",)
_TOO_BIG: Final = ("1009",)
_OPAQUE: Final = ("1008", "open")


@attrs.frozen(kw_only=True)
class Vector:
    """One piece of bad input.

    Attributes:
        name: Unique; starts with the row.
        what: In words.
        roles: Who sends it.
        make: Its bytes, whole frames, given a worker type that somebody serves.
        required: What is to become of the connection, each as good as the other; see above.
    """

    name: str
    what: str
    roles: tuple[str, ...]
    make: Callable[[str], bytes]
    required: tuple[str, ...]

    @property
    def row(self) -> str:
        """Of the table: ``"B-23"``."""
        return self.name.split()[0]


# --- CBOR ---------------------------------------------------------------------------------------------------


def _text(text: str) -> bytes:
    return encode(text)


def _whole(item: Callable[[], bytes], worker_type: str) -> bytes:
    return frame(BINARY, item())


def _in_input(item: Callable[[], bytes], worker_type: str) -> bytes:
    job = b"\xa3" + _text("job_id") + _text("junk") + _text("worker_type") + _text(worker_type)
    job += _text("input") + b"\xa1" + _text("x") + item()
    return frame(BINARY, b"\xa2" + _text("type") + _text("worker_request") + _text("jobs") + b"\x81" + job)


def _in_output(item: Callable[[], bytes], worker_type: str) -> bytes:
    entry = b"\xa2" + _text("id") + _text("junk") + _text("x") + item()
    return frame(BINARY, b"\xa2" + _text("type") + _text("worker_output") + _text("output") + b"\x81" + entry)


def _cbor_vectors() -> list[Vector]:
    vectors = []
    for items, whole, inside in (
        (ILL_FORMED, _POLICY, _POLICY),
        (STRANGE, _POLICY, _OPAQUE),
        (UNUSUAL, _POLICY, ("open",)),
    ):
        for name, item in items.items():
            what = name.partition(" ")[2]
            # A stranger's message may be too big before it is anything else.
            vectors.append(
                Vector(
                    name=name,
                    what=f"a message that is {what}",
                    roles=_EVERYBODY,
                    make=partial(_whole, item),
                    required=whole + _TOO_BIG,
                )
            )
            if name in HUGE:
                continue
            vectors.append(
                Vector(
                    name=f"{name}, in an input",
                    what=f"a request for a job whose input has {what} in it",
                    roles=(CLIENT,),
                    make=partial(_in_input, item),
                    required=inside,
                )
            )
            vectors.append(
                Vector(
                    name=f"{name}, in an output",
                    what=f"an output whose entry has {what} in it",
                    roles=(WORKER,),
                    make=partial(_in_output, item),
                    required=inside,
                )
            )
    return vectors


# --- Frames -------------------------------------------------------------------------------------------------

_BROKEN: Final = ("1002", "gone")
_MAP: Final = encode({"type": "i_am_server", "version": "1.0.1"})

_FRAMES: Final[Mapping[str, tuple[tuple[str, ...], Callable[[], bytes]]]] = {
    "B-14 a text frame": (("1003",), lambda: frame(TEXT, b"{}")),
    "B-14 a text frame that is no UTF-8": (("1003", "1007", "gone"), lambda: frame(TEXT, b"\xff")),
    "B-15 a frame without a mask": (_BROKEN, lambda: frame(BINARY, _MAP, masked=False)),
    "B-15 reserved bit 1 set": (_BROKEN, lambda: frame(BINARY, _MAP, reserved=4)),
    "B-15 reserved bit 2 set": (_BROKEN, lambda: frame(BINARY, _MAP, reserved=2)),
    "B-15 reserved bit 3 set": (_BROKEN, lambda: frame(BINARY, _MAP, reserved=1)),
    **{f"B-15 opcode {opcode}": (_BROKEN, partial(frame, opcode, _MAP)) for opcode in (3, 7, 11, 15)},
    "B-15 a ping in fragments": (_BROKEN, lambda: frame(PING, b"a", final=False)),
    "B-15 a ping of 126 bytes": (_BROKEN, lambda: frame(PING, b"a" * 126)),
    "B-15 a continuation of nothing": (_BROKEN, lambda: frame(CONTINUATION, _MAP)),
    "B-15 a message inside a message": (
        _BROKEN,
        lambda: frame(BINARY, _MAP[:3], final=False) + frame(BINARY, _MAP),
    ),
    # Nothing of it has come yet, so that an engine may as well wait for it.
    "B-16 a frame of 2^62 bytes": (
        (*_TOO_BIG, *_BROKEN, "open"),
        lambda: frame(BINARY, b"abc", length=2**62),
    ),
    "B-16 a frame of 2^63 bytes": ((*_TOO_BIG, *_BROKEN), lambda: frame(BINARY, b"abc", length=2**63)),
    "B-17 20,000 empty fragments": (
        _POLICY + _TOO_BIG,
        lambda: frame(BINARY, final=False) + frame(CONTINUATION, final=False) * 20_000,
    ),
    "B-18 2,000 pings": (("open", "gone"), lambda: frame(PING, b"flood") * 2_000),
    "B-20 a close with code 0": ((*_BROKEN, "1000"), lambda: frame(CLOSE, bytes(2))),
    "B-20 a close with code 999": ((*_BROKEN, "999"), lambda: frame(CLOSE, b"\x03\xe7")),
    "B-20 a close with code 1006": ((*_BROKEN, "1006"), lambda: frame(CLOSE, b"\x03\xee")),
    "B-20 a close with one byte": (_BROKEN, lambda: frame(CLOSE, b"a")),
    "B-20 a close whose reason is no UTF-8": (
        (*_BROKEN, "1007", "1000"),
        lambda: frame(CLOSE, b"\x03\xe8\xff"),
    ),
    "B-20 three closes": (
        (*_BROKEN, "1000"),
        lambda: frame(CLOSE, b"\x03\xe8") * 3,
    ),
    "B-20 a message behind a close": (
        (*_BROKEN, "1000"),
        lambda: frame(CLOSE, b"\x03\xe8") + frame(BINARY, b"\xff"),
    ),
    "B-21 half a message": (("open",), lambda: frame(BINARY, _MAP[:3], length=len(_MAP))),
}


def _alone(make: Callable[[], bytes], worker_type: str) -> bytes:
    return make()


def _frame_vectors() -> list[Vector]:
    return [
        Vector(
            name=name,
            what=name.partition(" ")[2],
            roles=_EVERYBODY,
            make=partial(_alone, make),
            required=required,
        )
        for name, (required, make) in _FRAMES.items()
    ]


# --- Messages -----------------------------------------------------------------------------------------------


def _request(jobs: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "worker_request", "jobs": jobs, **fields}


def _job(worker_type: Any, job_input: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "job_id": "junk",
        "worker_type": worker_type,
        "input": {} if job_input is None else job_input,
        **fields,
    }


_IMAGE: Final = {"id": "r", "type": "image", "data": b"abc"}
_REFERENCE: Final = {"picture": {"__type": "resource-ref", "id": "r"}}

_MESSAGES: Final[Sequence[tuple[str, str, tuple[str, ...], Callable[[str], Any]]]] = (
    (
        "B-42 an output before registration",
        STRANGER,
        _POLICY,
        lambda kind: {"type": "worker_output", "output": []},
    ),
    ("B-42 an unknown message before registration", STRANGER, _POLICY, lambda kind: {"type": "hello"}),
    ("B-42 a list of messages", STRANGER, _POLICY, lambda kind: [{"type": "i_am_server"}]),
    (
        "B-43 a secret of 1 MB",
        STRANGER,
        _POLICY + _TOO_BIG,
        lambda kind: {"type": "i_am_worker", "worker_secret": "x" * 1_000_000, "worker_config": {}},
    ),
    (
        "B-51 a registration of more than 64 KiB",
        STRANGER,
        _TOO_BIG + _POLICY,
        lambda kind: {"type": "i_am_server", "version": "1.0.1", "x": "x" * 70_000},
    ),
    ("B-52 no jobs", CLIENT, _POLICY, lambda kind: {"type": "worker_request"}),
    ("B-52 null for jobs", CLIENT, _POLICY, lambda kind: _request(None)),
    ("B-52 a map for jobs", CLIENT, _POLICY, lambda kind: _request({"job_id": "j"})),
    ("B-52 100,000 nulls for jobs", CLIENT, _OPAQUE, lambda kind: _request([None] * 100_000)),
    (
        "B-53 a job without an id",
        CLIENT,
        ("open",),
        lambda kind: _request([{"worker_type": kind, "input": {}}]),
    ),
    ("B-53 a list as an id", CLIENT, _OPAQUE, lambda kind: _request([_job(kind, job_id=[1, {"a": 2}])])),
    (
        "B-54 a job without a type",
        CLIENT,
        ("open",),
        lambda kind: _request([{"job_id": "junk", "input": {}}]),
    ),
    ("B-54 a number as a type", CLIENT, ("open",), lambda kind: _request([_job(7)])),
    ("B-55 a text as input", CLIENT, ("open",), lambda kind: _request([_job(kind, "text")])),
    (
        "B-55 an input with our own fields",
        CLIENT,
        ("open",),
        lambda kind: _request([_job(kind, {"id": 1, "job_id": 2, "input": 3}, id="other")]),
    ),
    ("B-58 a reference to nothing", CLIENT, _TOO_BIG, lambda kind: _request([_job(kind, _REFERENCE)])),
    (
        "B-59 a resource that nobody uses",
        CLIENT,
        _TOO_BIG,
        lambda kind: _request([_job(kind)], resources=[_IMAGE]),
    ),
    (
        "B-60 a resource of an unknown type",
        CLIENT,
        _POLICY,
        lambda kind: _request([_job(kind, _REFERENCE)], resources=[{**_IMAGE, "type": "film"}]),
    ),
    (
        "B-60 a resource without data",
        CLIENT,
        _POLICY,
        lambda kind: _request([_job(kind, _REFERENCE)], resources=[{"id": "r", "type": "image"}]),
    ),
    (
        "B-60 resources that are a map",
        CLIENT,
        _POLICY,
        lambda kind: _request([_job(kind)], resources={"r": b"abc"}),
    ),
    (
        "B-61 a resource called ../../../../x",
        CLIENT,
        ("open",),
        lambda kind: _request(
            [_job(kind, {"picture": {"__type": "resource-ref", "id": "../../../../x"}})],
            resources=[{**_IMAGE, "id": "../../../../x"}],
        ),
    ),
    ("B-66 no output", WORKER, _OPAQUE, lambda kind: {"type": "worker_output"}),
    (
        "B-66 a map for an output",
        WORKER,
        _OPAQUE,
        lambda kind: {"type": "worker_output", "output": {"id": "j"}},
    ),
    (
        "B-66 an output of what is no map",
        WORKER,
        ("open",),
        lambda kind: {"type": "worker_output", "output": [None, 1, "a", [], {}, {"id": []}]},
    ),
    (
        "B-67 1,000 answers to nothing",
        WORKER,
        ("open",),
        lambda kind: {"type": "worker_output", "output": [{"id": f"n{number}"} for number in range(1_000)]},
    ),
    ("B-70 a request from a worker", WORKER, _POLICY, lambda kind: _request([_job(kind)])),
    ("B-70 an output from a client", CLIENT, _POLICY, lambda kind: {"type": "worker_output", "output": []}),
    ("B-71 an unknown message, worker", WORKER, ("open",), lambda kind: {"type": "of a later version"}),
    ("B-71 an unknown message, client", CLIENT, ("open",), lambda kind: {"type": "of a later version"}),
    ("B-71 a message without a type", CLIENT, _OPAQUE, lambda kind: {"inputs": []}),
)


def _message(make: Callable[[str], Any], worker_type: str) -> bytes:
    return frame(BINARY, encode(make(worker_type)))


def _message_vectors() -> list[Vector]:
    return [
        Vector(
            name=name,
            what=name.partition(" ")[2],
            roles=(role,),
            make=partial(_message, make),
            required=required,
        )
        for name, role, required, make in _MESSAGES
    ]


CORPUS: Final[Mapping[str, Vector]] = {
    vector.name: vector for vector in [*_frame_vectors(), *_cbor_vectors(), *_message_vectors()]
}


def attacks() -> list[list[str]]:
    """Every vector by every role that may send it: ``[name, role]``."""
    return [[vector.name, role] for vector in CORPUS.values() for role in vector.roles]


# --- Noise (B-41) -------------------------------------------------------------------------------------------


def noise(seed: int, worker_type: str) -> bytes:
    """A message: random bytes, or a good one with some bytes changed, or random CBOR items."""
    generator = random.Random(seed)
    match generator.randrange(3):
        case 0:
            return generator.randbytes(generator.randrange(64))
        case 1:
            good = generator.choice(
                [
                    _MAP,
                    encode(_request([_job(worker_type)])),
                    encode({"type": "worker_output", "output": [{"id": "j"}]}),
                ]
            )
            changed = bytearray(good)
            for _ in range(generator.randint(1, 4)):
                changed[generator.randrange(len(changed))] = generator.randrange(256)
            return bytes(changed)
        case _:
            return random_item(generator, 4)
