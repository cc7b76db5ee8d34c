"""OUT-11: whatever stands in an input or in a result arrives unchanged.

Values are drawn, and kept in plans, as CBOR in hexadecimal: JSON cannot hold most of them. What arrives is
compared kind by kind, since 1, 1.0 and true are equal to Python. There are three degrees of likeness,
because most of the spec is written in TypeScript, where a number has no kind.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import cbor2
from hypothesis import strategies as st

from orbtrio.conformance.model import Plan, case
from orbtrio.conformance.notation import decode, diagnostic, encode

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.players import Job

__all__ = ["EXOTIC_VECTORS", "JSON_VECTORS", "compare", "is_json"]

# RFC 8949, appendix A: what JSON can hold, in definite lengths and with text keys.
_JSON_HEX: Final = (
    "00 01 0a 17 1818 1819 1864 1903e8 1a000f4240 1b000000e8d4a51000 20 29 3863 3903e7 "
    "f90000 f98000 f93c00 fb3ff199999999999a f93e00 f97bff fa47c35000 fa7f7fffff fb7e37e43c8800759c f90001 "
    "f90400 f9c400 fbc010666666666666 f4 f5 f6 60 6161 6449455446 62225c 62c3bc 63e6b0b4 64f0908591 "
    "80 83010203 8301820203820405 "
    "98190102030405060708090a0b0c0d0e0f101112131415161718181819 "
    "a0 a26161016162820203 826161a161626163 a56161614161626142616361436164614461656145"
)
JSON_VECTORS: Final = tuple(_JSON_HEX.split())

# Of the same, what it cannot. Without bignums, whose content no engine should look at, and simple values
# that nobody has assigned.
_EXOTIC_HEX: Final = (
    "1bffffffffffffffff 3bffffffffffffffff f97c00 f97e00 f9fc00 fa7f800000 fa7fc00000 faff800000 "
    "fb7ff0000000000000 fb7ff8000000000000 fbfff0000000000000 40 4401020304 "
    "c074323031332d30332d32315432303a30343a30305a c11a514b67b0 c1fb41d452d9e8200000 d74401020304 "
    "d818456449455446 d82076687474703a2f2f7777772e6578616d706c652e636f6d"
)
EXOTIC_VECTORS: Final = tuple(_EXOTIC_HEX.split())

_DEGREES: Final = ("unchanged", "JavaScript", "JSON")


def is_json(value: Any) -> bool:
    """Whether JSON, and any JavaScript program, can hold it."""
    match value:
        case bool() | None | str():
            return True
        case int():
            return abs(value) <= 2**53
        case float():
            return math.isfinite(value)
        case list():
            return all(map(is_json, value))
        case dict():
            return all(isinstance(key, str) and is_json(item) for key, item in value.items())
        case _:
            return False


def compare(sent: Any, got: Any, path: str = "") -> tuple[str, str]:
    """How alike they are, by the names of the case's readings, and where they differ most.

    "JavaScript" is alike as far as a JavaScript program could tell; "JSON" is not alike.
    """
    match sent, got:
        case (dict(), dict()):
            if sent.keys() != got.keys():
                return "JSON", path
            return _worst(compare(item, got[key], f"{path}.{key}") for key, item in sent.items())
        case (list(), list()):
            if len(sent) != len(got):
                return "JSON", path
            pairs = zip(sent, got, strict=True)
            return _worst(compare(one, other, f"{path}[{index}]") for index, (one, other) in enumerate(pairs))
        case (cbor2.CBORTag(), cbor2.CBORTag()):
            if sent.tag != got.tag:
                return "JSON", path
            return compare(sent.value, got.value, f"{path}.{sent.tag}()")
        case (bytes(), cbor2.CBORTag()):
            # Tag 64 says that a byte string is a Uint8Array.
            return ("JavaScript" if got.tag == 64 and got.value == sent else "JSON"), path
        case (bool(), _) | (_, bool()):
            return ("unchanged" if sent is got else "JSON"), path
        case (float(), float()) if math.isnan(sent) and math.isnan(got):
            return "unchanged", path
        case (float(), float()) if sent == got:
            return ("unchanged" if math.copysign(1, sent) == math.copysign(1, got) else "JavaScript"), path
        case (int() | float(), int() | float()) if type(sent) is not type(got) or isinstance(sent, int):
            if type(sent) is type(got) and sent == got:
                return "unchanged", path
            return ("JavaScript" if float(sent) == float(got) else "JSON"), path
        case _:
            return ("unchanged" if type(sent) is type(got) and sent == got else "JSON"), path


def _worst(found: Any) -> tuple[str, str]:
    return max(found, key=lambda each: _DEGREES.index(each[0]), default=("unchanged", ""))


def _containers(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text(max_size=5) | st.sampled_from(["id", "type", "job_id", "input", "output", "constructor"])
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=8,
    )


_JSON_LEAVES: Final = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
_EXOTIC_LEAVES: Final = (
    st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=16)
    | st.just(cbor2.undefined)
    | st.builds(cbor2.CBORTag, st.sampled_from([0, 1, 37, 258, 1000, 2**32]), st.integers(0, 99))
)


def _deep(depth: int) -> Any:
    value: Any = []
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


_VALUES: Final = (
    (_containers(_JSON_LEAVES) | st.integers(1, 20).map(_deep) | _containers(_JSON_LEAVES | _EXOTIC_LEAVES))
    .map(encode)
    .map(bytes.hex)
)


def _list_of(vectors: tuple[str, ...]) -> str:
    return f"98{len(vectors):02x}" + "".join(vectors)


_PLACE: Final = b"here stands the value"


def _with_value(message: dict[str, Any], value: str) -> bytes:
    return encode(message).replace(encode(_PLACE), bytes.fromhex(value))


@case(
    "ORB-OUT-11",
    "Inputs and results arrive unchanged",
    sentences=("S3.5", "S3.9", "S0.3", "S2.6", "S3.14", "P-51"),
    readings={
        "unchanged": "any CBOR arrives as it was sent: byte strings, tags, large integers, 1.0 as 1.0",
        "JavaScript": "what JavaScript cannot tell apart changes (1.0 to 1, bytes to a Uint8Array)",
        "JSON": "what JSON can hold arrives; byte strings, tags or large integers are changed or refused",
    },
    plans=st.fixed_dictionaries({"input": _VALUES, "result": _VALUES}),
    examples=(
        {"input": "f6", "result": "f6"},
        {"input": "4401020304", "result": "4401020304"},
        {"input": _list_of(JSON_VECTORS), "result": _list_of(JSON_VECTORS)},
        {"input": _list_of(EXOTIC_VECTORS), "result": _list_of(EXOTIC_VECTORS)},
        {"input": encode(_deep(20)).hex(), "result": encode(_deep(20)).hex()},
    ),
    seconds=1.5,
)
def values_arrive_unchanged(stage: EngineStage, plan: Plan) -> str:
    """A job's input has a value of any kind, and so has the worker's result: the examples of RFC 8949, deep
    nesting, empty lists and maps, texts of any script. Both must arrive as they were sent. Whatever JSON
    can hold must not change; byte strings, tagged values, 64-bit integers and the difference between 1 and
    1.0 are told as readings. Plans hold the values in CBOR, the wire log shows them.
    """
    worker = stage.worker(size=1, latency_ms=1)
    client = stage.client()
    job = client.job({"value": _PLACE})
    sent = decode(bytes.fromhex(plan["input"]))
    # Sent in these very bytes: a half float is still one, whatever our own encoder makes of it.
    client.send(_with_value({"type": "worker_request", "jobs": [job.wire()]}, plan["input"]))
    stage.wait(lambda: bool(job.deliveries) or client.closed is not None)
    fields = job.deliveries[0].input if job.deliveries else None
    got = fields.get("value") if isinstance(fields, dict) else None
    there = _judge(stage, f"the input of {job}", sent, got, bool(job.deliveries))
    if not job.deliveries:
        return there
    sent = decode(bytes.fromhex(plan["result"]))
    entry = {"id": job.deliveries[0].id, "result": _PLACE}
    worker.send(_with_value({"type": "worker_output", "output": [entry]}, plan["result"]))
    stage.wait(lambda: bool(client.responses) or worker.closed is not None)
    output = client.responses[0].output if client.responses else None
    result = output if isinstance(output, dict) else {}
    back = _judge(stage, f"the result of {job}", sent, result.get("result"), "result" in result)
    _settle(stage, job)
    return max(there, back, key=_DEGREES.index)


def _judge(stage: EngineStage, what: str, sent: Any, got: Any, arrived: bool) -> str:
    degree, path = compare(sent, got) if arrived else ("JSON", "")
    if degree == "JSON":
        stage.demand(
            not is_json(sent),
            f"{what} arrives as it was sent: {diagnostic(sent)}",
            f"{diagnostic(got)}{f' (it differs at {path})' if path else ''}"
            if arrived
            else "it does not arrive",
        )
    return degree


# A job that was not answered in that way is answered in the usual one.
def _settle(stage: EngineStage, job: Job) -> None:
    if not job.client.responses and job.client.closed is None:
        job.deliveries[-1].worker.answer(job.deliveries[-1])
        stage.wait(lambda: bool(job.client.responses), 0.0)
