from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.toolkit.settings import ToolkitSettings
from orbtrio.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def toolkit_settings(tmp_path: Path) -> Callable[..., ToolkitSettings]:
    """Settings that could work, except for what the test asks for."""

    def make(**changes: Any) -> ToolkitSettings:
        values: dict[str, Any] = {
            "engine_id": "words",
            "command": ("./words",),
            "process_url": "http://127.0.0.1:8888/process",
            "cache_directory": tmp_path / "cache",
            "worker": WorkerSettings(worker_type="et:words", worker_secret="secret"),
        }
        return ToolkitSettings(**{**values, **changes})

    return make
