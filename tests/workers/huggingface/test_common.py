"""Where models compute, what a wrong MODEL_ID says, and memory that is short."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from orbtrio.errors import ConfigError  # noqa: E402
from workers.huggingface import _common  # noqa: E402
from workers.huggingface._common import Place, Slices, Source, padded, shown  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CPU = Place("cpu", torch.float32)


def source(model_id: str = "some/model") -> Source:
    return Source(model_id, "a chat model", ("one/model", "other/model"), CPU)


def explained(error: Exception) -> str:
    """What whoever started the worker reads when loading raises this."""

    def fail() -> None:
        raise error

    with pytest.raises(ConfigError) as caught:
        source().attempt(fail)
    return str(caught.value)


def named(name: str, base: type[Exception] = OSError) -> type[Exception]:
    """An exception as the hub's library has it, which need not be the version that we know."""
    return type(name, (base,), {})


# --- Where --------------------------------------------------------------------------------------------------


def test_the_processor_takes_single_precision_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Place.choose() == CPU
    assert threads == [1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert Place.choose() == CPU
    assert threads == [1], "PyTorch reads that variable itself"


@pytest.mark.parametrize(("brain_floats", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_takes_half_precision(
    brain_floats: bool, dtype: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: brain_floats)
    assert Place.choose() == Place("cuda", dtype)


def test_inputs_take_on_the_precision_and_ids_stay_whole() -> None:
    inputs = {"ids": torch.ones(1, dtype=torch.long), "pixels": torch.ones(1), "sizes": [1, 2]}
    taken = Place("cpu", torch.float16).take(inputs)
    assert {name: value.dtype for name, value in taken.items()} == {
        "ids": torch.long,
        "pixels": torch.float16,
    }


# --- What to change -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (named("GatedRepoError")("401"), "accept its conditions on its page and set HF_TOKEN"),
        (
            named("RepositoryNotFoundError")("404"),
            "the hub has no such model",
        ),
        (named("LocalEntryNotFoundError")("?"), "the hub cannot be reached"),
        (ImportError("requires timm. Run `pip install timm`"), "another package (.*): pip install timm"),
        (ImportError("requires the Torchvision library"), "the torchvision that was built for PyTorch"),
        (ImportError("no module named x"), "needs another package .*: install it"),
        (RuntimeError("operator torchvision::nms does not exist"), "the torchvision that was built"),
        (ValueError("set the option `trust_remote_code=True`"), "set TRUST_REMOTE_CODE=1 if you trust it"),
        (MemoryError(), "does not fit into the memory of this machine"),
        (torch.OutOfMemoryError("CUDA"), "does not fit into the memory of this machine"),
        (KeyError("model_type"), "cannot be loaded as a chat model .KeyError: 'model_type'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_failure_says_what_to_do(error: Exception, advice: str) -> None:
    text = explained(error)
    assert text.startswith("MODEL_ID is 'some/model': ")
    assert text.endswith("Known to fit: one/model, other/model")
    assert __import__("re").search(advice, text), text


def test_what_the_hub_said_is_found_behind_what_transformers_says() -> None:
    error = OSError("We had trouble")
    error.__cause__ = named("GatedRepoError")("401")
    assert "HF_TOKEN" in explained(error)


def test_a_circle_of_causes_ends() -> None:
    error, other = OSError("one"), OSError("other")
    error.__cause__, other.__cause__ = other, error
    assert "OSError: one" in explained(error)


def test_a_directory_that_is_missing_is_not_looked_for_on_the_hub() -> None:
    for model_id in ("/no/such", "./no-such", "~/no-such"):
        with pytest.raises(ConfigError, match=r"no such directory\. Known to fit: one/model"):
            source(model_id)


def test_no_text_holds_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in explained(OSError("no access with\nhf_secret"))
    assert shown(OSError("a\n b")) == "OSError: a b"
    assert len(shown(OSError("x" * 1000))) < 400


def test_a_class_that_does_not_exist_is_an_error_of_ours_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded as a chat model"):
        source(str(tmp_path)).part("AutoConfig")


@pytest.mark.parametrize(("value", "trusted"), [("1", True), ("0", False), ("", False)])
def test_code_of_others_runs_only_if_allowed(
    value: str, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", value)
    assert _common.trusted() is trusted


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    package = sys.modules["workers.huggingface"]
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "workers.huggingface")
    with pytest.raises(ConfigError, match=r"transformers.*pip install '\.\[huggingface\]', or unset"):
        importlib.import_module("workers.huggingface")
    monkeypatch.setattr(sys.modules["workers"], "huggingface", package)


# --- Memory -------------------------------------------------------------------------------------------------


class Memory:
    """A model that can take so many items at once."""

    def __init__(self, room: int, error: Exception | None = None) -> None:
        self.room = room
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.calls: list[list[Any]] = []

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.calls.append(list(items))
        if len(items) > self.room:
            raise self.error
        return [item * 10 for item in items]


def test_what_fits_is_one_pass() -> None:
    memory = Memory(room=9)
    assert Slices().run([1, 2, 3], memory) == [10, 20, 30]
    assert memory.calls == [[1, 2, 3]]


def test_nothing_is_no_pass() -> None:
    memory = Memory(room=9)
    assert Slices().run([], memory) == []
    assert memory.calls == []


def test_what_does_not_fit_is_halved_and_remembered() -> None:
    memory, slices = Memory(room=2), Slices()
    assert slices.run([1, 2, 3, 4, 5], memory) == [10, 20, 30, 40, 50]
    assert memory.calls == [[1, 2, 3, 4, 5], [1, 2], [3, 4], [5]]
    memory.calls.clear()
    slices.run([1, 2, 3], memory)
    assert memory.calls == [[1, 2], [3]]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_job_too_large_alone_is_told_so(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    with pytest.raises(ValueError, match="does not fit into the memory of this worker"):
        Slices().run([1, 2], Memory(room=0, error=error))
    assert emptied == [True, True]


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        Slices().run([1], Memory(room=0, error=RuntimeError("size mismatch")))


def test_alike_sizes_go_together_and_results_come_back_in_order() -> None:
    memory, slices = Memory(room=9), Slices(most=2)
    assert slices.run_sorted([5, 1, 4, 2], lambda item: item, memory) == [50, 10, 40, 20]
    assert memory.calls == [[1, 2], [4, 5]]


# --- Padding ------------------------------------------------------------------------------------------------


def test_texts_are_padded_on_the_side_that_is_asked_for() -> None:
    right = padded([[7, 8], [9]], filler=1)
    left = padded([[7, 8], [9]], filler=None, left=True, length=3)
    assert right["input_ids"].tolist() == [[7, 8], [9, 1]]
    assert right["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert left["input_ids"].tolist() == [[0, 7, 8], [0, 0, 9]]
    assert left["attention_mask"].tolist() == [[0, 1, 1], [0, 0, 1]]
