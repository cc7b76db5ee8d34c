"""What workers find in place of references: right engines pass, each fault is told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from orbtrio.conformance.cases import resources
from orbtrio.conformance.model import Verdict, Violation, catalogue
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import EngineCases, judge, stage_around

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Client
    from orbtrio.conformance.zoo.files import Resource
    from orbtrio.conformance.zoo.wire import Connection


class TestResources(EngineCases):
    CASES = tuple(f"ORB-RES-0{number}" for number in range(1, 7))
    FAULT_EXAMPLES = 3
    FAULT_PROFILE = "spec"
    # In zoo/test_faulty_resources.py.
    LEFT_OUT = frozenset({("pictures-in-text-mode", "ORB-RES-02")})
    SAYS: ClassVar = {
        "relative-path": "which is not absolute",
        "text-mode": "they differ from byte",
        "first-64-kib": "65536 bytes",
        "resources-of-any-size": "a resource of 2097153 bytes; seen: client#1 is still connected",
        "too-big-1008": "closed with 1008",
        "limit-of-1-mib": "client#1 closed with 1009",
        "missing-resources-pass": "is still connected",
        "refused-files-stay": "no file of a refused request stays in the store",
        "unused-resources-pass": "a resource that no job refers to",
    }


class HangsUp(ModelEngine):
    def refuse(self, connection: Connection, problem: str) -> None:
        self.drop(connection)


class DecimalMegabytes(ModelEngine):
    def may_be_stored(self, resource: Resource) -> bool:
        return len(resource.data) <= 2_000_000


class CountsCharacters(ModelEngine):
    def may_be_stored(self, resource: Resource) -> bool:
        return len(resource.data.decode("utf-8", "replace")) <= 2 * 1024 * 1024


class NullsForFiles(ModelEngine):
    def path_for(self, resource: Resource) -> str:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize("case_id", ["ORB-RES-03", "ORB-RES-05", "ORB-RES-06"])
def test_an_end_without_a_code_works_but_is_not_strict(case_id: str, tmp_path: Path) -> None:
    assert judge(case_id, tmp_path / "1", profile="spec", engine=HangsUp).verdict is Verdict.NON_STRICT
    assert judge(case_id, tmp_path / "2", profile="orbtrio", engine=HangsUp).verdict is Verdict.FAIL


def test_two_megabytes_are_what_the_text_leaves_open(tmp_path: Path) -> None:
    result = judge("ORB-RES-04", tmp_path / "1", profile="spec", engine=DecimalMegabytes)
    assert (result.verdict, result.reading) == (Verdict.PASS, "2 MB")
    assert judge("ORB-RES-04", tmp_path / "2", engine=DecimalMegabytes).verdict is Verdict.FAIL


def test_documents_may_be_counted_in_characters(tmp_path: Path) -> None:
    plan = {"excess": 1, "kind": "wide document", "others": 0}
    stage = stage_around(CountsCharacters, tmp_path)
    assert resources.too_big_closes(stage, plan) == "characters"
    (tmp_path / "2").mkdir()
    assert resources.too_big_closes(stage_around(ModelEngine, tmp_path / "2"), plan) == "1009"


def test_neither_accepted_nor_refused_is_a_violation(tmp_path: Path) -> None:
    class Deaf(ModelEngine):
        overheard = False

        def store(self, resources: dict[str, Resource], tenant: str) -> None:
            self.overheard = any(len(resource.data) > 2_000_000 for resource in resources.values())
            super().store({} if self.overheard else resources, tenant)

        def take_job(self, client: Client, wire: Any, resources: dict[str, Resource]) -> None:
            if not self.overheard:
                super().take_job(client, wire, resources)

    result = judge("ORB-RES-04", tmp_path, profile="spec", engine=Deaf)
    assert result.counterexample is not None
    assert result.counterexample.seen == "neither"


def test_what_is_no_path_is_shown(tmp_path: Path) -> None:
    result = judge("ORB-RES-01", tmp_path, profile="spec", engine=NullsForFiles)
    assert result.counterexample is not None
    assert result.counterexample.seen == "null"


def test_fields_beside_a_reference_are_looked_at(tmp_path: Path) -> None:
    class Forgetful(ModelEngine):
        def resolve(self, value: object, found: dict[str, Resource]) -> object:
            resolved = super().resolve(value, found)
            return {**resolved, "a": 0} if isinstance(resolved, dict) and "a" in resolved else resolved

    plan = {"id": "x", "field": "file", "document": True, "beside": {"a": "text"}}
    case = catalogue()["ORB-RES-01"]
    with pytest.raises(Violation, match="arrives as it was sent"):
        case.play(stage_around(Forgetful, tmp_path), plan)


def test_without_files_to_see_most_cases_are_skipped_with_advice(tmp_path: Path) -> None:
    result = judge("ORB-RES-01", tmp_path, conditions=Conditions(files=False))
    assert result.verdict is Verdict.SKIP
    assert "on the target's machine" in result.reason
    assert judge("ORB-RES-05", tmp_path / "2", conditions=Conditions(files=False)).verdict is Verdict.PASS


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    stage = stage_around(ModelEngine, tmp_path)
    with pytest.raises(Violation, match="cannot be read"):
        resources.expect_content(stage, tmp_path, b"x", "job 'j1'")
