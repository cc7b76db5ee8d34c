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


@pytest.mark.parametrize("share", range(3))
def test_each_kind_hits_somebody_and_is_survived(monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    kinds = KINDS[share::3]

    def some(faults: Faults) -> dict[str, Any]:
        return {kind: (1, everything.__get__(faults)[kind][1]) for kind in kinds}

    everything: Any = Faults.__dict__["_kinds"]
    monkeypatch.setattr(Faults, "_kinds", property(some))
    report = run_soak(Plan(seed=2, jobs=400, faults=150, hours=0.5))
    assert [kind for kind in kinds if not report.counts[f"fault: {kind}"]] == []
