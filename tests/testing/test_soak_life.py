"""Plans have a size and a command; what is left over when an epoch is over is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.testing import _soak_life
from orbtrio.testing._soak_life import Life, Plan
from orbtrio.testing.soak import SoakFailure, run_soak

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Plan(seed=2, jobs=100, faults=20, hours=1)


def test_a_plan_has_epochs_and_a_command_that_repeats_it() -> None:
    assert (TINY.epochs, Plan(seed=1).epochs) == (3, 143)
    assert TINY.command == ("python -m orbtrio.testing.soak --jobs 100 --faults 20 --hours 1 --seed 2")


def after(monkeypatch: pytest.MonkeyPatch, name: str, harm: Callable[[Life], object]) -> None:
    """Do some harm to a life after one of its stages."""
    original: Any = getattr(Life, name)

    async def harmed(life: Life, **how: bool) -> None:
        await original(life, **how)
        harm(life)

    monkeypatch.setattr(Life, name, harmed)


def test_a_file_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    after(
        monkeypatch, "_send_home", lambda life: (life.stage.config.store_root / "left-0.txt").write_text("x")
    )
    with pytest.raises(SoakFailure, match=r"files are left: \['left-0.txt'\]"):
        run_soak(TINY)


def test_a_task_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    after(monkeypatch, "_send_home", lambda life: life.stage.start(trio.sleep, 100))
    with pytest.raises(SoakFailure, match="tasks live"):
        run_soak(TINY)


def test_a_peer_that_stays_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    after(monkeypatch, "_send_home", lambda life: life.stage.connect_worker("stock"))
    with pytest.raises(SoakFailure, match="some are left"):
        run_soak(TINY)


def test_a_job_without_an_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def reopen(life: Life) -> None:
        for job in life.oracle.jobs.values():
            job.end = ""

    after(monkeypatch, "_send_home", reopen)
    with pytest.raises(SoakFailure, match="it has no end"):
        run_soak(TINY)


def test_an_object_that_is_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    after(monkeypatch, "_live_through", lambda life: kept.extend(w._transport for w in life.stage.workers))
    with pytest.raises(SoakFailure, match=r"the engine keeps \{'Transport'"):
        run_soak(TINY)


def test_wrong_books_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def miscount(life: Life) -> None:
        exchange = life.stage.engine._exchange
        assert exchange is not None
        exchange.counters.accepted += 1

    after(monkeypatch, "_live_through", miscount)
    with pytest.raises(SoakFailure, match="are accounted for"):
        run_soak(TINY)


def test_a_file_that_goes_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_soak_life, "files_below", lambda root: [])
    with pytest.raises(SoakFailure, match="files of open jobs are missing"):
        run_soak(Plan(seed=2, jobs=3000, faults=20, hours=1))


def test_a_file_that_goes_too_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    after(
        monkeypatch,
        "_start_engine",
        lambda life: (life.stage.config.store_root / "r0-0.txt").write_text("x"),
    )
    with pytest.raises(SoakFailure, match=r"of jobs that have ended: \['r0'\]"):
        run_soak(TINY)


def test_a_file_that_a_new_engine_has_not_swept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_soak_life, "files_below", lambda root: ["r0-0.txt"])
    with pytest.raises(SoakFailure, match=r"a new engine listens, and has not swept \['r0-0.txt'\]"):
        run_soak(TINY)


def test_progress_is_told_and_time_is_limited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_soak_life, "_TELL", 0.0)
    run_soak(TINY)
    assert " jobs/s, " in capsys.readouterr().out
    with pytest.raises(SoakFailure, match="it takes longer than 0 s"):
        run_soak(Plan(seed=2, jobs=100, faults=20, hours=1, seconds=0))
