"""Outlines on photographs: SSD-MobileNetV2 and U2-Net-P, in this process and as a worker at a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from PIL import Image, ImageDraw

import orbtrio
from tests.models.answers import answers_of
from tests.models.photographs import photograph, photograph_path
from tests.models.serving import serving
from tests.workers.outlines import decode
from workers.builtin import u2net

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.models.serving import Served
    from workers._detections import Mask
    from workers.builtin.u2net import Segmenter

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(180),
    # pycocotools 2.0.11, of its own decoder.
]

# Drawn by hand, roughly: "x,y x,y …".
CAT = (
    "68,0 40,40 28,90 32,150 56,190 101,240 100,297 300,297 310,260 327,220 361,170 366,130 363,100 389,20"
    " 395,0"
)
ASTRONAUT = (
    "154,60 160,34 192,17 243,17 288,43 301,85 288,137 307,205 358,273 369,358 365,511 19,511 26,392 51,273"
    " 115,222 115,171 160,119"
)


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return u2net.load()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving("segmentation", tmp_path_factory.mktemp("segmentation")) as served:
        yield served


def drawn(outline: str, size: tuple[int, int]) -> Mask:
    picture = Image.new("1", size)
    points = [tuple(map(int, point.split(","))) for point in outline.split()]
    ImageDraw.Draw(picture).polygon(points, fill=1)
    mask: Mask = np.asarray(picture)
    return mask


def likeness(one: Mask, other: Mask) -> float:
    """Shared by joint area."""
    assert one.shape == other.shape
    return float(np.count_nonzero(one & other) / np.count_nonzero(one | other))


@pytest.mark.parametrize(
    ("name", "label", "outline"), [("chelsea", "cat", CAT), ("astronaut", "person", ASTRONAUT)]
)
def test_outline_is_that_of_the_thing(name: str, label: str, outline: str, model: Segmenter) -> None:
    picture = photograph(name)
    ((found, *others),) = model.segment([picture], [None])
    assert others == []
    assert (found.label, found.score > 0.75) == (label, True)
    assert likeness(found.mask, drawn(outline, picture.size)) > 0.85


def test_wheels_belong_to_the_motorcycle_and_the_garage_does_not(model: Segmenter) -> None:
    ((found,),) = model.segment([photograph("motorcycle_left")], [None])
    assert found.label == "motorcycle"
    for x, y in ((195, 345), (230, 195), (400, 220), (400, 300), (615, 360)):
        assert found.mask[y, x], f"the motorcycle at {x}, {y}"
    for x, y in ((80, 160), (300, 110), (480, 420), (650, 120), (400, 420)):
        assert not found.mask[y, x], f"the garage at {x}, {y}"
    assert 0.2 < found.mask.mean() < 0.4


def test_outlines_stay_in_their_boxes(model: Segmenter) -> None:
    ((cup, table),) = model.segment([photograph("coffee")], [None])
    assert (cup.label, table.label) == ("cup", "dining table")
    left, top, right, bottom = u2net.whole_pixels(cup.box, (600, 400))
    assert cup.mask[top:bottom, left:right].sum() == cup.mask.sum() > 0.6 * (right - left) * (bottom - top)


@pytest.mark.parametrize(
    ("prompts", "labels"),
    [
        (["cup"], ["cup"]),
        (["CUPS"], ["cup"]),
        (["desk", "coffee mug", "table"], ["dining table"]),
        (["a cup", "spoon"], ["cup"]),
        (["tasse de café", "cup of coffee"], ["cup"]),
        (["kitten", "dragon", "sky", ""], []),
    ],
)
def test_prompts_choose_by_name_and_by_meaning(
    prompts: list[str], labels: list[str], model: Segmenter
) -> None:
    meant = model.labels.meant(prompts)
    assert [label for label in ("cup", "dining table") if label in meant] == labels


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("kitten", "cat"),
        ("puppy", "dog"),
        ("motorbike", "motorcycle"),
        ("the red motorcycle", "motorcycle"),
        ("automobile", "car"),
        ("sofa", "couch"),
        ("television", "tv"),
        ("fridge", "refrigerator"),
        ("man", "person"),
        ("voiture", "car"),
        ("chien", "dog"),
    ],
)
def test_other_words_mean_names(prompt: str, label: str, model: Segmenter) -> None:
    assert label in model.labels.meant([prompt])


@pytest.mark.parametrize("prompt", ["dragon", "sky", "window", "grass", "democracy", "flag"])
def test_what_has_no_name_means_nothing(prompt: str, model: Segmenter) -> None:
    assert model.labels.meant([prompt]) == set()


async def test_worker_outlines_through_an_engine_and_bad_pictures_spoil_nobodys_answer(
    served: Served,
) -> None:
    whole = photograph_path("chelsea").read_bytes()
    cat, cut, kitten, dogs, wrong, missing = await answers_of(
        served,
        "segmentation",
        {"filepath": orbtrio.Image(whole)},
        {"filepath": orbtrio.Image(whole[:5000])},
        {"filepath": orbtrio.Image(whole), "prompts": ["kitten"]},
        {"filepath": orbtrio.Image(whole), "prompts": ["dog"]},
        {"filepath": orbtrio.Image(whole), "prompts": "dog"},
        {"filepath": "/no/such.png"},
    )
    assert cat.keys() == {"masks", "labels", "boxes"}
    assert cat["labels"] == ["cat"]
    assert np.shape(cat["boxes"]) == (1, 4)
    assert cat["masks"][0].keys() == {"size", "counts"}
    mask = decode(cat["masks"][0])
    assert likeness(mask, drawn(CAT, (451, 300))) > 0.85
    assert kitten == cat
    assert dogs == {"masks": [], "labels": [], "boxes": []}
    assert cut["error"].startswith("filepath: not a picture that can be read")
    assert wrong == {"error": "prompts: expected a list of texts"}
    assert missing == {"error": "filepath: there is no such file"}


async def test_batch_tells_how_far_it_is(served: Served) -> None:
    percents: list[list[int]] = []

    async def follow(client: orbtrio.Client) -> None:
        mine: list[int] = []
        percents.append(mine)
        job_input = {"filepath": orbtrio.Image(photograph_path("chelsea"))}
        async with client.stream("segmentation", job_input) as stream:
            async for piece in stream:
                mine.append(piece["percent"])
        assert stream.output["labels"] == ["cat"]

    async with served.connect() as client, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(follow, client)
    assert any(percents), "the last of a batch waited for the others"
    assert all(mine == sorted(set(mine)) and all(0 < percent < 100 for percent in mine) for mine in percents)


async def test_memory_is_bounded(served: Served) -> None:
    assert served.peak_megabytes() < 750
