"""The cases of roles pass where all is right, and say what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.dispatch import Worker
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.wire import Refused
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Client
    from orbtrio.conformance.zoo.wire import Connection


class TestRoles(EngineCases):
    CASES = ("ORB-REG-09", "ORB-REG-10", "ORB-REG-11", "ORB-REG-12", "ORB-REG-13")
    SAYS: ClassVar = {
        "second-registration-counts": "both registrations",
        "strangers-tolerated": "as good as any",
        "two-roles": "second role",
        "strict-registration": "does not know",
        "secret-echoed": "comes back",
    }


class Forgiving(ModelEngine):
    """Overlooks what is out of place, and remembers it against nobody."""

    def on_second_registration(self, connection: Connection, message: dict[str, Any]) -> None:
        """Nothing."""

    def on_foreign_message(self, connection: Connection) -> None:
        """Nothing."""


class Changeable(Forgiving):
    """A second registration as a worker replaces the first."""

    def on_second_registration(self, connection: Connection, message: dict[str, Any]) -> None:
        if isinstance(connection.role, Worker) and message["type"] == "i_am_worker":
            self.workers.remove(connection.role)
            self.add_worker(connection, message)


class Lost(Forgiving):
    """A second registration leaves a worker without any work."""

    def on_second_registration(self, connection: Connection, message: dict[str, Any]) -> None:
        if isinstance(connection.role, Worker):
            connection.role.max_open_batches = 0


class Deaf(ModelEngine):
    """Does not listen any more to peers that began with something else."""

    def on_unregistered(self, connection: Connection, message: dict[str, Any]) -> None:
        connection.failed = True


class Resentful(ModelEngine):
    """Remembers what a peer said first, and holds it against its registration."""

    def on_unregistered(self, connection: Connection, message: dict[str, Any]) -> None:
        connection.pinged_at = 0.0

    def add_worker(self, connection: Connection, message: dict[str, Any]) -> Worker:
        if connection.pinged_at is not None:
            raise Refused("not a registration")
        return super().add_worker(connection, message)


class Finicky(ModelEngine):
    """Refuses a client with unknown fields, but only when it sends a job."""

    finicky: frozenset[Connection] = frozenset()

    def add_client(self, connection: Connection, message: dict[str, Any]) -> Client:
        if any(name.startswith("x_") for name in message):
            self.finicky |= {connection}
        return super().add_client(connection, message)

    def on_worker_request(self, client: Client, message: dict[str, Any]) -> None:
        if client.connection in self.finicky:
            raise Refused("request is not valid")
        super().on_worker_request(client, message)


class SilentlyGone(ModelEngine):
    """Ends connections without a close frame."""

    def refuse(self, connection: Connection, problem: str) -> None:
        self.drop(connection)


@pytest.mark.parametrize(
    ("case_id", "engine", "reading"),
    [
        ("ORB-REG-09", Forgiving, "first stands"),
        ("ORB-REG-09", SilentlyGone, "closed otherwise"),
        ("ORB-REG-10", Deaf, "deaf"),
        ("ORB-REG-10", SilentlyGone, "closed otherwise"),
        ("ORB-REG-10", Resentful, "refused"),
        ("ORB-REG-11", Forgiving, "ignored"),
        ("ORB-REG-11", SilentlyGone, "closed otherwise"),
    ],
)
def test_lesser_engines_are_read(
    case_id: str, engine: type[ModelEngine], reading: str, tmp_path: Path
) -> None:
    assert judge(case_id, tmp_path, profile="spec", engine=engine, examples=1).reading == reading


def test_a_client_may_be_refused_for_its_fields_later(tmp_path: Path) -> None:
    result = judge("ORB-REG-12", tmp_path, profile="orbtrio", engine=Finicky)
    assert (result.verdict, result.reading) == (Verdict.FAIL, "refused")


def test_a_registration_that_replaces_another_is_read(tmp_path: Path) -> None:
    result = judge("ORB-REG-09", tmp_path, engine=Changeable)
    assert result.counterexample is not None
    assert "replaces the first" in result.counterexample.seen


def test_a_worker_that_is_kept_without_work_is_a_violation_under_every_profile(tmp_path: Path) -> None:
    result = judge("ORB-REG-09", tmp_path, profile="spec", engine=Lost)
    assert result.verdict is Verdict.FAIL
    assert result.counterexample is not None
    assert "neither kind of job" in result.counterexample.seen


class Indiscreet(ModelEngine):
    """Tells who got the secret wrong what it should have been."""

    def close_reason_for(self, problem: str) -> str:
        return f"{problem}, it is {self.secret}"


def test_the_engines_own_secret_is_never_told(tmp_path: Path) -> None:
    result = judge("ORB-REG-13", tmp_path, profile="spec", engine=Indiscreet)
    assert result.counterexample is not None
    assert "WORKER_SECRET" in result.counterexample.expected
