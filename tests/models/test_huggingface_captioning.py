"""Captions with tiny checkpoints of BLIP, ViT-GPT2, a Moondream and a LLaVA, here and at a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import transformers.dynamic_module_utils

from orbtrio.errors import ConfigError
from orbtrio.worker import WorkerSettings
from tests.models import checkpoints
from tests.models.answers import answers_of
from tests.models.photographs import photograph_path
from tests.models.serving import serving
from workers import caption

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

CAT, COFFEE, ROCKET = (str(photograph_path(name)) for name in ("chelsea", "coffee", "rocket"))
JOBS: list[dict[str, Any]] = [
    {"images": [CAT]},
    {"images": [CAT], "query": "a cat"},
    {"images": [COFFEE, ROCKET], "query": "how many people are there?"},
    {"images": [ROCKET], "query": "what is it?"},
]


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Code of checkpoints may run, and is kept nowhere."""
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def load(checkpoint: Path) -> caption.Captions:
    return caption.load(WorkerSettings(worker_type="caption", worker_secret="hush", model_id=str(checkpoint)))


def responses(worker: caption.Captions, *inputs: dict[str, Any]) -> list[str]:
    results = worker([worker.prepare(job_input) for job_input in inputs])
    assert [result.keys() for result in results] == [{"response"} for _ in inputs]
    return [result["response"] for result in results]


@pytest.mark.parametrize("family", ["blip_caption", "blip_vqa", "llava"])
def test_jobs_of_a_batch_get_the_responses_of_each_alone(family: str, tmp_path: Path) -> None:
    worker = load(getattr(checkpoints, family)(tmp_path))
    together = responses(worker, *JOBS)
    assert together == [responses(worker, job_input)[0] for job_input in JOBS]
    assert all(together)


def test_a_caption_goes_on_behind_its_query_and_each_picture_has_a_line(tmp_path: Path) -> None:
    _, cat, two, _ = responses(load(checkpoints.blip_caption(tmp_path)), *JOBS)
    assert cat.startswith("a cat")
    assert [line.startswith("how many people are there?") for line in two.splitlines()] == [True, True]


def test_a_model_that_only_writes_captions_refuses_questions(tmp_path: Path) -> None:
    worker = load(checkpoints.vit_gpt2(tmp_path))
    assert len(responses(worker, {"images": [CAT]}, {"images": [ROCKET]})) == 2
    with pytest.raises(ValueError, match="query: this model only writes captions"):
        responses(worker, JOBS[1])


def test_a_question_longer_than_the_model_reads_is_told_so(tmp_path: Path) -> None:
    worker = load(checkpoints.blip_vqa(tmp_path))
    with pytest.raises(ValueError, match=r"query: \d+ tokens are too many, at most 128"):
        responses(worker, {"images": [CAT], "query": "cat " * 200})


@pytest.mark.usefixtures("trusting")
def test_a_model_with_code_of_its_own_is_called(tmp_path: Path) -> None:
    worker = load(checkpoints.moondream(tmp_path / "moondream"))
    assert responses(worker, *JOBS[:2]) == ["a picture of 451 by 300", "a cat 451"]


def test_code_of_others_does_not_run_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    (tmp_path / "moondream").mkdir()
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n{checkpoints.MOONDREAM}"
    with pytest.raises(ConfigError, match="code of its own: read it, and set TRUST_REMOTE_CODE=1"):
        load(checkpoints.moondream(tmp_path / "moondream", code))
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("trusting")
def test_other_code_is_none_of_this_worker(tmp_path: Path) -> None:
    code = checkpoints.MOONDREAM.replace("def query", "def other")
    with pytest.raises(ConfigError, match=r"Moon, has no caption\(\) and query\(\)"):
        load(checkpoints.moondream(tmp_path / "other", code))


def test_models_of_another_kind_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a model that describes pictures.*blip-image-captioning"):
        load(checkpoints.llama(tmp_path))


async def test_a_worker_with_such_a_model_answers_at_an_engine(tmp_path: Path) -> None:
    checkpoint = checkpoints.blip_caption(tmp_path / "model")
    with serving("caption", tmp_path, MODEL_ID=str(checkpoint)) as served:
        together = await answers_of(served, "caption", *JOBS, {"images": ["/no/such"]})
    assert [output.keys() for output in together[:-1]] == [{"response"}] * 4
    assert together[1]["response"].startswith("a cat")
    assert together[-1] == {"error": "images[0]: there is no such file"}
