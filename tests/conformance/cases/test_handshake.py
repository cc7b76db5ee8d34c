"""The handshake cases pass where all is right, and say what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from wsproto.events import Request, TextMessage

    from orbtrio.conformance.zoo.wire import Connection


class TestHandshake(EngineCases):
    CASES = (
        "ORB-HSK-01",
        "ORB-HSK-02",
        "ORB-HSK-03",
        "ORB-HSK-04",
        "ORB-HSK-05",
        "ORB-HSK-06",
        "ORB-HSK-07",
        "ORB-HSK-08",
    )
    VERDICTS: ClassVar = {
        ("ORB-HSK-06", "spec"): Verdict.INFO,
        ("ORB-HSK-06", "orbtrio"): Verdict.INFO,
        ("ORB-HSK-08", "spec"): Verdict.SKIP,
    }
    SAYS: ClassVar = {
        "any-path": "accepted on another path",
        "text-frames-obeyed": "nothing that a text frame says is done",
        "text-frames-crash": "process ended",
        "undecodable-1011": "another code",
        "no-close-frame": "without a close frame",
        "fragments-are-messages": "registered in fragments",
        "busy-means-no-pong": "is answered by a pong",
        "good-bye-unanswered": "answered by a close frame",
        "pong-without-payload": "other pongs",
        "any-origin": "any web page",
        "junk-is-fatal": "",
        "patient-handshake": "still connected after 10 s",
    }


class RefusesOtherwise(ModelEngine):
    """Says 400 where 404 or 403 would tell more, and cuts whoever sends text."""

    def status_for(self, request: Request) -> int:
        return min(super().status_for(request), 400)

    def on_text(self, connection: Connection, event: TextMessage) -> None:
        self.drop(connection)


class Indifferent(ModelEngine):
    """Closes nothing."""

    handshake_seconds = 8.0

    def refuse(self, connection: Connection, problem: str) -> None:
        """Nothing."""

    def on_text(self, connection: Connection, event: TextMessage) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("case_id", "engine", "reading"),
    [
        ("ORB-HSK-01", RefusesOtherwise, "refused"),
        ("ORB-HSK-02", RefusesOtherwise, "closed otherwise"),
        ("ORB-HSK-02", Indifferent, "ignored"),
        ("ORB-HSK-03", Indifferent, "kept"),
        ("ORB-HSK-06", RefusesOtherwise, "refused"),
    ],
)
def test_lesser_engines_are_read(
    case_id: str, engine: type[ModelEngine], reading: str, tmp_path: Path
) -> None:
    assert judge(case_id, tmp_path, profile="spec", engine=engine).reading == reading


class Late(ModelEngine):
    """Gives strangers 8 seconds for a handshake."""

    handshake_seconds = 8.0


def test_a_late_end_of_silent_connections_is_no_failure_of_the_rulings(tmp_path: Path) -> None:
    result = judge("ORB-HSK-08", tmp_path, engine=Late)
    assert (result.verdict, result.reading) == (Verdict.NON_STRICT, "late")


def test_without_an_unknown_type_the_case_of_codes_plays_its_other_plans(tmp_path: Path) -> None:
    conditions = Conditions(unknown_type=None)
    assert judge("ORB-HSK-03", tmp_path, conditions=conditions).verdict is Verdict.PASS
