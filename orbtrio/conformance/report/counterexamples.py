"""Plans that failed, as files to play again.

A file holds one counterexample with its whole wire log. Its texts are exact, also where a target sent what no
text should contain: JSON escapes it. A person may have edited the plan (one tries "and without the second
job?"), so each field is checked as it is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.model import Role, WireEvent
from orbtrio.conformance.report.words import visible

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from orbtrio.conformance.model import CaseResult, Plan, SuiteResult

__all__ = ["CounterexampleError", "StoredCounterexample", "load_counterexample", "store_counterexample"]

_FORMAT: Final = "orbtrio.conformance.counterexample"
_VERSION: Final = 1


class CounterexampleError(ValueError):
    """A file that is no counterexample, or none of ours; the text says what to do about it."""


@attrs.frozen(kw_only=True)
class StoredCounterexample:
    """A counterexample as read from its file.

    Attributes:
        case_id, role: What failed.
        target: What it was seen on.
        profile, seed, versions: Of that run.
        plan: To play again.
        expected, seen: What should have happened, and what did.
        at: When it was noticed, in seconds.
        failures: How often it failed again, of `repetitions`.
        events: The whole wire log.
    """

    case_id: str
    role: Role
    target: str
    profile: str
    seed: int
    versions: Mapping[str, str]
    plan: Plan
    expected: str
    seen: str
    at: float
    failures: int
    repetitions: int
    events: tuple[WireEvent, ...]


def store_counterexample(
    directory: str | os.PathLike[str], result: CaseResult, suite: SuiteResult, *, name: str | None = None
) -> Path:
    """Write a failed case's plan and log to ``<case>.json``, or ``<name>.json``. Returns the file.

    Raises:
        ValueError: the case has no counterexample.
    """
    found = result.counterexample
    if found is None:
        raise ValueError(f"{result.case.case_id} has no counterexample")
    file = Path(directory) / f"{name or result.case.case_id}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    stored = {
        "format": _FORMAT,
        "version": _VERSION,
        "case": result.case.case_id,
        "title": result.case.title,
        "role": suite.role.value,
        "target": suite.target,
        "profile": suite.profile,
        "seed": suite.seed,
        "versions": dict(suite.versions),
        "plan": found.plan,
        "expected": found.expected,
        "seen": found.seen,
        "at": found.at,
        "failures": found.failures,
        "repetitions": found.repetitions,
        "events": [attrs.asdict(event) for event in found.events],
    }
    file.write_text(json.dumps(stored, indent=1) + "\n", "utf-8", newline="\n")
    return file


def load_counterexample(path: str | os.PathLike[str]) -> StoredCounterexample:
    """Read what `store_counterexample` wrote.

    Raises:
        CounterexampleError: the file is missing, broken or something else.
    """
    file = Path(path)
    try:
        stored = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise CounterexampleError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CounterexampleError(
            f"{file} is no JSON ({visible(str(error), 200)}): give the file as the run wrote it, "
            "DIR/<case>.json"
        ) from error
    kind = stored.get("format") if isinstance(stored, dict) else None
    if kind == "orbtrio.conformance.report":
        raise CounterexampleError(
            f"{file} is a whole report: give the file of one counterexample beside it, for example "
            f"{file.parent / 'ORB-REC-01.json'}"
        )
    if kind != _FORMAT:
        raise CounterexampleError(
            f'{file} is no counterexample of this suite (its "format" is not {_FORMAT!r}): give a '
            "file that a run with --report DIR wrote for a case that failed"
        )
    fields = _Fields(file, stored)
    if fields.get("version", int) != _VERSION:
        raise CounterexampleError(
            f"{file} has version {stored['version']} and this suite reads version {_VERSION}: replay it with "
            "the release that wrote it, or run the case again"
        )
    if "plan" not in stored:
        raise fields.wrong("plan", "missing")
    role = fields.get("role", str)
    if role not in {known.value for known in Role}:
        raise fields.wrong("role", f"{visible(role, 40)!r}")
    events = [_Fields(file, event, f"events[{n}].") for n, event in enumerate(fields.get("events", list))]
    return StoredCounterexample(
        case_id=fields.get("case", str),
        role=Role(role),
        target=fields.get("target", str),
        profile=fields.get("profile", str),
        seed=fields.get("seed", int),
        versions={str(name): str(version) for name, version in fields.get("versions", dict).items()},
        plan=stored["plan"],
        expected=fields.get("expected", str),
        seen=fields.get("seen", str),
        at=fields.seconds("at"),
        failures=fields.get("failures", int),
        repetitions=fields.get("repetitions", int),
        events=tuple(
            WireEvent(
                at=event.seconds("at"),
                peer=event.get("peer", str),
                kind=event.get("kind", str),
                text=event.get("text", str),
            )
            for event in events
        ),
    )


class _Fields:
    # A stored map, whose fields are checked as they are read: somebody may have edited the file.

    def __init__(self, file: Path, stored: Any, path: str = "") -> None:
        self._file = file
        self._path = path
        self._stored = stored
        if not isinstance(stored, dict):
            raise self.wrong("", "no map")

    def get(self, name: str, kind: type) -> Any:
        value = self._stored.get(name)
        if type(value) is not kind:
            raise self.wrong(name, "missing" if name not in self._stored else f"not of type {kind.__name__}")
        return value

    def seconds(self, name: str) -> float:
        kind = int if type(self._stored.get(name)) is int else float
        return float(self.get(name, kind))

    def wrong(self, name: str, how: str) -> CounterexampleError:
        where = (self._path + name).rstrip(".")
        return CounterexampleError(
            f'{self._file}: "{where}" is {how}. Put it right, or run the case again with --report DIR'
        )
