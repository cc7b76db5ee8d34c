"""Models of Hugging Face, by ``MODEL_ID``: a name on the hub, or a directory with a checkpoint.

A module per kind of model; each has ``load(model_id)``, which returns what its worker file calls. Workers
import them only where ``MODEL_ID`` is set, because PyTorch alone takes seconds to import. What is not
installed is therefore found here, once for all of them.

Nothing here needs torchvision, whose builds must match PyTorch's exactly; where it is installed, it is used
by transformers alone.
"""

from __future__ import annotations

from orbtrio.errors import ConfigError

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except (ImportError, OSError) as error:  # OSError: PyTorch finds its shared libraries by itself.
    raise ConfigError(
        f"MODEL_ID is set, and its model needs PyTorch and transformers, which cannot be imported ({error}):"
        " pip install '.[huggingface]', or unset MODEL_ID for the builtin model where there is one"
    ) from None
