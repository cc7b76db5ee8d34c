"""What every model of Hugging Face needs: where it computes, how it is loaded, how much it takes at once.

**Where.** On the first GPU that ``CUDA_VISIBLE_DEVICES`` leaves, in half precision, else on the processor in
single precision with as many threads as ``OMP_NUM_THREADS`` says, by default one: threads wait for each other
by spinning, and beside busy neighbours two take several times as long as one.

**Loading.** A wrong ``MODEL_ID`` shows in many ways, a connection error, a missing file, a class that does
not fit, and whoever started the worker sees one line of it. So `Source` turns whatever transformers raises
into a `ConfigError` that says what to change. Tokens for gated models are the hub library's business: it
reads ``HF_TOKEN`` itself. Checkpoints that bring code of their own run it with all rights of the worker, so
that must be allowed by ``TRUST_REMOTE_CODE=1``.

**How much.** Nobody knows beforehand what fits into a GPU's memory, so `Slices` finds out: what does not fit
is done in halves, and from then on no slice is larger than the one that did fit.
"""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import torch
import transformers
from transformers.utils import logging as transformers_logging

from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")
Function = TypeVar("Function", bound="Callable[..., Any]")

TRUST: Final = "TRUST_REMOTE_CODE"

# Longest text of somebody else's exception in a line of ours.
_MOST_TEXT: Final = 300

# How PyTorch says on the processor that it got no memory; on a GPU it has an exception of its own.
_NO_MEMORY: Final = re.compile(r"can't allocate memory|not enough memory", re.IGNORECASE)


@attrs.frozen
class Place:
    """Where a model computes, and in which precision."""

    device: str
    dtype: torch.dtype

    @classmethod
    def choose(cls) -> Place:
        """The best one of this machine; see the module."""
        if torch.cuda.is_available():
            return cls("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
        return cls("cpu", torch.float32)

    def take(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors that a processor or tokenizer returned, here; floats in the model's precision."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor)
        }


@attrs.frozen
class Source:
    """A checkpoint, loaded part by part.

    Attributes:
        model_id: Its name on the hub, or its directory.
        kind: What it should be, for errors: "a chat model".
        examples: Two that are known to be of this kind.
        place: Where its model will be.
    """

    model_id: str
    kind: str
    examples: tuple[str, str]
    place: Place = attrs.field(factory=Place.choose)

    def __attrs_post_init__(self) -> None:
        # A bar per file in a log says nothing; that of a download, which takes minutes, is not this one.
        transformers_logging.disable_progress_bar()
        if self.model_id.startswith(("/", ".", "~")) and not Path(self.model_id).is_dir():
            raise self._useless("there is no such directory")

    def part(self, class_name: str, **options: Any) -> Any:
        """A tokenizer, processor or configuration: ``transformers.<class_name>.from_pretrained``.

        Raises:
            ConfigError: it cannot be loaded; the text says what to change.
        """
        return self.attempt(
            lambda: getattr(transformers, class_name).from_pretrained(
                self.model_id, trust_remote_code=trusted(), **options
            )
        )

    def model(self, class_name: str, **options: Any) -> Any:
        """The model itself, ready to infer, in its place. Raises `ConfigError` as `part` does."""
        model = self.part(class_name, dtype=self.place.dtype, **options)
        return self.attempt(lambda: model.to(self.place.device)).eval()

    def attempt(self, act: Callable[[], Result]) -> Result:
        """Do one step of loading; whatever it raises becomes a `ConfigError`."""
        try:
            return act()
        except ConfigError:
            raise
        except Exception as error:  # Transformers: each model and tokenizer raises what it likes.
            raise self._explained(error) from error

    def wrong_kind(self, why: str) -> ConfigError:
        """The error for a checkpoint that can be loaded and is none of this kind."""
        return self._useless(f"it is not {self.kind} ({why})")

    def _explained(self, error: Exception) -> ConfigError:
        names = {cls.__name__ for cause in _causes(error) for cls in type(cause).__mro__}
        text = shown(error)
        if is_out_of_memory(error):
            return self._useless("it does not fit into the memory of this machine, so choose a smaller one")
        if "GatedRepoError" in names:
            return self._useless(
                "its authors want to be asked: accept its conditions on its page and set HF_TOKEN to a token"
                " of that account"
            )
        if "RepositoryNotFoundError" in names or "HFValidationError" in names:
            return self._useless("the hub has no such model, and there is no such directory")
        if names & {"LocalEntryNotFoundError", "ConnectionError", "ConnectError", "OfflineModeIsEnabled"}:
            return self._useless("the hub cannot be reached, and the model is not on this machine")
        if TRUST.lower() in str(error):
            return self._useless(f"it brings code of its own: read it, and set {TRUST}=1 if you trust it")
        if isinstance(error, ImportError) or "torchvision::" in text:
            return self._useless(f"it needs another package ({text}): {_install(text)}")
        return self._useless(f"it cannot be loaded as {self.kind} ({text})")

    def _useless(self, why: str) -> ConfigError:
        one, other = self.examples
        return ConfigError(f"MODEL_ID is {self.model_id!r}: {why}. Known to fit: {one}, {other}")


def inferring(function: Function) -> Function:
    """Decorates what only infers: nothing is kept of what training would need."""
    decorated: Function = torch.inference_mode()(function)
    return decorated


def padded(
    tokens: Sequence[list[int]], *, filler: int | None, left: bool = False, length: int = 0
) -> dict[str, torch.Tensor]:
    """Token ids of unlike length as a rectangle, and the mask that says which of them count.

    Args:
        tokens: The ids of each text.
        filler: The tokenizer's id for padding; models do not look at it, so None will do.
        left: Pad in front, as models that go on writing need it.
        length: Of every row, if that is more than the longest one's.
    """
    length = max(length, *map(len, tokens))
    ids = torch.full((len(tokens), length), filler or 0)
    mask = torch.zeros((len(tokens), length), dtype=torch.long)
    for row, text in enumerate(tokens):
        place = slice(length - len(text), length) if left else slice(0, len(text))
        ids[row, place] = torch.tensor(text, dtype=torch.long)
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def trusted() -> bool:
    """Whether checkpoints may run code of their own."""
    return os.environ.get(TRUST) == "1"


def shown(error: BaseException) -> str:
    """What an exception says, in one line that is not too long and holds no token."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if token := os.environ.get("HF_TOKEN"):
        text = text.replace(token, "***")
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _causes(error: BaseException | None) -> Sequence[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _install(text: str) -> str:
    if "torchvision" in text.lower():
        return f"pip install the torchvision that was built for PyTorch {torch.__version__}"
    named = re.search(r"pip install ([\w.\-]+)", text)
    return f"pip install {named[1]}" if named else "install it"


# --- Memory -------------------------------------------------------------------------------------------------


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, of the GPU or of the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


class Slices:
    """Feeds a model as much at once as its memory takes.

    Args:
        most: Largest slice to begin with; it halves whenever memory is short.
    """

    def __init__(self, most: int = 1000) -> None:
        self.most = most

    def run(
        self, items: Sequence[Item], forward: Callable[[Sequence[Item]], Iterable[Result]]
    ) -> list[Result]:
        """The results of all `items`, in their order, from as few calls of `forward` as possible.

        Raises:
            ValueError: one alone does not fit.
        """
        results: list[Result] = []
        while len(results) < len(items):
            part = items[len(results) : len(results) + self.most]
            try:
                results.extend(forward(part))
                continue
            except Exception as error:  # Whatever it is, all but one kind goes on.
                if not is_out_of_memory(error):
                    raise
            # Only outside of the handler, where no traceback holds on to the tensors of the attempt.
            release_memory()
            if len(part) == 1:
                raise ValueError("the job does not fit into the memory of this worker: send less at once")
            self.most = len(part) // 2
        return results

    def run_sorted(
        self,
        items: Sequence[Item],
        size: Callable[[Item], Any],
        forward: Callable[[Sequence[Item]], Iterable[Result]],
    ) -> list[Result]:
        """As `run`, with alike sizes beside each other, so that little is padded."""
        order = sorted(range(len(items)), key=lambda place: size(items[place]))
        results = self.run([items[place] for place in order], forward)
        return [result for _, result in sorted(zip(order, results, strict=True), key=lambda pair: pair[0])]


def release_memory() -> None:
    """Give back what an attempt that failed had taken."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
