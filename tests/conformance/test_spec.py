"""The sentences against the text that they quote, and who pins them against cases made up here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import strategies as st

from orbtrio.conformance import spec
from orbtrio.conformance.model import Case, Level, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
# It stands beside the repository, not in it; who has no copy cannot compare.
TEXT: Final = ROOT.parent / "shared" / "spec" / "ORB_WORKER_PROTOCOL.md"

needs_text = pytest.mark.skipif(not TEXT.exists(), reason="the spec does not lie beside this repository")


def a_case(case_id: str, *sentence_ids: str) -> Case:
    def play(stage: Any, plan: Any) -> None: ...

    return Case(
        case_id=case_id,
        role=Role.ENGINE,
        title="made up",
        level=Level.MUST,
        sentences=sentence_ids,
        explanation="made up",
        readings={},
        plans=st.none(),
        play=play,
    )


def plain(text: str) -> str:
    return " ".join(text.replace("**", "").split())


def places(text: str) -> Iterator[tuple[str, set[str]]]:
    """Each line of the spec, and the titles under which it stands."""
    open_titles: list[tuple[int, str]] = []
    fenced = False
    for line in text.splitlines():
        if line.strip().startswith("```"):
            fenced = not fenced
        heading = re.fullmatch(r"(#+) (?:\d+\. )?(.+)", line)
        bold = re.fullmatch(r"\*\*(.+):\*\*", line)
        if not fenced and (heading or bold):
            depth, title = (len(heading[1]), heading[2]) if heading else (9, bold[1] if bold else "")
            open_titles = [known for known in open_titles if known[0] < depth] + [(depth, title)]
        yield plain(line), {title for _, title in open_titles}


@needs_text
def test_every_sentence_is_verbatim_in_its_section_and_in_the_order_of_the_text() -> None:
    lines = list(places(TEXT.read_text("utf-8")))
    at, column = 0, 0
    for sentence in spec.sentences():
        found = next(
            (
                (number, line.index(sentence.text, column if number == at else 0) + len(sentence.text))
                for number, (line, titles) in enumerate(lines[at:], at)
                if sentence.section in titles and sentence.text in line[column if number == at else 0 :]
            ),
            None,
        )
        assert found is not None, (
            f"{sentence.id}: {sentence.text!r} is not under {sentence.section!r} behind line {at}"
        )
        at, column = found


@needs_text
def test_every_list_item_of_the_binding_sections_is_a_sentence() -> None:
    # Elsewhere judgement decides; in these sections each item demands something.
    binding = {
        "Worker Registration",
        "Job Accumulation Rules",
        "Worker Responsibilities",
        "Worker Output",
        "Storage",
        "Resource Validation",
        "Reference Counting & Cleanup",
        "Session Management",
        "State Management",
        "Timeout Behavior",
        "Connection Lifecycle",
        "Engine-Side Error Handling",
    }
    known = [sentence.text for sentence in spec.sentences()]
    missing = []
    for line, titles in places(TEXT.read_text("utf-8")):
        item = re.fullmatch(r"(?:- |\d+\. )(.+)", line)
        if item and titles & binding and not any(item[1] in text or text in item[1] for text in known):
            missing.append(line)
    assert missing == []


@needs_text
def test_every_line_of_a_printed_type_that_says_why_is_a_sentence() -> None:
    known = {sentence.text for sentence in spec.sentences()}
    said = [
        line
        for line, titles in places(TEXT.read_text("utf-8"))
        if (
            re.match(r"(?:\w+\??|\[.*\]): [\w'].* // ", line)
            and titles & {"Message Types", "Resource System"}
        )
        or (re.match(r"\w+\??: .* // ", line) and "Message Shapes by Worker Type" in titles)
    ]
    assert len(said) > 30
    assert [line for line in said if line not in known] == []


def test_identifiers_are_unique_and_count_up_within_their_chapter() -> None:
    counts: dict[int, int] = {}
    for sentence in spec.sentences():
        match = re.fullmatch(r"S(\d+)\.(\d+)", sentence.id)
        assert match, sentence.id
        chapter = int(match[1])
        assert chapter >= max(counts, default=0), f"{sentence.id} stands behind a later chapter"
        counts[chapter] = counts.get(chapter, 0) + 1
        assert int(match[2]) == counts[chapter], sentence.id
    assert list(counts) == list(range(13))


def test_sentences_about_extensions_cannot_be_taken_for_the_specs() -> None:
    counts: dict[int, int] = {}
    for sentence in spec.extensions():
        match = re.fullmatch(r"X(\d+)\.(\d+)", sentence.id)
        assert match, sentence.id
        counts[int(match[1])] = counts.get(int(match[1]), 0) + 1
        assert int(match[2]) == counts[int(match[1])], sentence.id
        assert sentence.section.startswith("orbtrio extensions: ")
        assert spec.cite(sentence.id).startswith('"orbtrio extensions: ')
    assert list(counts) == list(range(8))
    assert not {sentence.section for sentence in spec.sentences()} & {s.section for s in spec.extensions()}


def test_ruling_identifiers_are_unique_and_come_from_a_design_page() -> None:
    identifiers = [ruling.id for ruling in spec.rulings()]
    assert len(set(identifiers)) == len(identifiers)
    assert [identifier for identifier in identifiers if not re.fullmatch(r"[PBF]-\d+", identifier)] == []


def test_no_entry_is_empty_or_runs_over_lines() -> None:
    entries: list[spec.Sentence | spec.Ruling] = [*spec.sentences(), *spec.extensions(), *spec.rulings()]
    assert [entry.id for entry in entries if not entry.text or "\n" in entry.text or not entry.section] == []
    assert [sentence.id for sentence in spec.sentences() if not sentence.binds] == []


def test_a_sentence_is_quoted_with_its_section() -> None:
    reassigned = next(
        s for s in spec.sentences() if s.text.endswith("all queued jobs reassigned to other workers")
    )
    assert spec.quote(reassigned.id) == "On disconnect: all queued jobs reassigned to other workers"
    assert spec.section(reassigned.id) == "Connection Lifecycle"
    assert spec.cite(reassigned.id) == f'"Connection Lifecycle": "{reassigned.text}"'
    assert reassigned.binds == {Role.ENGINE}


def test_a_ruling_is_quoted_with_its_number() -> None:
    assert spec.quote("P-17").startswith("First in, first out")
    assert spec.section("P-17") == "ruling P-17"
    assert spec.cite("P-17") == f"ruling P-17: {spec.quote('P-17')}"


def test_an_unknown_identifier_is_told_with_where_to_look() -> None:
    with pytest.raises(LookupError, match=r"'S99\.1' is no sentence and no ruling.*sentences\.toml"):
        spec.quote("S99.1")


def test_coverage_names_the_cases_of_each_sentence() -> None:
    first, second, third = spec.sentences()[:3]
    cases = {
        "ORB-A-02": a_case("ORB-A-02", third.id, first.id, first.id),
        "ORB-A-01": a_case("ORB-A-01", first.id),
    }
    covered = spec.coverage(cases)
    assert [sentence for sentence, _ in covered] == [*spec.sentences(), *spec.extensions()]
    assert dict(covered)[first] == ("ORB-A-02", "ORB-A-01")
    assert dict(covered)[second] == ()
    assert dict(covered)[third] == ("ORB-A-02",)


def test_what_no_case_pins_is_uncovered() -> None:
    known = [*spec.sentences(), *spec.extensions()]
    everything = a_case("ORB-A-01", *(sentence.id for sentence in known[1:]))
    assert spec.uncovered({"ORB-A-01": everything}) == spec.sentences()[:1]


def test_a_case_that_cites_nothing_known_is_found_out() -> None:
    cases = {"ORB-A-01": a_case("ORB-A-01", "S1.1", "P-17", "REG-1")}
    assert spec.unknown(cases) == (("ORB-A-01", "REG-1"),)
