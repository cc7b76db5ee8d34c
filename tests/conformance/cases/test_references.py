"""Which reference means which file: right engines pass, each fault is told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.cases import references
from orbtrio.conformance.model import Verdict, Violation
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from orbtrio.conformance.zoo.wire import Refused
from tests.conformance.cases.judging import EngineCases, judge, stage_around

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.files import Resource


class TestReferences(EngineCases):
    CASES = tuple(f"ORB-RES-{number}" for number in range(11, 18))
    EXAMPLES = 6
    FAULT_EXAMPLES = 20
    FAULT_PROFILE = "spec"
    # The text allows these, see below.
    LEFT_OUT = frozenset({("copies", "ORB-RES-11"), ("extension-by-type", "ORB-RES-15")})
    SAYS: ClassVar = {
        "a-copy-for-each-job": "are told the same file",
        "one-file-per-id": "they differ from byte",
        "path-traversal": "where its client's other files are",
        "references-at-the-top-only": '{"__type": "resource-ref"',
        "any-map-with-a-type-is-a-reference": "each reference in field 'tree'",
        "no-extension": "which has none",
        "javascript-bytes-refused": "client#1 closed with 1008",
        "latin-1-documents": "they differ from byte",
    }


class NamesAsGiven(ModelEngine):
    def stem(self, resource_id: str) -> str:
        return resource_id.replace("/", "").replace("\0", "")[:100]


class PlainNamesOnly(ModelEngine):
    def stem(self, resource_id: str) -> str:
        if not resource_id.isalnum():
            raise Refused("resource is not valid")
        return resource_id


class Loose(ModelEngine):
    def resolve(self, value: object, found: dict[str, Resource]) -> object:
        if isinstance(value, dict) and value.get("__type") == "resource-ref" and value.get("id") in found:
            return self.path_for(found[value["id"]])
        return super().resolve(value, found)


@pytest.mark.parametrize(
    ("mutant", "case_id", "reading"),
    [("copies", "ORB-RES-11", "by id"), ("extension-by-type", "ORB-RES-15", "by type")],
)
def test_what_the_text_allows_fails_by_the_ruling_only(
    mutant: str, case_id: str, reading: str, tmp_path: Path
) -> None:
    faulty = mutants()[mutant].faulty
    result = judge(case_id, tmp_path / "1", profile="spec", engine=faulty, examples=1)
    assert result.verdict is Verdict.PASS
    assert judge(case_id, tmp_path / "2", engine=faulty).verdict is Verdict.FAIL
    assert reading in result.case.readings


@pytest.mark.parametrize(
    ("engine", "resource_id", "reading"),
    [
        (NamesAsGiven, "line\nbreak", "kept"),
        (NamesAsGiven, "plain", "replaced"),
        (PlainNamesOnly, "../../escaped", "refused"),
        (ModelEngine, "../../escaped", "replaced"),
    ],
)
def test_hostile_ids_may_be_replaced_kept_or_refused(
    engine: type[ModelEngine], resource_id: str, reading: str, tmp_path: Path
) -> None:
    assert references.ids_stay_inside(stage_around(engine, tmp_path), {"id": resource_id}) == reading


def test_a_hostile_id_that_is_followed_is_a_violation(tmp_path: Path) -> None:
    class Astray(NamesAsGiven):
        def path_for(self, resource: Resource) -> str:
            return "/etc/hostname" if ".." in resource.id else super().path_for(resource)

    with pytest.raises(Violation, match="/etc/hostname"):
        references.ids_stay_inside(stage_around(Astray, tmp_path), {"id": ".."})


def test_maps_that_look_nearly_like_references_are_told(tmp_path: Path) -> None:
    plan = {"tree": ["<reference>"], "loose": True}
    assert references.nested_references_are_replaced(stage_around(Loose, tmp_path), plan) == "loose"
