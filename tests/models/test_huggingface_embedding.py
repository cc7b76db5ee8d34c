"""Embedding with tiny checkpoints of BERT, SigLIP and SigLIP 2, in this process and at a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from orbtrio.errors import ConfigError
from orbtrio.worker import WorkerSettings
from tests.models import checkpoints
from tests.models.answers import answers_of
from tests.models.photographs import photograph_path
from tests.models.serving import serving
from workers import embedding

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

TEXTS = ("a cat", "a person in the street and a fox, what else?", "how many?")
PHOTOGRAPHS = [str(photograph_path(name)) for name in ("chelsea", "rocket")]


def load(checkpoint: Path) -> embedding.Embedder:
    return embedding.load(
        WorkerSettings(worker_type="embedding", worker_secret="hush", model_id=str(checkpoint))
    )


def vectors(worker: embedding.Embedder, *inputs: dict[str, Any]) -> NDArray[np.float64]:
    """The vectors of a batch, after a look at their shape."""
    results = worker([worker.prepare(job_input) for job_input in inputs])
    for result in results:
        assert result.keys() == {"embedding", "shape"}
        assert result["shape"] == [32]
        assert np.linalg.norm(result["embedding"]) == pytest.approx(1, abs=1e-5)
    return np.array([result["embedding"] for result in results])


@pytest.mark.parametrize("family", ["bert", "siglip", "siglip2"])
def test_texts_have_the_vectors_of_each_alone(family: str, tmp_path: Path) -> None:
    worker = load(getattr(checkpoints, family)(tmp_path))
    inputs: list[dict[str, Any]] = [{"text": text, "prompt_name": "query"} for text in TEXTS]
    together = vectors(worker, *inputs, {"text": ""}, {"text": "word " * 500})
    alone = np.concatenate([vectors(worker, job_input) for job_input in inputs])
    np.testing.assert_allclose(together[:3], alone, atol=1e-5)
    assert len({tuple(vector) for vector in together}) == 5


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_pictures_share_the_space_of_texts(family: str, tmp_path: Path) -> None:
    worker = load(getattr(checkpoints, family)(tmp_path))
    inputs = [{"filepath": path} for path in PHOTOGRAPHS]
    together = vectors(worker, *inputs, {"text": "a cat"})
    alone = np.concatenate([vectors(worker, job_input) for job_input in inputs])
    np.testing.assert_allclose(together[:2], alone, atol=1e-5)
    assert abs(float(alone[0] @ alone[1])) < 0.9999


def test_a_model_for_texts_refuses_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="filepath: the model of this worker is for texts only"):
        load(checkpoints.bert(tmp_path)).prepare({"filepath": PHOTOGRAPHS[0]})


def test_what_lies_beside_the_weights_counts(tmp_path: Path) -> None:
    mean = vectors(load(checkpoints.bert(tmp_path / "plain")), {"text": "a cat"})
    e5 = load(checkpoints.bert(tmp_path / "my-e5"))
    first = checkpoints.bert(tmp_path / "first")
    checkpoints.with_pooling(first, prompts={"query": "query: "}, pooling_mode_cls_token=True)
    worker = load(first)
    assert not np.allclose(vectors(worker, {"text": "a cat"}), mean)
    asked, passage = vectors(e5, {"text": "a cat", "prompt_name": "query"}, {"text": "a cat"})
    assert not np.allclose(asked, passage), "E5's prompts"
    np.testing.assert_allclose(
        vectors(worker, {"text": "a cat", "prompt_name": "query"}),
        vectors(worker, {"text": "query: a cat", "prompt_name": "passage"}),
        atol=1e-6,
    )


@pytest.mark.parametrize("family", ["d_fine", "vit_gpt2"])
def test_models_of_another_kind_are_told_so(family: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MODEL_ID is .*an embedding model.*google/siglip2.*e5-small"):
        load(getattr(checkpoints, family)(tmp_path))


async def test_a_worker_with_such_a_model_answers_at_an_engine(tmp_path: Path) -> None:
    checkpoint = checkpoints.siglip(tmp_path / "model")
    with serving("embedding", tmp_path, MODEL_ID=str(checkpoint)) as served:
        text, picture, bad = await answers_of(
            served, "embedding", {"text": TEXTS[0]}, {"filepath": PHOTOGRAPHS[0]}, {"filepath": "/no/such"}
        )
        assert served.peak_megabytes() < 1500
    assert text["shape"] == picture["shape"] == [32]
    assert bad == {"error": "filepath: there is no such file"}
