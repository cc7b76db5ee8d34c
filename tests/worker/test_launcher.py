from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orbtrio.worker import launcher

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.processes
def test_in_a_checkout_the_workers_are_its_own_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise SystemExit('somebody else')")
    command = [sys.executable, "-m", "orbtrio.worker.launcher", "motion_energy", "--help"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: python -m workers.motion_energy [OPTIONS]")


@pytest.mark.processes
def test_installed_the_workers_are_orbtrio_s(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "orbtrio", tmp_path / "orbtrio", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "workers", tmp_path / "orbtrio_workers")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "orbtrio.worker.launcher"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stderr
    assert "orbtrio-worker TYPE" in done.stdout


def test_an_installation_without_workers_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_ROOT", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="has no workers"):
        launcher.main()


def test_what_is_inherited_stays_behind_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setattr(sys, "path", list(sys.path))
    ran: list[str] = []
    monkeypatch.setattr(runpy, "run_module", lambda name, **options: ran.append(name))
    launcher.main()
    assert ran == ["workers"]
    assert os.environ["PYTHONPATH"] == f"{ROOT}{os.pathsep}elsewhere"
    assert sys.path[0] == str(ROOT)
