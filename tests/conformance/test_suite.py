"""From what a user asked for to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from orbtrio.conformance import spec, suite
from orbtrio.conformance.model import Role
from orbtrio.conformance.profiles import load_profile, validate
from orbtrio.conformance.selftest import zoo_engine
from orbtrio.conformance.suite import Wanted
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

QUICK = Wanted(cases=("ORB-BAT-01", "ORB-BAT-02"), seed=3, examples=4)


def test_every_normative_sentence_has_a_case() -> None:
    assert [f"{sentence.id} {sentence.text}" for sentence in spec.uncovered(suite.all_cases())] == []


def test_cases_cite_what_exists() -> None:
    assert spec.unknown(suite.all_cases()) == ()


@pytest.mark.parametrize("name", ["spec", "orbtrio", "hardened"])
def test_profiles_fit_the_catalogue(name: str) -> None:
    validate(load_profile(name), suite.all_cases())


def test_the_catalogue_is_in_the_order_of_areas() -> None:
    areas = list(dict.fromkeys(case.area for case in suite.all_cases().values()))
    assert areas == [area for area in suite._AREAS if area in areas]


def test_cases_are_chosen_by_pattern() -> None:
    chosen = suite.select(Role.ENGINE, Wanted(cases=("ORB-BAT-*",), exclude=("ORB-BAT-0*",)))
    assert chosen
    assert all(case.case_id.startswith("ORB-BAT-1") for case in chosen)
    with pytest.raises(ConfigError, match=r"none of the cases for engines under test fits 'ORB-NIL-\*'"):
        suite.select(Role.ENGINE, Wanted(cases=("ORB-NIL-*",)))


def test_a_run_writes_its_report_and_tries_first_what_failed(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    wanted = attrs.evolve(QUICK, report=folder)
    failed = suite.run(zoo_engine(("debounced-timer",), zoo), wanted)
    assert failed.exit_code == 1
    assert (folder / "index.html").exists()
    assert (folder / "ORB-BAT-01.json").exists()
    [plan] = suite.known_counterexamples(folder, suite.select(Role.ENGINE, wanted))["ORB-BAT-01"]
    assert failed.results[0].counterexample is not None
    assert plan == failed.results[0].counterexample.plan
    assert suite.run(zoo_engine((), tmp_path / "zoo"), wanted, seed=4).exit_code == 0


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    first, second = (suite.run(zoo_engine((), tmp_path), QUICK) for _ in range(2))
    assert first.seed == second.seed == 3
    assert first.results[0].events[:3] == second.results[0].events[:3]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://127.0.0.1:5000/ws", ("127.0.0.1", 5000, "/ws")),
        ("ws://[::1]:5000", ("::1", 5000, "/")),
        ("ws://localhost/ws", ("localhost", 80, "/ws")),
    ],
)
def test_addresses(url: str, address: tuple[str, int, str]) -> None:
    assert suite.parse_address(url) == address


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "http://x/ws", "wss://x/ws", "ws://x:99999/ws", "ws://"])
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError, match="it looks like ws://"):
        suite.parse_address(url)


def test_machines_of_others_are_left_alone() -> None:
    suite.check_host("127.0.0.1", own=False)
    suite.check_host("::1", own=False)
    suite.check_host("localhost", own=False)
    suite.check_host("10.0.0.1", own=True)
    for host in ("10.0.0.1", "engine.example"):
        with pytest.raises(ConfigError, match="--i-own-this-host"):
            suite.check_host(host, own=False)
