from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image as Pictures

from orbtrio.client._program_inputs import Refused
from orbtrio.client._program_pictures import draw_result, require_pillow, shrink
from orbtrio.inputs import Image
from orbtrio.protocol.messages import MAX_RESOURCE_BYTES

BOX = {"x_min": 10, "y_min": 10, "x_max": 50, "y_max": 40}
OUTPUT = {"detections": [{"label": "cat", "score": 0.9, "box": BOX}]}


def test_a_result_is_drawn_on_the_picture_that_was_sent(tmp_path: Path) -> None:
    Pictures.new("RGB", (700, 500)).save(tmp_path / "a cat.jpg")
    path = draw_result(tmp_path, 7, "in/a cat.jpg", Image(tmp_path / "a cat.jpg"), OUTPUT)
    assert path == tmp_path / "000007-a_cat.png"
    with Pictures.open(path) as drawn:
        assert drawn.size == (700, 500)


def test_pictures_in_memory_have_no_name(tmp_path: Path) -> None:
    file = io.BytesIO()
    Pictures.new("RGB", (700, 500)).save(file, "PNG")
    path = draw_result(tmp_path, 0, None, Image(file.getvalue()), OUTPUT)
    assert path == tmp_path / "000000-picture.png"


def test_pictures_are_drawn_upright_as_workers_see_them(tmp_path: Path) -> None:
    turned = Pictures.Exif()
    turned[0x0112] = 6
    Pictures.new("RGB", (700, 500)).save(tmp_path / "x.jpg", exif=turned)
    path = draw_result(tmp_path, 0, "x.jpg", Image(tmp_path / "x.jpg"), OUTPUT)
    assert path is not None
    with Pictures.open(path) as drawn:
        assert drawn.size == (500, 700)


def test_what_cannot_be_seen_makes_no_file(tmp_path: Path) -> None:
    Pictures.new("RGB", (700, 500)).save(tmp_path / "x.jpg")
    assert draw_result(tmp_path, 0, "x.jpg", Image(tmp_path / "x.jpg"), {"embedding": [0.1]}) is None
    assert list(tmp_path.glob("*.png")) == []


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not drawn: UnidentifiedImageError"):
        draw_result(tmp_path, 0, None, Image(b"no picture"), OUTPUT)
    Pictures.new("RGB", (700, 500)).save(tmp_path / "x.jpg")
    with pytest.raises(Refused, match="not drawn: ValueError: not a result that can be drawn"):
        draw_result(tmp_path, 0, None, Image(tmp_path / "x.jpg"), {"detections": [3]})


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    Pictures.new("RGB", (700, 500)).save(tmp_path / "x.jpg")
    path = draw_result(tmp_path, 0, "ö" * 120 + ".jpg", Image(tmp_path / "x.jpg"), OUTPUT)
    assert path == tmp_path / f"000000-{'ö' * 100}.png"


def test_a_full_disk_leaves_no_half_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    Pictures.new("RGB", (700, 500)).save(tmp_path / "x.jpg")
    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(Refused, match="No space left on device"):
        draw_result(tmp_path, 0, "x.jpg", Image(tmp_path / "x.jpg"), OUTPUT)
    assert list(tmp_path.glob("*.png")) == []


def test_large_pictures_are_made_to_fit(tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Pictures.new("RGB", (70, 50)).save(small)
    assert shrink(small) == Image(small)
    Pictures.effect_noise((2100, 1500), 200).save(large)
    assert large.stat().st_size > MAX_RESOURCE_BYTES
    made = shrink(large).source
    assert isinstance(made, bytes)
    assert len(made) <= MAX_RESOURCE_BYTES
    with Pictures.open(io.BytesIO(made)) as picture:
        assert picture.width == pytest.approx(picture.height * 1.4, rel=0.01)


def test_what_is_too_large_and_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    with pytest.raises(Refused, match=r"x\.jpg: No such file"):
        shrink(path)
    path.write_bytes(bytes(MAX_RESOURCE_BYTES + 1))
    with pytest.raises(Refused, match=r"x\.jpg: cannot identify image file"):
        shrink(path)
    path.write_bytes(b"P6 999999 999999 255\n" + bytes(MAX_RESOURCE_BYTES))
    with pytest.raises(Refused, match=r"x\.jpg: DecompressionBombError"):
        shrink(path)


def test_without_pillow_the_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    require_pillow("--pictures")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(Refused, match="--pictures takes Pillow: pip install pillow"):
        require_pillow("--pictures")
