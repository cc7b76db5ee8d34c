"""The gallery of every builtin vision worker, on photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from PIL import Image

from orbtrio.drawing import colour_of
from workers.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

# Full colour on the edges of boxes and outlines, whatever the photographs: at least so many pixels.
LEAST_INK = 1000


@pytest.mark.timeout(240)
def test_every_builtin_vision_worker_draws_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_ID", raising=False)
    result = CliRunner().invoke(main, ["gallery", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == {"object_detection", "segmentation", "video_segmentation", "motion_energy"}, result.output
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            counts: Any = picture.convert("RGB").getcolors(1 << 24)
        ink = sum(count for count, colour in counts if colour in {colour_of(place) for place in range(8)})
        assert ink > LEAST_INK, path.name
