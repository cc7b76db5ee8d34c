"""What stands in a batch: the model passes, faults are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.case_tests import complaint
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Job


class TestContents(EngineCases):
    CASES = ("ORB-BAT-06", "ORB-BAT-07", "ORB-BAT-08", "ORB-BAT-12")
    SAYS: ClassVar = {
        "empty-input-left-out": "below 'input', even an empty one",
        "flat-jobs": "a job with the fields ['conformance', 'id', 'text']",
        "clients-ids": "both have the id",
        "extras-dropped": "a job without 'priority'",
        "batches-of-any-weight": "above 1 MiB",
    }


def test_heavy_batches_are_within_the_text(tmp_path: Path) -> None:
    faulty = mutants()["batches-of-any-weight"].faulty
    assert judge("ORB-BAT-12", tmp_path, engine=faulty, profile="spec").verdict is Verdict.NON_STRICT


class ExtrasShadowIds(ModelEngine):
    """A client's field "id" wins over the engine's."""

    def wire_for(self, job_id: str, job_input: Any, wire: dict[str, Any]) -> dict[str, Any]:
        own = {"id": wire["id"]} if "id" in wire else {}
        return {**super().wire_for(job_id, job_input, wire), **own}


class ExtrasAsText(ModelEngine):
    def wire_for(self, job_id: str, job_input: Any, wire: dict[str, Any]) -> dict[str, Any]:
        out = super().wire_for(job_id, job_input, wire)
        return {name: value if name in ("id", "input") else str(value) for name, value in out.items()}


class EmptyIds(ModelEngine):
    """Takes the empty text for an identifier like any other, and uses it first."""

    def new_id(self, wire: dict[str, Any]) -> str:
        return super().new_id(wire) if wire["worker_type"] == "caption" else ""


@pytest.mark.parametrize(
    ("case_id", "engine", "words"),
    [
        ("ORB-BAT-07", ExtrasShadowIds, "both have the id 'mine'"),
        ("ORB-BAT-08", ExtrasAsText, "'priority' is '5'"),
        ("ORB-BAT-06", EmptyIds, "a text that is not empty"),
    ],
)
def test_other_faults_are_named(case_id: str, engine: type[ModelEngine], words: str, tmp_path: Path) -> None:
    assert words in complaint(judge(case_id, tmp_path, engine=engine, profile="spec"))


class NamesItsBatches(ModelEngine):
    def batch_for(self, jobs: list[Job]) -> dict[str, Any]:
        return {"type": "batch", **super().batch_for(jobs)}


def test_more_than_inputs_is_within_the_text_only(tmp_path: Path) -> None:
    mild = judge("ORB-BAT-06", tmp_path / "mild", engine=NamesItsBatches, profile="spec")
    assert mild.verdict is Verdict.PASS
    strict = judge("ORB-BAT-06", tmp_path / "strict", engine=NamesItsBatches, profile="orbtrio")
    assert strict.verdict is Verdict.FAIL
