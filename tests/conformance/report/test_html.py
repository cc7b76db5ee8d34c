from __future__ import annotations

import html.parser
import re
import shutil
import struct
from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.conformance.model import Level, Verdict, WireEvent
from orbtrio.conformance.report.files import write_report
from orbtrio.conformance.report.html import render
from tests.conformance.report import browser
from tests.conformance.report.fakes import (
    EVENTS,
    EXPLANATION,
    generate_suite,
    make_case,
    make_failure,
    make_result,
    make_suite,
    quote,
    section,
)

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.model import CaseResult, SuiteResult

VOID = {"meta", "link", "input", "rect", "br"}
HOSTILE = (
    "<script>globalThis.owned = 1</script></details></table><img src=x onerror=alert(1)>\"'`"
    "<!-- ]]> &lt; \x00\x1b\u202e\u2066\ud800\udfff שלום"
)


class Page(html.parser.HTMLParser):
    """A page's elements, which must be nested properly, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))


def draw(*suites: SuiteResult) -> str:
    return render(suites, quote=quote, section=section)


def draw_case(*results: CaseResult, **changes: Any) -> str:
    return Page(draw(make_suite(results, **changes))).text


def test_every_element_is_closed_and_every_case_is_there() -> None:
    suite = generate_suite(1)
    page = Page(draw(suite))
    bodies = [attributes for tag, attributes in page.elements if tag == "tbody"]
    ids = [body["id"] for body in bodies if body.get("class") == "case"]
    assert ids == [result.case.case_id for result in suite.results]
    assert sum(body.get("class") == "area" for body in bodies) == 10


def test_without_a_script_everything_can_be_seen_and_nothing_pretends_to_work() -> None:
    page = Page(draw(generate_suite(1)))
    assert [tag for tag, attributes in page.elements if "hidden" in attributes] == ["form"]


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = Page(draw(generate_suite(1)))
    references = {
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "href", "action", "data", "srcset"}
    }
    assert {value for value in references if value and not value.startswith("#")} == {"data:,"}
    assert not re.search(r"https?://|@import|url\(", draw(generate_suite(1)))
    (policy,) = [attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes]
    assert str(policy).startswith("default-src 'none';")


def test_a_failed_case_tells_everything() -> None:
    text = draw_case(make_result(Verdict.FAIL, counterexample=make_failure(file="out/ORB-REC-01.json")))
    for part in (
        "On disconnect: all queued jobs reassigned to other workers",
        "Connection Lifecycle S7.4",
        EXPLANATION,
        "breaks a sentence of the spec, each time it was tried",
        "Expectedj6 in a batch to worker#5",
        "Seennothing",
        "failed again in 3 of 3 repetitions",
        "37 plans in 1.2 s",
        "The suite plays worker#3, worker#5, client#1.",
        "0.012worker#3 ← target" + EVENTS[3].text,
        "0.001client#1 → target",
        "0.013worker#3 ✕ endedRST",
        "1.500here it failed",
        "python -m orbtrio.conformance replay out/ORB-REC-01.json",
        "seed 20261121",
        '"steps": [',
    ):
        assert part in text, part


def test_a_reading_comes_with_its_meaning() -> None:
    case = make_case(readings={"refused": "the job is answered at once"})
    assert "refused: the job is answered at once" in draw_case(make_result(Verdict.NON_STRICT, case))
    assert "refused: not described" in draw_case(make_result(Verdict.NON_STRICT))
    assert "Reading" not in draw_case(make_result())


def test_a_row_says_at_a_glance_why_it_is_no_pass() -> None:
    def briefs(*results: CaseResult) -> list[str]:
        return re.findall(r'<span class="brief">(.*?)</span>', draw(make_suite(results)))

    assert briefs(make_result(), make_result(case=make_case("ORB-REC-02"), reason="told")) == []
    assert briefs(make_result(Verdict.FAIL)) == ["expected: j6 in a batch to worker#5; seen: nothing"]
    assert briefs(make_result(Verdict.SKIP)) == [
        "needs the directory of resource files: give it with --resources DIR"
    ]
    assert briefs(make_result(Verdict.FAIL, counterexample=None)) == []


def test_a_closes_verdict_stands_beside_the_cases() -> None:
    assert "✓ PASSclose ≈ NON-STRICT" in draw_case(
        make_result(close=Verdict.NON_STRICT, close_reason="by RST")
    )
    assert "NON-STRICT by RST" in draw_case(make_result(close=Verdict.NON_STRICT, close_reason="by RST"))
    assert "close ✓" not in draw_case(make_result(close=None))


@pytest.mark.parametrize(
    ("suite", "outcome"),
    [
        (make_suite([make_result()]), "Conforms: 1 of 1 judged MUST cases hold"),
        (make_suite([make_result(Verdict.FAIL), make_result()]), "Does not conform: 1 of 2 MUST cases fails"),
        (make_suite([make_result(Verdict.FAIL)] * 2), "Does not conform: 2 of 2 MUST cases fail"),
        (make_suite([make_result()], trouble="it exited"), "The run broke off after 1 cases"),
        (
            make_suite([make_result(Verdict.FLAKY), make_result()]),
            "In doubt: 1 of 2 MUST cases are not settled",
        ),
        (make_suite(counters={}, versions={}), "Conforms: 0 of 0"),
    ],
)
def test_the_head_says_the_outcome(suite: SuiteResult, outcome: str) -> None:
    assert outcome in Page(draw(suite)).text


def test_the_head_counts_in_words_as_well_as_in_colours() -> None:
    page = draw(make_suite([make_result(), make_result(), make_result(Verdict.FAIL)]))
    assert 'role="img" aria-label="1 FAIL, 2 PASS"' in page
    assert '<rect class="PASS" x="1" width="2" height="1"/>' in page
    assert "full queue not once" in Page(page).text
    assert "2026-11-21 13:05:11 UTC" in Page(page).text


def test_targets_stand_side_by_side() -> None:
    shared = make_case("ORB-REC-01")
    should = make_result(Verdict.FAIL, shared, level=Level.SHOULD)
    first = make_suite([make_result(case=shared), make_result(case=make_case("ORB-REC-02"))], target="one")
    second = make_suite([should, make_result(case=make_case("ORB-BAT-09"))], target="two")
    page = draw(first, second)
    assert re.findall(r'class="case" id="(.*?)" data-verdicts="(.*?)" data-levels="(.*?)"', page) == [
        ("ORB-REC-01", "PASS FAIL", "MUST SHOULD"),
        ("ORB-REC-02", "PASS", "MUST"),
        ("ORB-BAT-09", "PASS", "MUST"),
    ]
    text = Page(page).text
    assert "2 targets compared" in text
    assert "CaseAoneBtwo" in text
    assert text.count("not run") == 2
    assert 'class="matrix several"' in page


def test_many_targets_scroll_in_their_own_box_and_keep_their_names_apart() -> None:
    page = draw(*(make_suite([make_result()], target=f"target {n}") for n in range(28)))
    assert 'class="matrix several wide"' in page
    assert "Ztarget 25" in Page(page).text
    assert "27target 26" in page.replace('</span><span class="target">', "")


def test_hostile_texts_become_neither_markup_nor_script() -> None:
    hostile = make_failure(
        plan={HOSTILE: HOSTILE},
        expected=HOSTILE,
        seen=HOSTILE,
        file=HOSTILE,
        events=[WireEvent(at=0, peer=HOSTILE, kind=HOSTILE, text=HOSTILE)],
    )
    case = make_case(
        title=HOSTILE, explanation=HOSTILE, sentences=("?" + HOSTILE,), readings={HOSTILE: HOSTILE}
    )
    results = [
        make_result(
            Verdict.FAIL, case, counterexample=hostile, reading=HOSTILE, reason=HOSTILE, close_reason=HOSTILE
        ),
        make_result(Verdict.SKIP, make_case("ORB-XXX-01"), reason=HOSTILE),
    ]
    suite = make_suite(
        results,
        target=HOSTILE,
        profile=HOSTILE,
        started=HOSTILE,
        versions={HOSTILE: HOSTILE},
        counters={HOSTILE: 1},
        trouble=HOSTILE,
    )
    for suites in ([suite], [suite, suite]):
        text = draw(*suites)
        assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
        page = Page(text)
        assert page.count("script") == 1
        assert page.count("img") == 0
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert "<script>globalThis.owned = 1</script></details>" in page.text


def test_the_page_stays_small_whatever_the_peer_sends() -> None:
    events = [WireEvent(at=n, peer="p", kind="<-", text="x" * 100_000) for n in range(300)]
    long = "y" * 100_000
    failure = make_failure(
        events=events, seen=long, expected=long, plan=[long, *range(100_000)], file="f.json"
    )
    page = draw(make_suite([make_result(Verdict.FAIL, counterexample=failure)]))
    assert len(page) < 300_000
    assert page.count('<tr class="in">') == 200
    assert "100 lines left out: all of them stand in f.json" in page
    assert "x... (100000 characters)" in page
    passed = draw(make_suite([make_result(events=tuple(events))]))
    assert passed.count('<tr class="in">') == 60
    assert ">240 lines left out<" in passed


def test_of_many_peers_a_few_are_named() -> None:
    events = tuple(WireEvent(at=n, peer=f"client#{n}", kind="->", text="x") for n in range(20))
    assert "client#6, client#7 …. → suite" in draw_case(make_result(events=events))
    remark = (WireEvent(at=0, peer="", kind="--", text="waited"),)
    assert "The suite plays" not in draw_case(make_result(events=remark))


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_from_their_ground_by_day_and_by_night() -> None:
    style = draw(make_suite())
    day, night = (
        dict(re.findall(r"--([\w]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    assert day.keys() == night.keys()
    for colours in (day, night):
        for text in ("text", "muted", "link", "out", "in", *(verdict.name for verdict in Verdict)):
            for ground in ("card", "ground", "sunk"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["FAIL"], colours["bad"]) >= 4.5
        assert contrast(colours["PASS"], colours["good"]) >= 4.5
        assert contrast(colours["INCONCLUSIVE"], colours["doubt"]) >= 4.5


PROBE = """
const all = () => Array.from(document.querySelectorAll("tbody.case"));
const visible = () => all().filter((body) => body.getClientRects().length > 0);
const headings = Array.from(document.querySelectorAll("tbody.area"));
const areas = () => headings.filter((body) => body.getClientRects().length > 0);
const verdicts = (bodies) => Array.from(new Set(bodies.map((body) => body.dataset.verdicts))).sort();
const form = document.getElementById("filter");
const search = (text) => {
  form.elements.text.value = text;
  form.elements.text.dispatchEvent(new window.Event("input", { bubbles: true }));
};
const width = () => document.documentElement.scrollWidth;
const answer = { inner: window.innerWidth, closed: width(), cases: all().length, form: form.hidden };
for (const details of document.querySelectorAll("details")) details.open = true;
answer.open = width();
const logs = Array.from(document.querySelectorAll("div.box"));
answer.logs = logs.some((box) => box.scrollWidth > box.clientWidth);
const table = document.querySelector(".scroll");
answer.table = table.scrollWidth - table.clientWidth;
answer.allShown = visible().length;
form.querySelector("input[value=PASS]").click();
answer.withoutPasses = verdicts(visible());
answer.told = document.getElementById("shown").textContent;
form.querySelector("input[value=PASS]").click();
document.getElementById("problems").click();
answer.problems = verdicts(visible());
for (const box of form.querySelectorAll("input[name=verdict]")) box.checked = true;
search("orb-rec-0");
answer.found = visible().map((body) => body.id);
answer.areas = areas().length;
search("no such text");
answer.none = [visible().length, areas().length];
search("");
form.querySelector("input[value=MUST]").click();
answer.levels = Array.from(new Set(visible().flatMap((body) => body.dataset.levels.split(" ")))).sort();
answer.owned = typeof window.owned;
return answer;
"""


@pytest.mark.processes
@pytest.mark.parametrize("targets", [1, 3])
def test_on_a_phone_the_page_fits_and_the_filter_works(tmp_path: Path, targets: int) -> None:
    suites = [generate_suite(1, target=f"node engine-{n}.js " + "x" * 70) for n in range(targets)]
    results = list(suites[0].results)
    hostile = make_failure(
        seen=HOSTILE, plan=[HOSTILE], events=[WireEvent(at=0, peer="p", kind="<-", text=HOSTILE)]
    )
    results[2] = make_result(Verdict.FAIL, results[2].case, counterexample=hostile)
    suites[0] = make_suite(results, target=suites[0].target)
    answer = browser.probe(tmp_path, draw(*suites), PROBE)
    assert isinstance(answer, dict), answer
    passes = sum(result.verdict is Verdict.PASS for result in results)
    assert answer.pop("told") == f"{100 - passes} of 100 cases shown"
    others = sorted(verdict.value for verdict in Verdict if verdict is not Verdict.PASS)
    assert answer == {
        "inner": 390,
        "closed": 390,
        "open": 390,
        "cases": 100,
        "allShown": 100,
        "form": False,
        "logs": True,
        "table": 0,
        "withoutPasses": others,
        "problems": ["FAIL", "FLAKY", "INCONCLUSIVE", "NON-STRICT"],
        "found": [f"ORB-REC-0{n}" for n in range(1, 7)],
        "areas": 1,
        "none": [0, 0],
        "levels": ["MAY", "SHOULD"],
        "owned": "undefined",
    }


@pytest.mark.processes
def test_a_page_with_many_targets_scrolls_only_its_table(tmp_path: Path) -> None:
    suites = [generate_suite(n, target=f"target {n}") for n in range(6)]
    script = """
    for (const details of document.querySelectorAll("details")) details.open = true;
    const box = document.querySelector(".scroll"), inside = document.querySelector(".inside");
    const scrolls = box.scrollWidth > box.clientWidth;
    return [document.documentElement.scrollWidth, scrolls, inside.clientWidth < 390];
    """
    assert browser.probe(tmp_path, draw(*suites), script) == [390, True, True]


@pytest.mark.processes
@pytest.mark.parametrize("dark", [False, True])
def test_a_picture_of_the_page_can_be_taken(tmp_path: Path, dark: bool) -> None:
    page = write_report(tmp_path, generate_suite(1), quote=quote, section=section)
    picture = browser.take_screenshot(tmp_path, page, dark=dark).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">II", picture[16:24]) == (390, 844)
    # A page on which nothing was drawn compresses to far less.
    assert len(picture) > 30_000


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_a_browser_only_ci_fails(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no chromium on PATH"):
        browser.find_browser()
