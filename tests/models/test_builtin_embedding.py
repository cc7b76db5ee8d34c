"""Texts and photographs in one space, through a real engine: multilingual-e5-small and ConSE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio

import orbtrio
from tests.models.photographs import FILES, photograph, photograph_path
from tests.models.serving import serving
from workers.builtin import e5

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tests.models.serving import Served
    from workers.builtin.e5 import E5

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

# ImageNet has neither astronauts nor photographers, but what they wear and what they carry.
FINDS = {
    "a house cat": "chelsea",
    "eine Katze": "chelsea",
    "a cup of coffee": "coffee",
    "a rocket launch": "rocket",
    "a motorbike": "motorcycle_left",
    "photographer with a tripod": "camera",
    "person wearing a helmet": "astronaut",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving("embedding", tmp_path_factory.mktemp("embedding")) as served:
        yield served


@pytest.fixture(scope="module")
def model() -> E5:
    return e5.load()


async def embed_all(served: Served, *inputs: dict[str, Any]) -> list[NDArray[np.float32]]:
    vectors: dict[int, NDArray[np.float32]] = {}

    async def embed(place: int) -> None:
        output = await client.submit("embedding", inputs[place])
        assert output.keys() == {"embedding", "shape"}
        assert output["shape"] == [384]
        vectors[place] = np.array(output["embedding"], np.float32)
        assert np.linalg.norm(vectors[place]) == pytest.approx(1, abs=1e-3)

    async with served.connect() as client, trio.open_nursery() as nursery:
        for place in range(len(inputs)):
            nursery.start_soon(embed, place)
    return [vectors[place] for place in range(len(inputs))]


async def test_text_finds_its_photograph(served: Served) -> None:
    pictures = await embed_all(
        served, *({"filepath": orbtrio.Image(photograph_path(name))} for name in FILES)
    )
    questions = await embed_all(served, *({"text": text, "prompt_name": "query"} for text in FINDS))
    best = np.argmax(np.stack(questions) @ np.stack(pictures).T, axis=1)
    assert {text: list(FILES)[place] for text, place in zip(FINDS, best, strict=True)} == FINDS


async def test_question_finds_what_answers_it(served: Served) -> None:
    question, *passages = await embed_all(
        served,
        {"text": "how do I feed a kitten?", "prompt_name": "query"},
        {"text": "Young cats need small portions of wet food several times a day."},
        {"text": "Les chatons ont besoin de petites portions plusieurs fois par jour."},
        {"text": "Change the oil of a motorcycle every five thousand kilometres."},
        {"text": "The central bank raised its interest rates again."},
    )
    cat, french_cat, motorcycle, bank = np.stack(passages) @ question
    assert min(cat, french_cat) > max(motorcycle, bank) + 0.03


async def test_texts_and_pictures_of_a_batch_get_their_own_answers(served: Served) -> None:
    cat = {"filepath": orbtrio.Image(photograph_path("chelsea"))}
    text = {"text": "a cup of coffee", "prompt_name": "query"}
    coffee = {"filepath": orbtrio.Image(photograph_path("coffee"))}
    alone = [(await embed_all(served, one))[0] for one in (cat, text, coffee)]
    together = await embed_all(served, cat, text, coffee)
    np.testing.assert_allclose(together, alone, atol=1e-5)


async def test_bad_picture_is_its_own_error_only(served: Served) -> None:
    """WRK-04."""
    outcomes: dict[str, str] = {}

    async def embed(name: str, filepath: object) -> None:
        try:
            outcomes[name] = str((await client.submit("embedding", {"filepath": filepath}))["shape"])
        except orbtrio.JobFailed as error:
            outcomes[name] = error.error

    whole = photograph_path("chelsea").read_bytes()
    async with served.connect() as client, trio.open_nursery() as nursery:
        nursery.start_soon(embed, "whole", orbtrio.Image(whole))
        nursery.start_soon(embed, "cut", orbtrio.Image(whole[:1000]))
        nursery.start_soon(embed, "missing", "/no/such.png")
    assert outcomes["whole"] == "[384]"
    assert outcomes["cut"].startswith("filepath: not a picture that can be read")
    assert outcomes["missing"] == "filepath: there is no such file"


def test_picture_is_near_to_the_name_of_what_is_in_it(model: E5) -> None:
    assert model.encode_pictures is not None
    (cat,) = model.encode_pictures([photograph("chelsea")])
    right, wrong = model.encode_texts(["Egyptian cat", "espresso"], query=False)
    assert float(cat @ right) > float(cat @ wrong) + 0.1


def test_memory_stays_small(served: Served) -> None:
    """80 MB with texts alone, 150 MB with pictures; this one has had both."""
    assert served.peak_megabytes() < 250
