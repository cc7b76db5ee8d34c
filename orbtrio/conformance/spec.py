"""The spec's text, sentence by sentence, and which cases pin which sentence.

The sentences are data (``sentences.toml``): verbatim, in the order of the text. They name no cases. A case
names its sentences, so who pins what stands in one place, and `coverage` turns it round.

A sentence is normative if somebody at the other end of a connection, or at the directory of resources, could
tell whether it holds. Lines of the printed types and of the printed programs count where they demand
something ("``id: string, // Must match job ID from input``"). A sentence about a peer's inside counts when it
has a consequence outside: a worker that loads its model for every batch answers the second one late. Left
out: drawings, the glossary, the version history, figures recommended to operators, and advice that only the
owner of a program can follow ("Log errors with job ID for debugging").

The extensions of this project have sentences, too, in a file of their own (``extensions.toml``). Nobody can
take them for the spec's: their identifiers begin with X, their sections with "orbtrio extensions".

Rulings are short forms of this project's own rules, for what the spec does not say. A case cites them beside
or, where the spec is silent, instead of sentences; they need no coverage.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.model import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orbtrio.conformance.model import Case

__all__ = [
    "Ruling",
    "Sentence",
    "cite",
    "coverage",
    "extensions",
    "quote",
    "rulings",
    "section",
    "sentences",
    "uncovered",
    "unknown",
]

_FILE: Final = "sentences.toml"
_EXTENSIONS_FILE: Final = "extensions.toml"


def _roles(names: list[str]) -> frozenset[Role]:
    return frozenset(Role(name) for name in names)


@attrs.frozen(kw_only=True)
class Sentence:
    """A normative sentence, of the spec or about an extension.

    Attributes:
        id: ``S<chapter>.<number>``, in the order of the text; ``X…`` if it is about an extension.
        section: The title under which it stands.
        text: Verbatim, but for runs of spaces and marks of bold type.
        binds: Whom it can be demanded of.
    """

    id: str
    section: str
    text: str
    binds: frozenset[Role] = attrs.field(converter=_roles)


@attrs.frozen(kw_only=True)
class Ruling:
    """A rule of this project, where the spec says nothing.

    Attributes:
        id: Its number on the design pages: ``P-22`` (protocol), ``B-14`` or ``F-19`` (robustness).
        text: The rule in short.
    """

    id: str
    text: str

    @property
    def section(self) -> str:
        """What stands in place of a title."""
        return f"ruling {self.id}"


@functools.cache
def _data(name: str = _FILE) -> Mapping[str, Any]:
    file = importlib.resources.files("orbtrio.conformance") / name
    return tomllib.loads(file.read_text("utf-8"))


@functools.cache
def sentences() -> tuple[Sentence, ...]:
    """Every normative sentence of the spec, in the order of the text."""
    return tuple(Sentence(**entry) for entry in _data()["sentence"])


@functools.cache
def extensions() -> tuple[Sentence, ...]:
    """Every sentence about the extensions of this project, in order."""
    return tuple(Sentence(**entry) for entry in _data(_EXTENSIONS_FILE)["sentence"])


@functools.cache
def rulings() -> tuple[Ruling, ...]:
    """Every ruling that cases may cite."""
    return tuple(Ruling(**entry) for entry in _data()["ruling"])


@functools.cache
def _by_id() -> Mapping[str, Sentence | Ruling]:
    entries: list[Sentence | Ruling] = [*sentences(), *extensions(), *rulings()]
    return {entry.id: entry for entry in entries}


def _find(sentence_id: str) -> Sentence | Ruling:
    if sentence_id not in _by_id():
        raise LookupError(
            f"{sentence_id!r} is no sentence and no ruling: the identifiers stand in {_FILE} and "
            f"{_EXTENSIONS_FILE}"
        )
    return _by_id()[sentence_id]


def quote(sentence_id: str) -> str:
    """The text of a sentence or a ruling.

    Raises:
        LookupError: there is none of that identifier.
    """
    return _find(sentence_id).text


def section(sentence_id: str) -> str:
    """The title under which it stands; of a ruling its number. Raises: as `quote`."""
    return _find(sentence_id).section


def cite(sentence_id: str) -> str:
    """Both, as they stand behind the name of a case. Raises: as `quote`."""
    entry = _find(sentence_id)
    if isinstance(entry, Ruling):
        return f"{entry.section}: {entry.text}"
    return f'"{entry.section}": "{entry.text}"'


def coverage(catalogue: Mapping[str, Case]) -> tuple[tuple[Sentence, tuple[str, ...]], ...]:
    """Each sentence, the spec's first, and the cases that pin it, in the catalogue's order."""
    pinned: dict[str, list[str]] = {}
    for case_id, case in catalogue.items():
        # A case that names a sentence twice pins it once.
        for sentence_id in dict.fromkeys(case.sentences):
            pinned.setdefault(sentence_id, []).append(case_id)
    return tuple((sentence, tuple(pinned.get(sentence.id, ()))) for sentence in (*sentences(), *extensions()))


def uncovered(catalogue: Mapping[str, Case]) -> tuple[Sentence, ...]:
    """Sentences that no case pins. Our own build demands that there are none."""
    return tuple(sentence for sentence, case_ids in coverage(catalogue) if not case_ids)


def unknown(catalogue: Mapping[str, Case]) -> tuple[tuple[str, str], ...]:
    """Every (case, identifier) where a case names what is neither a sentence nor a ruling."""
    return tuple(
        (case_id, sentence_id)
        for case_id, case in catalogue.items()
        for sentence_id in case.sentences
        if sentence_id not in _by_id()
    )
