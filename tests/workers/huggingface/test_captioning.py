"""A line per picture, and how models are asked; models are fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

from workers.huggingface.captioning import Chat, OwnCode, PictureByPicture

if TYPE_CHECKING:
    from collections.abc import Sequence

ONE, TWO, THREE = (Image.new("RGB", (side, side)) for side in (1, 2, 3))


def sides(asked: Sequence[tuple[Image.Image, str | None]]) -> list[str]:
    return [f"{query} {picture.width}" for picture, query in asked]


def test_each_picture_of_a_job_gets_a_line() -> None:
    batches: list[int] = []

    def forward(asked: Sequence[tuple[Image.Image, str | None]]) -> list[str]:
        batches.append(len(asked))
        return sides(asked)

    lines = PictureByPicture(forward).describe([[ONE, TWO], [THREE]], [None, "why?"])
    assert lines == ["None 1\nNone 2", "why? 3"]
    assert batches == [3]


def test_a_model_that_cannot_be_asked_says_so() -> None:
    captioner = PictureByPicture(sides, asks=False)
    assert captioner.describe([[ONE]], [None]) == ["None 1"]
    with pytest.raises(ValueError, match="query: this model only writes captions; leave it out"):
        captioner.describe([[ONE]], ["why?"])


def test_models_with_their_own_code_are_called_as_moondream_is() -> None:
    class Moon:
        def caption(self, picture: Image.Image) -> dict[str, str]:
            return {"caption": f" {picture.width} wide\n"}

        def query(self, picture: Image.Image, question: str) -> dict[str, str]:
            return {"answer": f"{question} {picture.width}"}

    assert OwnCode(Moon()).forward([(ONE, None), (TWO, "how wide?")]) == ["1 wide", "how wide? 2"]


def test_chat_models_see_all_pictures_of_a_job_together() -> None:
    seen: list[Any] = []

    class Talker:
        def generate(self, chats: list[Any], *, on_token: Any, stop: Any, **options: Any) -> list[str]:
            seen.extend(chats)
            on_token(0, "text")
            assert stop(0) is False
            return [" said "] * len(chats)

    assert Chat(Talker()).describe([[ONE], [ONE, TWO], [TWO]], [None, None, "why?"]) == ["said"] * 3  # type: ignore[arg-type]
    parts = [[part.get("text", part.get("image")) for part in chat[0]["content"]] for chat in seen]
    assert parts == [
        [ONE, "Describe the picture in one sentence."],
        [ONE, TWO, "Describe the pictures in one sentence."],
        [TWO, "why?"],
    ]
