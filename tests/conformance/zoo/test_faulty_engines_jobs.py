"""Faults about answers, time, and peers that go can be seen where it is said that they can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.zoo.scenes import assert_shows, of_module

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.mutants import Mutant


@pytest.mark.parametrize("known", of_module("faulty_engines_jobs"))
def test_the_fault_shows(known: Mutant, tmp_path: Path) -> None:
    assert_shows(known, tmp_path)
