"""Values: how alike two of them are, and what the case makes of engines that change them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import cbor2
import pytest

from orbtrio.conformance.cases.values import EXOTIC_VECTORS, JSON_VECTORS, compare, is_json
from orbtrio.conformance.model import Verdict
from orbtrio.conformance.notation import decode
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Job


@pytest.mark.parametrize("vector", [*JSON_VECTORS, *EXOTIC_VECTORS])
def test_each_vector_is_like_itself_and_of_its_kind(vector: str) -> None:
    value = decode(bytes.fromhex(vector))
    assert compare(value, decode(bytes.fromhex(vector)))[0] == "unchanged"
    assert is_json(value) is (vector in JSON_VECTORS)


@pytest.mark.parametrize(
    ("sent", "got", "degree", "path"),
    [
        (1, 1.0, "JavaScript", ""),
        (1.0, 1, "JavaScript", ""),
        (2**63 + 1, 2**63, "JavaScript", ""),
        (1, 2, "JSON", ""),
        (1, True, "JSON", ""),
        (False, 0, "JSON", ""),
        (0.0, -0.0, "JavaScript", ""),
        (math.nan, math.nan, "unchanged", ""),
        (math.nan, 0.0, "JSON", ""),
        (math.inf, None, "JSON", ""),
        (None, cbor2.undefined, "JSON", ""),
        ("a", b"a", "JSON", ""),
        (b"a", [97], "JSON", ""),
        (b"a", cbor2.CBORTag(64, b"a"), "JavaScript", ""),
        (b"a", cbor2.CBORTag(64, b"b"), "JSON", ""),
        (cbor2.CBORTag(1, 5), cbor2.CBORTag(1, 5), "unchanged", ""),
        (cbor2.CBORTag(1, 5), cbor2.CBORTag(0, 5), "JSON", ""),
        (cbor2.CBORTag(1, 5), cbor2.CBORTag(1, 6), "JSON", ".1()"),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "JSON", ".a[1].b"),
        ({"a": [1, 2.0]}, {"a": [1, 2]}, "JavaScript", ".a[1]"),
        ({"a": 1}, {"b": 1}, "JSON", ""),
        ([1], [1, 1], "JSON", ""),
        ({"a": 1, "b": []}, {"b": [], "a": 1}, "unchanged", ""),
    ],
)
def test_how_alike_two_values_are(sent: Any, got: Any, degree: str, path: str) -> None:
    found, where = compare(sent, got)
    assert found == degree
    assert degree == "unchanged" or where == path


@pytest.mark.parametrize("value", [2**53 + 1, b"", math.inf, [cbor2.undefined], {1: 1}, {"a": b""}])
def test_what_json_cannot_hold(value: Any) -> None:
    assert not is_json(value)


class TestValues(EngineCases):
    CASES = ("ORB-OUT-11",)
    EXAMPLES = 20
    SAYS: ClassVar = {
        "nulls-dropped": "it does not arrive",
        "bytes-become-lists": "byte strings, tags or large integers are changed or refused",
    }


def map_values(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: map_values(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [map_values(item, change) for item in value]
    return change(value)


class WholeNumbers(ModelEngine):
    """Written in JavaScript: 1.0 leaves as 1."""

    def response_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        def change(value: Any) -> Any:
            whole = isinstance(value, float) and abs(value) <= 2**53 and value == int(value)
            return int(value) if whole else value

        return super().response_for(job, map_values(entry, change))


class NoBytes(ModelEngine):
    """Takes no job with a byte string in it."""

    def problem_of(self, client: Any, wire: Any) -> tuple[str, str] | None:
        if b"value" in cbor2.dumps(wire) and isinstance(wire["input"].get("value"), bytes):
            return "invalid_job", "no byte strings"
        return super().problem_of(client, wire)


class RoundedNumbers(ModelEngine):
    def wire_for(self, job_id: str, job_input: Any, wire: dict[str, Any]) -> dict[str, Any]:
        def change(value: Any) -> Any:
            return round(value) if isinstance(value, float) and math.isfinite(value) else value

        return super().wire_for(job_id, map_values(job_input, change), wire)


class NoResult(ModelEngine):
    """Does not pass on results with byte strings in them."""

    def response_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        return {} if isinstance(entry.get("result"), bytes) else super().response_for(job, entry)


@pytest.mark.parametrize(
    ("engine", "in_spec", "in_orbtrio"),
    [
        (WholeNumbers, Verdict.PASS, Verdict.FAIL),
        (NoBytes, Verdict.NON_STRICT, Verdict.FAIL),
        (NoResult, Verdict.NON_STRICT, Verdict.FAIL),
        (RoundedNumbers, Verdict.FAIL, Verdict.FAIL),
    ],
)
def test_profiles_judge_what_javascript_does(
    engine: type[ModelEngine], in_spec: Verdict, in_orbtrio: Verdict, tmp_path: Path
) -> None:
    assert judge("ORB-OUT-11", tmp_path / "spec", engine=engine, profile="spec").verdict is in_spec
    assert judge("ORB-OUT-11", tmp_path / "orbtrio", engine=engine, profile="orbtrio").verdict is in_orbtrio
