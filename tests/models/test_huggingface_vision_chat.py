"""Chat about pictures with tiny checkpoints of LLaVA, SmolVLM and Qwen 2.5 VL, here and at a real engine.

Without torchvision, whose video processors the last two have: see `vision_chat.load_processor`.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.errors import ConfigError
from orbtrio.worker import Job, WorkerSettings
from tests.models import checkpoints
from tests.models.answers import answers_of
from tests.models.photographs import photograph_path
from tests.models.serving import serving
from workers import vlm

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

FAMILIES = ("llava", "smolvlm", "qwen2_5_vl")


def load(checkpoint: Path) -> vlm.VisionChat:
    return vlm.load(WorkerSettings(worker_type="vlm", worker_secret="hush", model_id=str(checkpoint)))


def chat(words: str, *photographs: str, max_tokens: int = 8) -> dict[str, Any]:
    parts = [{"type": "image", "image": str(photograph_path(name))} for name in photographs]
    content = [*parts, {"type": "text", "text": words}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens}


INPUTS = [
    chat("what is in the picture?", "chelsea"),
    chat("describe it", "coffee", "rocket"),
    chat("how many people are there?"),
    chat("a <image> that is not <|image_pad|> there<|im_end|>", "astronaut"),
]


def responses(worker: vlm.VisionChat, *inputs: dict[str, Any]) -> list[str]:
    jobs = [Job(worker.prepare(job_input)) for job_input in inputs]
    results = worker(jobs)
    assert [result.keys() for result in results if not isinstance(result, Exception)] == [
        {"response"} for _ in inputs
    ]
    return [result["response"] for result in results if not isinstance(result, Exception)]


@pytest.mark.parametrize("family", FAMILIES)
def test_chats_of_a_batch_get_the_answers_of_each_alone(family: str, tmp_path: Path) -> None:
    worker = load(getattr(checkpoints, family)(tmp_path))
    together = responses(worker, *INPUTS)
    assert together == [responses(worker, job_input)[0] for job_input in INPUTS]
    assert all(together)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_sees_the_picture(family: str, tmp_path: Path) -> None:
    worker = load(getattr(checkpoints, family)(tmp_path))
    model: Any = worker._model
    cat, rocket = (
        model._inputs([worker.prepare(chat("a cat", name)).messages])["pixel_values"].float().mean().item()
        for name in ("chelsea", "rocket")
    )
    assert cat != pytest.approx(rocket, abs=0.01)


def test_a_chat_beyond_the_context_is_told_so(tmp_path: Path) -> None:
    worker = load(checkpoints.smolvlm(tmp_path))
    with pytest.raises(ValueError, match=r"messages: \d+ tokens are too many, at most 255; send fewer"):
        responses(worker, chat("x" * 300, "chelsea"))


@pytest.mark.parametrize("family", ["llama", "siglip"])
def test_models_of_another_kind_are_told_so(family: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a vision language model.*SmolVLM-256M.*llava"):
        load(getattr(checkpoints, family)(tmp_path))


async def test_a_worker_with_such_a_model_streams_at_an_engine(tmp_path: Path) -> None:
    checkpoint = checkpoints.smolvlm(tmp_path / "model")
    with serving("vlm", tmp_path, MODEL_ID=str(checkpoint)) as served:
        together = await answers_of(served, "vlm", *INPUTS)
        assert [(await answers_of(served, "vlm", one))[0] for one in INPUTS] == together
        async with served.connect() as client, client.stream("vlm", INPUTS[0]) as stream:
            text = "".join([piece["text"] async for piece in stream])
            assert {"response": text} == stream.output == together[0]
        bad = chat("what?")
        bad["messages"][0]["content"].append({"type": "image", "image": "/no/such"})
        assert await answers_of(served, "vlm", bad) == [
            {"error": "messages[0].content[1].image: there is no such file"}
        ]


@pytest.mark.parametrize(
    ("worker_type", "model_id", "advice"),
    [
        ("vlm", "", "set it to HuggingFaceTB/SmolVLM-256M-Instruct, which is small, or llava-hf/"),
        ("caption", "builtin", "set it to Salesforce/blip-image-captioning-base for captions, or"),
    ],
)
def test_a_worker_without_its_model_ends_with_advice(worker_type: str, model_id: str, advice: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", f"workers.{worker_type}"],
        env={"WORKER_SECRET": "hush", "MODEL_ID": model_id, "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert advice in ended.stderr
    assert "Traceback" not in ended.stderr
