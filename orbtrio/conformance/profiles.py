"""Profiles: which of the behaviours that a case can tell apart are right.

The spec leaves much open, so a case does not judge: it returns a *reading*, the name of the behaviour that
it saw, and a profile says what to make of it. What every reading of the text forbids, a case says itself by
raising `Violation`. So one catalogue serves all profiles, and a profile is data that a user can write:

```toml
title = "Our engine"                # for the head of a report
description = "What we promise."    # optional
extends = "spec"                    # optional: a built-in name, or a file, seen from this one

[cases.ORB-BAT-11]
level = "SHOULD"                    # MUST, SHOULD, MAY, INFO; without it the case's own
accept = ["refused"]                # readings that pass
tolerate = ["kept"]                 # readings that are NON-STRICT; every other one fails
skip = "our queue has no end"       # the case is not played; "" plays it although the base skips it
```

A pattern may stand for many cases, `[cases."ORB-EXT-*"]`; a case's own entry goes before it, whole.

A case without an entry, or whose entry has no `accept`, passes with every reading that it declares. An entry
inherits from the same case's entry in the profile that it extends, key by key; but `accept` and `tolerate`
are one judgement, so whoever names one replaces both.

Mistakes in a profile raise `orbtrio.errors.ConfigError`, whose text names the file, the entry and what to
change. Names of cases and readings can only be checked against a catalogue: see `validate`.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib.resources
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.model import Level, Verdict
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.resources.abc import Traversable

    from orbtrio.conformance.model import Case

__all__ = ["BUILT_IN", "Expectation", "Profile", "load_profile", "validate"]

BUILT_IN: Final = ("spec", "orbtrio", "hardened")

_LEVELS: Final = tuple(level.value for level in Level)
_HEAD: Final = ("title", "description", "extends", "cases")
_ENTRY: Final = ("level", "accept", "tolerate", "skip")


@attrs.frozen(kw_only=True)
class Expectation:
    """What a profile says about one case.

    Attributes:
        level: Its weight; None: the case's own.
        accept: Readings that pass; None: all that the case declares.
        tolerate: Readings that are NON-STRICT.
        skip: Why it is not played; empty if it is.
        origin: Where that stands, for error texts.
    """

    level: Level | None = None
    accept: tuple[str, ...] | None = None
    tolerate: tuple[str, ...] = ()
    skip: str = ""
    origin: str = ""


_NOTHING: Final = Expectation()


@attrs.frozen(kw_only=True)
class Profile:
    """Expectations of a target, case by case.

    Attributes:
        name: What it was loaded as.
        title: For the head of a report.
        description: What it stands for.
        cases: What it says, by identifier of the case, or pattern of identifiers.
    """

    name: str
    title: str
    description: str = ""
    cases: Mapping[str, Expectation] = attrs.field(factory=dict)

    def level(self, case: Case) -> Level:
        """How much the case weighs."""
        return self._expected(case).level or case.level

    def judge(self, case: Case, reading: str | None) -> Verdict:
        """What to make of a reading; None: the case has only one right way, and saw it.

        Raises:
            ValueError: the case does not declare that reading, which is a defect of the case.
        """
        if reading is not None and reading not in case.readings:
            raise ValueError(
                f"{case.case_id} returned the reading {reading!r}, which it does not declare; "
                f"it declares {_listed(case.readings)}"
            )
        if self.level(case) is Level.INFO:
            return Verdict.INFO
        expected = self._expected(case)
        if reading is None or expected.accept is None or reading in expected.accept:
            return Verdict.PASS
        return Verdict.NON_STRICT if reading in expected.tolerate else Verdict.FAIL

    def expected(self, case: Case) -> str:
        """What would have passed, in words: the sentences of the accepted readings."""
        accepted = self._expected(case).accept
        return " or ".join(case.readings[name] for name in (accepted or case.readings))

    def skip(self, case: Case) -> str | None:
        """Why the case is not played, or None if it is."""
        return self._expected(case).skip or None

    def _expected(self, case: Case) -> Expectation:
        own = self.cases.get(case.case_id)
        if own is not None:
            return own
        fitting = (pattern for pattern in self.cases if fnmatch.fnmatchcase(case.case_id, pattern))
        return self.cases.get(next(fitting, ""), _NOTHING)


def load_profile(name_or_path: str | Path) -> Profile:
    """One of `BUILT_IN`, or a file.

    Raises:
        ConfigError: there is none, or it is not a profile. The text says what to change.
    """
    return _load(name_or_path, Path(), ())


def validate(profile: Profile, catalogue: Mapping[str, Case]) -> None:
    """Check that the profile speaks of cases and readings that there are.

    Raises:
        ConfigError: it does not. The text has a line for each mistake.
    """
    mistakes = []
    for case_id, expected in profile.cases.items():
        fitting = [case for known, case in catalogue.items() if fnmatch.fnmatchcase(known, case_id)]
        if not fitting:
            mistakes.append(f"{expected.origin}: there is no such case{_meant(case_id, catalogue)}")
        for case in fitting:
            for reading in (*(expected.accept or ()), *expected.tolerate):
                if reading not in case.readings:
                    mistakes.append(
                        f"{expected.origin}: the case has no reading {reading!r}; "
                        f"it has {_listed(case.readings)}"
                    )
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _load(name_or_path: str | Path, folder: Path, below: tuple[str, ...]) -> Profile:
    file: Path | Traversable
    if name_or_path in BUILT_IN:
        name = str(name_or_path)
        file = importlib.resources.files("orbtrio.conformance") / "profiles" / f"{name}.toml"
        place = f"profile {name}"
    else:
        file = folder / name_or_path
        name = file.stem
        place = str(file)
    if place in below:
        raise ConfigError(f"{place}: extends itself, by way of {' and '.join(below)}; drop one `extends`")
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(
            f"{place}: not a profile ({reason}); name a TOML file, or one of {_listed(BUILT_IN)}"
        ) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place}: not TOML: {error}") from error
    _refuse_unknown(data, _HEAD, place)
    title = _text(data.get("title"), f"{place}: `title`")
    base = Profile(name="", title="")
    if "extends" in data:
        extended = _text(data["extends"], f"{place}: `extends`")
        # Seen from a built-in profile there are only built-in ones.
        base = _load(extended, file.parent if isinstance(file, Path) else Path(), (*below, place))
    entries = data.get("cases", {})
    if not isinstance(entries, dict):
        raise ConfigError(f"{place}: `cases` must be tables like [cases.ORB-BAT-11]")
    cases = dict(base.cases)
    for case_id, entry in entries.items():
        origin = f"{place}, [cases.{case_id}]"
        cases[case_id] = _expectation(entry, cases.get(case_id, _NOTHING), origin)
    description = _text(data.get("description", ""), f"{place}: `description`", may_be_empty=True)
    return Profile(name=name, title=title, description=description, cases=cases)


def _expectation(entry: Any, base: Expectation, origin: str) -> Expectation:
    if not isinstance(entry, dict):
        raise ConfigError(f"{origin}: must be a table with some of {_listed(_ENTRY)}")
    _refuse_unknown(entry, _ENTRY, origin)
    changes: dict[str, Any] = {"origin": origin}
    if "level" in entry:
        if entry["level"] not in _LEVELS:
            raise ConfigError(f"{origin}: `level` must be one of {_listed(_LEVELS)}, not {entry['level']!r}")
        changes["level"] = Level(entry["level"])
    if "skip" in entry:
        changes["skip"] = _text(entry["skip"], f"{origin}: `skip`", may_be_empty=True)
    if "accept" in entry:
        changes["accept"] = _names(entry["accept"], f"{origin}: `accept`")
        changes["tolerate"] = _names(entry.get("tolerate", []), f"{origin}: `tolerate`")
        both = set(changes["accept"]) & set(changes["tolerate"])
        if both:
            raise ConfigError(f"{origin}: {_listed(sorted(both))} is in `accept` and in `tolerate`; drop one")
    elif "tolerate" in entry:
        raise ConfigError(
            f"{origin}: `tolerate` needs an `accept` beside it; write accept = [] if nothing passes"
        )
    return attrs.evolve(base, **changes)


def _refuse_unknown(data: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in data:
        if key not in known:
            raise ConfigError(f"{place}: unknown key `{key}`{_meant(key, known)}; there are {_listed(known)}")


def _text(value: Any, what: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or may_be_empty):
        raise ConfigError(f"{what} must be a text")
    return value


def _names(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{what} must be a list of readings, each a text")
    return tuple(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
