"""Chats with pictures in, answers out; the model is a fake. Spec: "Vision Language Model (VLM) Worker"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from orbtrio.errors import ConfigError
from orbtrio.worker import Job, JobCancelled, WorkerSettings
from tests.workers.routes import fake_routes
from workers import vlm
from workers.vlm import VisionChat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SETTINGS: dict[str, Any] = {"worker_type": "vlm", "worker_secret": "hush"}


class Viewer:
    """Answers a chat with the sizes of its pictures, one token each."""

    def generate(
        self,
        chats: list[list[dict[str, Any]]],
        *,
        max_tokens: int,
        on_token: Callable[[int, str], None],
        stop: Callable[[int], bool],
    ) -> list[str]:
        return [self._answer(place, chat, on_token, stop) for place, chat in enumerate(chats)]

    def _answer(
        self,
        place: int,
        chat: list[dict[str, Any]],
        on_token: Callable[[int, str], None],
        stop: Callable[[int], bool],
    ) -> str:
        told = ""
        for part in chat[-1]["content"]:
            if part["type"] == "image":
                told += "{}x{} ".format(*part["image"].size)
                on_token(place, "{}x{} ".format(*part["image"].size))
                if stop(place):
                    break
        return told


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., str]:
    """Writes a picture of a size; its path."""

    def save(width: int = 6, height: int = 4) -> str:
        path = tmp_path / f"{width}x{height}.png"
        Image.new("RGB", (width, height), "red").save(path)
        return str(path)

    return save


def image(path: object) -> dict[str, Any]:
    return {"type": "image", "image": path}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def asked(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def run(*inputs: dict[str, Any]) -> tuple[list[dict[str, Any] | Exception], list[Mapping[str, Any]]]:
    """What the worker answers, and what it reports on the way."""
    worker = VisionChat(Viewer())
    reports: list[Mapping[str, Any]] = []
    jobs = [
        Job(
            worker.prepare(job_input), job_id=str(place), report=lambda job_id, fields: reports.append(fields)
        )
        for place, job_input in enumerate(inputs)
    ]
    return worker(jobs), reports


# --- What it answers ----------------------------------------------------------------------------------------


def test_answers_have_the_shape_of_the_spec_and_are_told_in_pieces(picture: Callable[..., str]) -> None:
    results, reports = run(asked(image(picture(6, 4)), text("?"), image(picture(3, 3))), asked(text("?")))
    assert results == [{"response": "6x4 3x3 "}, {"response": ""}]
    assert reports == [{"text": "6x4 "}, {"text": "3x3 "}]


def test_an_answer_ends_after_the_tokens_that_its_job_wants(picture: Callable[..., str]) -> None:
    long, short = asked(image(picture()), image(picture())), asked(image(picture()), image(picture()))
    results, _ = run({**long, "max_tokens": 9}, {**short, "max_tokens": 1})
    assert results == [{"response": "6x4 6x4 "}, {"response": "6x4 "}]


def test_a_cancelled_job_ends_alone(picture: Callable[..., str]) -> None:
    worker = VisionChat(Viewer())
    first, second = (Job(worker.prepare(asked(image(picture())))) for _ in range(2))
    first.cancelled = True
    unwanted, wanted = worker([first, second])
    assert isinstance(unwanted, JobCancelled)
    assert wanted == {"response": "6x4 "}


# --- What it is asked ---------------------------------------------------------------------------------------


def test_messages_keep_what_models_know_of(picture: Callable[..., str]) -> None:
    job_input = {
        "messages": [
            {"role": "system", "content": "Be brief.", "name": "x"},
            {"role": "user", "content": [{**image(picture()), "detail": "high"}, text("what?")]},
        ],
        "temperature": 1,
    }
    question = VisionChat(Viewer()).prepare(job_input)
    system, user = question.messages
    assert question.max_tokens == 512
    assert system == {"role": "system", "content": [text("Be brief.")]}
    assert [part.keys() for part in user["content"]] == [{"type", "image"}, {"type", "text"}]
    assert isinstance(user["content"][0]["image"], Image.Image)


def test_many_pictures_share_the_pixels_of_a_chat(
    picture: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm, "CHAT_PIXELS", 4000)
    results, _ = run(asked(image(picture(100, 10))), asked(*[image(picture(100, 10))] * 16))
    assert results[0] == {"response": "100x10 "}
    assert results[1] == {"response": "50x5 " * 16}


@pytest.mark.parametrize(
    ("job_input", "problem"),
    [
        ({}, "messages: expected a list of messages"),
        ({"messages": []}, "messages: expected a list of messages"),
        ({"messages": ["hello"]}, "messages[0]: expected a message with role and content"),
        ({"messages": [{"role": "robot", "content": []}]}, "messages[0].role: expected one of system, user"),
        ({"messages": [{"role": ["user"], "content": []}]}, "messages[0].role: expected one of system, user"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: expected a list of parts"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content: expected a list of parts"),
        (asked("a"), "messages[0].content[0]: expected {type: 'text', text} or {type: 'image', image}"),
        (asked({"type": "video"}), "messages[0].content[0]: expected {type: 'text', text}"),
        (asked({"type": "text"}), "messages[0].content[0].text: expected text"),
        (asked(text("a"), {"type": "image"}), "messages[0].content[1].image: expected the path of a picture"),
        (asked(image("/no/such.png")), "messages[0].content[0].image: there is no such file"),
        (asked(image(__file__)), "messages[0].content[0].image: not a picture that can be read"),
        (asked(*[image("a.png")] * 17), "messages: 17 pictures are too many, at most 16"),
        ({"messages": asked(text("a"))["messages"] * 1001}, "messages: 1001 are too many, at most 1000"),
        (asked(*[text("a")] * 1001), "messages: 1001 parts are too many, at most 1000"),
        (asked(text("a" * 262_145)), "messages: 262145 characters are too many"),
        ({**asked(text("a")), "max_tokens": 0}, "max_tokens: expected a whole number from 1 to 4096"),
        (
            {"messages": [{"role": "assistant", "content": "Well."}]},
            "messages[0].role: the last message is for the model to answer",
        ),
    ],
)
def test_bad_input_is_told_where(job_input: dict[str, Any], problem: str) -> None:
    """WRK-04."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the text is compared below)
        VisionChat(Viewer()).prepare(job_input)
    assert str(caught.value).startswith(problem)


# --- Loading ------------------------------------------------------------------------------------------------


def test_without_a_model_two_are_named() -> None:
    with pytest.raises(ConfigError, match=r"MODEL_ID is not set.*SmolVLM-256M.*llava.*'\.\[huggingface\]'"):
        vlm.load(WorkerSettings(**SETTINGS))


def test_a_model_is_loaded_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = fake_routes(monkeypatch, Viewer, huggingface="vision_chat")
    worker = vlm.load(WorkerSettings(**SETTINGS, model_id="some/model"))
    assert isinstance(worker, VisionChat)
    assert loaded == ["some/model"]
