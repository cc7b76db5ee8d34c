"""Each kind of fault hits somebody, and an engine that meets only this kind keeps all promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from orbtrio.testing._soak_faults import Faults
from orbtrio.testing.soak import Plan, run_soak

if TYPE_CHECKING:
    from orbtrio.testing._soak_faults import Field

# No kind looks at its field before it strikes.
KINDS = Faults(cast("Field", None)).kinds


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_survived(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def only(faults: Faults) -> dict[str, Any]:
        return {kind: everything.__get__(faults)[kind]}

    everything: Any = Faults.__dict__["_kinds"]
    monkeypatch.setattr(Faults, "_kinds", property(only))
    report = run_soak(Plan(seed=2, jobs=60, faults=9, hours=0.3))
    assert report.counts[f"fault: {kind}"] >= 5
