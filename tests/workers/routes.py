"""Models that are fakes, in the places where workers look for theirs."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from workers import builtin

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def fake_routes(
    monkeypatch: pytest.MonkeyPatch, model: Callable[[], Any], **modules: str
) -> list[str | None]:
    """Put a fake in place of modules that load models; PyTorch need not be installed.

    Args:
        monkeypatch: Takes it back.
        model: Makes what is loaded.
        modules: By package, ``builtin`` or ``huggingface``, the module to replace.

    Returns:
        What has been loaded, by its MODEL_ID.
    """
    loaded: list[str | None] = []

    def load(model_id: str | None = None) -> Any:
        loaded.append(model_id)
        return model()

    for package, module in modules.items():
        fake = ModuleType(module)
        vars(fake)["load"] = load
        parent = builtin if package == "builtin" else ModuleType("workers.huggingface")
        monkeypatch.setitem(sys.modules, f"workers.{package}", parent)
        monkeypatch.setitem(sys.modules, f"workers.{package}.{module}", fake)
        monkeypatch.setattr(parent, module, fake, raising=False)
    return loaded
