"""Models of open_clip as rewards: built without weights or loaded with them, and their preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import RequestError, first_line
from ..models.files.fetching import NotHere, check_fetching
from ..utils.messages import unknown_name
from ..utils.paths import user_path
from ..utils.tensor_files import check_weights
from .model_reward import ModelReward
from .preprocess import CLIP_MEAN, CLIP_STD, Preprocess

FITS = {"shortest": "crop", "longest": "pad", "squash": "squash"}
NUMPY = (".npz", ".npy")
"""Files that NumPy reads, which unpickles nothing unless it is told to."""


class CosineReward(ModelReward):
    r"""$r(x, c) = \cos(f(x), g(c))$ with the two towers of an open_clip model.

    Args:
        network: the model.
        preprocess: what its image tower sees.
        tokenizer: from `tokenizer_of`.
        options: of `ModelReward`.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocess, tokenizer: Any, **options: Any):
        self.tokenizer = tokenizer
        super().__init__(network, preprocess, **options)

    def read(self, prompts: Sequence[str]) -> Float[Tensor, "prompts features"]:
        """Unit features of prompts; what is beyond the model's tokens is cut."""
        features: Tensor = self.network.encode_text(self.tokenizer(list(prompts)).to(self.device), normalize=True)
        return features

    def score(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch features"] | None
    ) -> Float[Tensor, " batch"]:
        assert texts is not None
        features = self.network.encode_image(pixels, normalize=True)
        return torch.linalg.vecdot(features.float(), texts.float())


def empty_clip(model: str, architecture: Mapping[str, Any] | None = None) -> tuple[nn.Module, int]:
    """A CLIP of open_clip's classic layout on the meta device, to be filled, and the side of what it sees.

    Args:
        model: open_clip's name.
        architecture: a configuration in the place of that model's.
    """
    import open_clip
    from open_clip.model import CLIP

    config = dict(architecture or open_clip.get_model_config(model))
    with torch.device("meta"):
        network = CLIP(**config)
    return network, int(config["vision_cfg"]["image_size"])


def mend_mask(network: Any) -> None:
    """Give a filled CLIP its causal mask, which is no weight and so in no checkpoint."""
    length = network.attn_mask.shape[-1]
    network.attn_mask = torch.full((length, length), float("-inf")).triu_(1)


def tokenizer_of(model: str) -> Any:
    """The tokenizer of a model of open_clip; called with texts it gives `(batch, 77)` ids, cut where longer."""
    import open_clip

    return open_clip.get_tokenizer(model)


def load_clip(name: str, model: str, pretrained: str | Path) -> tuple[nn.Module, Preprocess]:
    """A model of open_clip with its weights, and its own preprocessing; see `check_clip`.

    Raises:
        RequestError: there is no such model or tag, or the weights cannot be fetched or read.
    """
    import open_clip

    local = check_clip(name, model, pretrained)
    if local is not None and local.suffix not in NUMPY:
        check_weights(local)
    try:
        network = open_clip.create_model(model, pretrained=str(local or pretrained) or None)
    except Exception as error:  # open_clip, torch and the hub's client raise errors of many kinds
        raise RequestError(
            f"The weights '{pretrained}' of {model} for the reward '{name}' cannot be loaded: {first_line(error)}."
        ) from error
    return network, preprocess_of(network)


def check_clip(name: str, model: str, pretrained: str | Path) -> Path | None:
    """Refuse an unknown model of open_clip before its weights are fetched or read.

    Args:
        name: the reward's, for messages.
        model: open_clip's name, or `hf-hub:owner/name`.
        pretrained: a tag of open_clip's, or a local file; empty where the hub has the weights.

    Returns:
        The local file, where it is one.

    Raises:
        RequestError: there is no such model or tag.
    """
    import open_clip

    local = user_path(pretrained) if pretrained else None
    if "hf-hub:" not in model and model not in open_clip.list_models():
        raise RequestError(unknown_name("open_clip model", model, open_clip.list_models()))
    if local is None and "hf-hub:" not in model:
        raise RequestError(f"Name the weights of {model} with --set reward.{name}.pretrained=TAG.")
    if local is not None and local.suffix and not local.is_file():
        raise RequestError(f"There is no file {local} for the reward '{name}' (looked in {local.parent.resolve()}).")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if local is not None and local.is_file():
        return local
    if local is not None and str(pretrained) not in tags:
        raise RequestError(unknown_name(f"set of weights of {model}", str(pretrained), tags))
    return None


def note_clip(name: str, model: str, pretrained: str | Path) -> None:
    """`check_clip`; a dry run notes weights that open_clip fetches.

    Raises:
        RequestError: there is no such model or tag.
    """
    if check_clip(name, model, pretrained) is None:
        with suppress(NotHere):
            check_fetching(f"{model} {pretrained}, where open_clip's cache has it not")


def preprocess_of(network: Any) -> Preprocess:
    """The preprocessing that a loaded model asks for."""
    config = getattr(network.visual, "preprocess_cfg", {}) or {}
    size = config.get("size", network.visual.image_size)
    return Preprocess(
        size=int(size[0] if isinstance(size, (tuple, list)) else size),
        fit=FITS[config.get("resize_mode") or "shortest"],  # type: ignore[arg-type]
        mean=tuple(config.get("mean") or CLIP_MEAN),
        std=tuple(config.get("std") or CLIP_STD),
        interpolation=config.get("interpolation") or "bicubic",
    )
