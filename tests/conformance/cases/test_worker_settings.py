"""The cases of sizes and latencies pass where all is right, and say what is wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.engine import ModelEngine, given
from orbtrio.conformance.zoo.wire import Refused
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path


class TestWorkerSettings(EngineCases):
    CASES = ("ORB-REG-06", "ORB-REG-07", "ORB-REG-08")
    SAYS: ClassVar = {
        "invalid-size-is-default": "max_batch_size",
        "invalid-latency-is-default": "max_latency_ms",
        "default-size-16": "wait for the default latency",
        "default-latency-5-s": "not before",
    }


class Lenient(ModelEngine):
    """Takes for a size or latency whatever a reader could take for greater than zero."""

    def number(self, config: dict[str, Any], name: str, default: float, most: float = math.inf) -> float:
        value = config.get(name)
        if isinstance(value, int | float) and not value > 0:
            raise Refused("worker_config is not valid")
        return float(value) if type(value) is int else default


class NullRefused(ModelEngine):
    """Takes null for a size that is wrong."""

    def number(self, config: dict[str, Any], name: str, default: float, most: float = math.inf) -> float:
        if name in config and not given(config[name]):
            raise Refused("worker_config is not valid")
        return super().number(config, name, default, most)


@pytest.mark.parametrize(
    ("case_id", "engine", "reading"),
    [
        ("ORB-REG-06", Lenient, "taken"),
        ("ORB-REG-07", Lenient, "taken"),
        ("ORB-REG-08", NullRefused, "refused"),
    ],
)
def test_what_the_text_leaves_open_is_a_reading(
    case_id: str, engine: type[ModelEngine], reading: str, tmp_path: Path
) -> None:
    result = judge(case_id, tmp_path / "spec", profile="spec", engine=engine, examples=1)
    assert result.verdict is Verdict.PASS
    strict = judge(case_id, tmp_path / "orbtrio", profile="orbtrio", engine=engine, examples=1)
    assert (strict.verdict, strict.reading) == (Verdict.FAIL, reading)
