"""SSD-MobileNetV2 on photographs, in this process and as a worker at a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageOps

import orbtrio
from tests.models.answers import answers_of
from tests.models.photographs import FILES, photograph, photograph_path
from tests.models.serving import serving
from workers._detections import overlap
from workers.builtin import ssd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.models.serving import Served
    from workers._detections import Box, Detection
    from workers.builtin.ssd import Detector

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

# Drawn by hand.
THINGS: dict[str, tuple[str, Box]] = {
    "astronaut": ("person", (15, 10, 370, 510)),
    "camera": ("person", (0, 65, 330, 510)),
    "chelsea": ("cat", (20, 0, 405, 300)),
    "coffee": ("cup", (175, 15, 410, 250)),
    "motorcycle_left": ("motorcycle", (95, 70, 680, 450)),
}


@pytest.fixture(scope="module")
def model() -> Detector:
    return ssd.load()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving("object_detection", tmp_path_factory.mktemp("object_detection")) as served:
        yield served


def one(found: list[Detection]) -> tuple[str, Box]:
    assert found[0].score > 0.75
    return found[0].label, found[0].box


@pytest.mark.parametrize("name", THINGS)
def test_thing_is_called_by_its_name_and_its_box_covers_it(name: str, model: Detector) -> None:
    (found,) = model.detect([photograph(name)])
    label, box = one(found)
    assert label == THINGS[name][0]
    assert overlap(box, THINGS[name][1]) > 0.8


def test_nothing_is_seen_where_there_is_nothing_to_name(model: Detector) -> None:
    assert (
        model.detect([photograph("rocket"), Image.new("RGB", (640, 480)), Image.new("RGB", (1, 1))])
        == [[]] * 3
    )


def test_likely_things_only(model: Detector) -> None:
    """Below its limit it takes the astronaut's helmet for a mouse."""
    (likely,), (faint,) = (model.detect([photograph("astronaut")], least=least) for least in (0.6, 0.35))
    assert [detection.label for detection in likely] == ["person"]
    assert "mouse" in [detection.label for detection in faint]


def test_batch_gives_what_each_picture_gives_alone(model: Detector) -> None:
    pictures = [photograph(name) for name in FILES] + [photograph("chelsea").resize((200, 500))] * 4
    together = model.detect(pictures)
    assert len(together) == len(pictures) > ssd.PASS
    for picture, found in zip(pictures, together, strict=True):
        (alone,) = model.detect([picture])
        assert [detection.label for detection in found] == [detection.label for detection in alone]
        for mine, its in zip(found, alone, strict=True):
            assert mine.score == pytest.approx(its.score, abs=0.01)
            assert mine.box == pytest.approx(its.box, abs=2)


def test_mirrored_picture_has_mirrored_boxes(model: Detector) -> None:
    picture = photograph("astronaut")
    (found,), (mirrored,) = (model.detect([one]) for one in (picture, ImageOps.mirror(picture)))
    (x_min, y_min, x_max, y_max) = mirrored[0].box
    assert overlap((512 - x_max, y_min, 512 - x_min, y_max), found[0].box) > 0.85


async def test_worker_finds_the_same_through_an_engine(served: Served) -> None:
    inputs = [{"filepath": orbtrio.Image(photograph_path(name))} for name in THINGS]
    for name, output in zip(THINGS, await answers_of(served, "object_detection", *inputs), strict=True):
        assert output.keys() == {"detections"}
        detection = output["detections"][0]
        assert detection.keys() == {"label", "score", "box"}
        assert detection["label"] == THINGS[name][0]
        assert 0.75 < detection["score"] <= 1
        assert list(detection["box"]) == ["x_min", "y_min", "x_max", "y_max"]
        assert overlap(tuple(detection["box"].values()), THINGS[name][1]) > 0.8


async def test_bad_pictures_spoil_nobodys_answer(served: Served) -> None:
    """WRK-04, WRK-13."""
    whole = photograph_path("chelsea").read_bytes()
    first, cut, missing, last = await answers_of(
        served,
        "object_detection",
        {"filepath": orbtrio.Image(whole)},
        {"filepath": orbtrio.Image(whole[:5000])},
        {"filepath": "/no/such.png"},
        {"filepath": orbtrio.Image(photograph_path("motorcycle_left"))},
    )
    assert first["detections"][0]["label"] == "cat"
    assert cut["error"].startswith("filepath: not a picture that can be read")
    assert missing == {"error": "filepath: there is no such file"}
    assert last["detections"][0]["label"] == "motorcycle"


async def test_large_batch_stays_small_in_memory(served: Served) -> None:
    await answers_of(
        served, "object_detection", *[{"filepath": orbtrio.Image(photograph_path("coffee"))}] * 40
    )
    assert served.peak_megabytes() < 650
