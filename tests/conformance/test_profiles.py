"""Profiles: what they make of readings, how they inherit, and what they say about mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

from orbtrio.conformance.model import Case, Level, Role, Verdict
from orbtrio.conformance.profiles import BUILT_IN, Profile, load_profile, validate
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def a_case(case_id: str = "ORB-BAT-11", *readings: str, level: Level = Level.MUST) -> Case:
    def play(stage: Any, plan: Any) -> None: ...

    return Case(
        case_id=case_id,
        role=Role.ENGINE,
        title="made up",
        level=level,
        sentences=(),
        explanation="made up",
        readings=dict.fromkeys(readings, "made up"),
        plans=st.none(),
        play=play,
    )


QUEUE = a_case("ORB-BAT-11", "refused", "kept", "dropped")
PLAIN = a_case("ORB-BAT-05")


def profile(folder: Path, text: str, name: str = "ours") -> Profile:
    file = folder / f"{name}.toml"
    file.write_text(f'title = "{name}"\n{text}', "utf-8")
    return load_profile(file)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        profile(folder, text)
    assert str(folder / "ours.toml") in str(raised.value)
    return str(raised.value)


def test_without_an_entry_a_case_keeps_its_level_and_passes_with_every_reading(tmp_path: Path) -> None:
    ours = profile(tmp_path, "")
    assert ours.level(QUEUE) is Level.MUST
    assert ours.skip(QUEUE) is None
    assert [ours.judge(QUEUE, reading) for reading in QUEUE.readings] == [Verdict.PASS] * 3
    assert ours.judge(PLAIN, None) is Verdict.PASS


def test_accepted_readings_pass_tolerated_ones_are_not_strict_others_fail(tmp_path: Path) -> None:
    ours = profile(tmp_path, '[cases.ORB-BAT-11]\naccept = ["refused"]\ntolerate = ["kept"]')
    assert ours.judge(QUEUE, "refused") is Verdict.PASS
    assert ours.judge(QUEUE, "kept") is Verdict.NON_STRICT
    assert ours.judge(QUEUE, "dropped") is Verdict.FAIL
    assert ours.judge(QUEUE, None) is Verdict.PASS


def test_an_empty_list_accepts_nothing(tmp_path: Path) -> None:
    ours = profile(tmp_path, "[cases.ORB-BAT-11]\naccept = []")
    assert ours.judge(QUEUE, "refused") is Verdict.FAIL


def test_a_case_at_level_info_informs_whatever_it_saw(tmp_path: Path) -> None:
    ours = profile(tmp_path, '[cases.ORB-BAT-11]\nlevel = "INFO"\naccept = ["refused"]')
    assert ours.judge(QUEUE, "dropped") is Verdict.INFO
    assert ours.judge(QUEUE, None) is Verdict.INFO
    assert ours.judge(a_case(level=Level.INFO), None) is Verdict.INFO


@pytest.mark.parametrize("level", list(Level))
def test_a_profile_sets_the_level(tmp_path: Path, level: Level) -> None:
    assert profile(tmp_path, f'[cases.ORB-BAT-11]\nlevel = "{level.value}"').level(QUEUE) is level


def test_a_reading_that_the_case_does_not_declare_is_its_defect(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ORB-BAT-11 returned the reading 'eaten'.*refused, kept, dropped"):
        profile(tmp_path, "").judge(QUEUE, "eaten")


def test_an_entry_inherits_key_by_key(tmp_path: Path) -> None:
    profile(tmp_path, '[cases.ORB-BAT-11]\nlevel = "MAY"\naccept = ["refused"]\nskip = "slow"', "base")
    ours = profile(tmp_path, 'extends = "base.toml"\n[cases.ORB-BAT-11]\nlevel = "SHOULD"')
    assert ours.level(QUEUE) is Level.SHOULD
    assert ours.judge(QUEUE, "kept") is Verdict.FAIL
    assert ours.skip(QUEUE) == "slow"


def test_entries_of_the_base_hold_where_the_profile_says_nothing(tmp_path: Path) -> None:
    profile(tmp_path, '[cases.ORB-BAT-11]\naccept = ["refused"]', "base")
    ours = profile(tmp_path, 'extends = "base.toml"\n[cases.ORB-BAT-05]\nlevel = "MAY"')
    assert ours.judge(QUEUE, "kept") is Verdict.FAIL


def test_whoever_accepts_replaces_what_was_tolerated(tmp_path: Path) -> None:
    profile(tmp_path, '[cases.ORB-BAT-11]\naccept = ["refused"]\ntolerate = ["kept"]', "base")
    ours = profile(tmp_path, 'extends = "base.toml"\n[cases.ORB-BAT-11]\naccept = ["dropped"]')
    judged = [ours.judge(QUEUE, reading) for reading in ("refused", "kept", "dropped")]
    assert judged == [Verdict.FAIL, Verdict.FAIL, Verdict.PASS]


def test_an_inherited_skip_is_lifted_by_an_empty_one(tmp_path: Path) -> None:
    profile(tmp_path, '[cases.ORB-BAT-11]\nskip = "slow"', "base")
    ours = profile(tmp_path, 'extends = "base.toml"\n[cases.ORB-BAT-11]\nskip = ""')
    assert ours.skip(QUEUE) is None


def test_the_base_is_looked_for_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    profile(tmp_path / "inner", '[cases.ORB-BAT-11]\nskip = "slow"', "base")
    profile(tmp_path / "inner", 'extends = "base.toml"', "middle")
    assert profile(tmp_path, 'extends = "inner/middle.toml"').skip(QUEUE) == "slow"


def test_a_file_may_extend_a_built_in_profile(tmp_path: Path) -> None:
    ours = profile(tmp_path, 'extends = "hardened"\n[cases.ORB-X-01]\nlevel = "MAY"')
    assert set(ours.cases) == {*load_profile("hardened").cases, "ORB-X-01"}
    assert (ours.name, ours.title) == ("ours", "ours")


def test_the_built_in_profiles_are_stacked() -> None:
    spec, orbtrio, hardened = map(load_profile, BUILT_IN)
    assert [loaded.name for loaded in (spec, orbtrio, hardened)] == list(BUILT_IN)
    assert set(spec.cases) <= set(orbtrio.cases) <= set(hardened.cases)
    assert len({loaded.title for loaded in (spec, orbtrio, hardened)}) == 3
    assert all(loaded.description for loaded in (spec, orbtrio, hardened))


def test_a_profile_that_extends_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('title = "o"\nextends = "ours.toml"', "utf-8")
    assert "extends itself" in refused(tmp_path, 'extends = "other.toml"')


def test_a_missing_profile_is_told_with_the_names_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"strict: not a profile.*spec, orbtrio, hardened"):
        load_profile("strict")
    with pytest.raises(ConfigError, match=r"not a profile"):
        load_profile(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: not a profile \(not UTF-8\)"):
        load_profile(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = 1", "not TOML"),  # a second title
        ('extend = "spec"', "unknown key `extend` (did you mean extends?)"),
        ('extends = ["spec"]', "`extends` must be a text"),
        ("description = 1", "`description` must be a text"),
        ("cases = 1", "like [cases.ORB-BAT-11]"),
        (
            "[cases]\nORB-BAT-11 = 1",
            "[cases.ORB-BAT-11]: must be a table with some of level, accept, tolerate, skip",
        ),
        ('[cases.ORB-BAT-11]\nlevl = "MUST"', "unknown key `levl` (did you mean level?)"),
        ('[cases.ORB-BAT-11]\nlevel = "must"', "`level` must be one of MUST, SHOULD, MAY, INFO, not 'must'"),
        ("[cases.ORB-BAT-11]\nlevel = []", "`level` must be one of"),
        ('[cases.ORB-BAT-11]\naccept = "kept"', "`accept` must be a list of readings"),
        ("[cases.ORB-BAT-11]\naccept = [1]", "`accept` must be a list of readings"),
        ('[cases.ORB-BAT-11]\naccept = []\ntolerate = "x"', "`tolerate` must be a list of readings"),
        ('[cases.ORB-BAT-11]\ntolerate = ["x"]', "`tolerate` needs an `accept`"),
        ('[cases.ORB-BAT-11]\naccept = ["x"]\ntolerate = ["x"]', "x is in `accept` and in `tolerate`"),
        ("[cases.ORB-BAT-11]\nskip = true", "`skip` must be a text"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_change(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_profile_without_a_title_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text("", "utf-8")
    with pytest.raises(ConfigError, match=r"bare\.toml: `title` must be a text"):
        load_profile(tmp_path / "bare.toml")


def test_names_of_cases_and_readings_are_checked_against_the_catalogue(tmp_path: Path) -> None:
    text = '[cases.ORB-BAT-11]\naccept = ["refused", "eaten"]\n[cases.ORB-BAT-50]\nlevel = "MAY"\n[cases.X]'
    with pytest.raises(ConfigError) as raised:
        validate(profile(tmp_path, text), {QUEUE.case_id: QUEUE, PLAIN.case_id: PLAIN})
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(
        "[cases.ORB-BAT-11]: the case has no reading 'eaten'; it has refused, kept, dropped"
    )
    assert "[cases.ORB-BAT-50]: there is no such case (did you mean ORB-BAT-05?)" in lines[1]
    assert lines[2].endswith("there is no such case")


def test_readings_of_a_case_that_has_none_are_a_mistake(tmp_path: Path) -> None:
    ours = profile(tmp_path, '[cases.ORB-BAT-05]\naccept = []\ntolerate = ["kept"]')
    with pytest.raises(ConfigError, match=r"no reading 'kept'; it has none"):
        validate(ours, {PLAIN.case_id: PLAIN})


def test_a_right_profile_is_validated_silently(tmp_path: Path) -> None:
    ours = profile(tmp_path, '[cases.ORB-BAT-11]\naccept = ["refused"]\ntolerate = ["kept"]')
    validate(ours, {QUEUE.case_id: QUEUE})


def test_a_pattern_stands_for_each_case_that_has_no_entry(tmp_path: Path) -> None:
    loaded = profile(
        tmp_path,
        '[cases."ORB-BAT-*"]\nskip = "none of these"\nlevel = "MAY"\n[cases.ORB-BAT-05]\nlevel = "SHOULD"',
    )
    assert (loaded.skip(QUEUE), loaded.level(QUEUE)) == ("none of these", Level.MAY)
    assert (loaded.skip(PLAIN), loaded.level(PLAIN)) == (None, Level.SHOULD)
    assert loaded.skip(a_case("ORB-REG-01")) is None
    validate(loaded, {"ORB-BAT-11": QUEUE, "ORB-BAT-05": PLAIN})


def test_a_pattern_must_fit_some_case_and_know_its_readings(tmp_path: Path) -> None:
    strange = profile(tmp_path, '[cases."ORB-NIL-*"]\n[cases."ORB-BAT-1*"]\naccept = ["lost"]')
    with pytest.raises(ConfigError) as caught:
        validate(strange, {"ORB-BAT-11": QUEUE})
    assert "there is no such case" in str(caught.value)
    assert "no reading 'lost'" in str(caught.value)


def test_extensions_are_no_part_of_the_spec() -> None:
    case = a_case("ORB-EXT-99")
    assert "no part of the spec" in (load_profile("spec").skip(case) or "")
    assert load_profile("orbtrio").skip(case) is load_profile("hardened").skip(case) is None
