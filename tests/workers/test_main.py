from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from workers import __main__ as program
from workers import _catalogue
from workers._catalogue import KINDS, State

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
FLEET = '[[worker]]\ntype = "motion_energy"\ncount = 2\n'


def invoke(*arguments: str, **environ: str | None) -> Any:
    return CliRunner().invoke(program.main, list(arguments), env=environ)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a package of llm, or of MODEL_ID, not be there."""

    def lacks(extra: str) -> None:
        def look(model: _catalogue.Model) -> State:
            if model.extra != extra:
                return State((), "")
            return State(("something",), f"pip install '.[{extra}]'")

        monkeypatch.setattr(_catalogue, "look", look)

    return lacks


def test_without_a_command_it_lists_every_worker(missing: Callable[[str], None]) -> None:
    missing("llm")
    result = invoke()
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines() if line.split()[:1] and line[0] != " "][
        1 : len(KINDS) + 1
    ] == list(KINDS)
    assert "motion_energy        ready" in result.output
    assert "llm                  missing" in result.output
    assert "not installed: something\n" in result.output
    assert "pip install '.[llm]'\n" in result.output
    assert "caption              MODEL_ID" in result.output
    assert "models of Hugging Face: ready." in result.output


def test_the_list_says_what_model_id_needs(missing: Callable[[str], None]) -> None:
    missing("huggingface")
    assert "needs something:\n  pip install '.[huggingface]'\n" in invoke().output


@pytest.mark.processes
def test_a_worker_is_run_by_its_name_and_gets_its_arguments() -> None:
    command = [sys.executable, "-m", "workers", "motion_energy", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: python -m workers.motion_energy [OPTIONS]")
    assert "WORKER_SECRET" in done.stdout


def test_a_worker_without_its_packages_says_what_to_install(
    missing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_module(name: str, **options: Any) -> None:
        raise ModuleNotFoundError("No module named 'xllamacpp'", name="xllamacpp")

    monkeypatch.setattr(runpy, "run_module", run_module)
    monkeypatch.setattr(sys, "argv", ["workers"])
    missing("llm")
    result = invoke("llm")
    assert result.exit_code == 2
    assert "Error: llm needs xllamacpp, which is not installed: pip install '.[llm]'" in result.output
    assert isinstance(invoke("motion_energy").exception, ModuleNotFoundError)


def test_check_reads_the_file_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    result = invoke("run", str(path), "--check", WORKER_SECRET=None)
    assert (result.exit_code, result.output) == (0, f"{path}: 2 workers: 2 motion_energy\n")
    path.write_text(FLEET + "size = 3\n")
    result = invoke("run", str(path), "--check")
    assert result.exit_code == 2
    assert "'size' means nothing here" in result.output


def test_a_fleet_without_the_secret_is_not_started(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    result = invoke("run", str(path), WORKER_SECRET=None)
    assert result.exit_code == 2
    assert "WORKER_SECRET is not set" in result.output


def test_the_exit_status_is_the_fleet_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    monkeypatch.setattr(trio, "run", lambda *arguments: 2)
    assert invoke("run", str(path), WORKER_SECRET="x").exit_code == 2
