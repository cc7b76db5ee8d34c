"""Typed arrays: the model passes, and each fault is noticed and named."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.cases.vectors import FORMATS, typed
from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import ExtensionCases, judge

if TYPE_CHECKING:
    from pathlib import Path


class TestVectors(ExtensionCases):
    CASES = ("ORB-EXT-27", "ORB-EXT-28", "ORB-EXT-29")
    SAYS: ClassVar = {
        "typed-arrays-for-everybody": "the answer to who did not ask for typed_arrays",
        "lists-for-everybody": "the answer to who asked for typed_arrays",
        "typed-arrays-at-the-top": "the answer to who did not ask for typed_arrays",
        "typed-arrays-in-one-order": "the answer to who did not ask for typed_arrays",
        "typed-arrays-in-progress": "the progress that is told to who did not ask",
        "broken-typed-arrays-close": "whose neighbour has a typed array that is none",
        "broken-typed-arrays-spoil-all": "whose neighbour has a typed array that is none",
        "broken-typed-arrays-pass": "does not count",
        "typed-arrays-of-everybody": "a client of a worker that did not ask",
    }


@pytest.mark.parametrize("case_id", TestVectors.CASES)
def test_an_engine_that_announces_nothing_of_it_is_not_judged(
    case_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelEngine, "announced", lambda self: ["progress", "batched_responses"])
    assert judge(case_id, tmp_path).verdict is Verdict.SKIP


@pytest.mark.parametrize("tag", FORMATS)
def test_a_typed_array_holds_its_numbers(tag: int) -> None:
    value = typed(tag, [0.5, 2.0])
    assert (value.tag, list(struct.iter_unpack(FORMATS[tag], value.value))) == (tag, [(0.5,), (2.0,)])
