"""LAION's aesthetic predictor v2 as a differentiable reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import RewardBlueprint
from dipp_toolkit.rewards.clip_blueprints import TOWERS, FixedTextClip
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.rewards.open_clip_models import load_clip, note_clip
from dipp_toolkit.rewards.weights import fill, find_file
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.tensor_files import read_state, tensors_of

MODEL, PRETRAINED = "ViT-L-14-quickgelu", "openai"
HUB, FILE = "trl-lib/ddpo-aesthetic-predictor", "aesthetic-model.pth"
WIDTHS = (1024, 128, 64, 16, 1)
PLACES = ("0", "2", "4", "6", "7")
"""Of the linear layers among the original's, which has dropout between some of them."""


class AestheticNetwork(nn.Module):
    """CLIP's image tower, its unit feature, and five linear layers with nothing between them."""

    def __init__(self, clip: nn.Module, head: nn.Module):
        super().__init__()
        self.clip, self.head = clip, head

    def forward(self, pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, " batch"]:
        features = self.clip.encode_image(pixels, normalize=True)  # type: ignore[operator]
        scores: Tensor = self.head(features)[:, 0]
        return scores


class Aesthetic(ModelReward):
    r"""$r(x) = \mathrm{head}(f(x) / \|f(x)\|)$ with CLIP ViT-L/14's image feature $f$: a rating from 1 to 10.

    Trained on the ratings of SAC, Logos and AVA (Schuhmann, `sac+logos+ava1-l14-linearMSE.pth`). Prompts do not matter.

    Args:
        checkpoint: the head's file, a folder with it, or another repository of the hub.
        model: open_clip's name of the CLIP.
        pretrained: open_clip's tag of its weights, or a local file.
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.

    Raises:
        RequestError: an option is out of range, or the weights are missing, damaged, or of another model.
    """

    name = "aesthetic"
    licence = "Apache-2.0 (the head), MIT (CLIP)"
    source = "Schuhmann 2022, github.com/christophschuhmann/improved-aesthetic-predictor"
    range = "a rating, 1 to 10; 4 to 7 in practice"
    blind_to = (
        "the prompt, so that a beautiful picture of anything will do; what lies outside the central square; what is "
        "finer than 224 pixels show"
    )
    reads_prompts = False

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        model: str = MODEL,
        pretrained: str = PRETRAINED,
        precision: str = "fp32",
        batch: int = 0,
        preprocess: str = "auto",
    ):
        (path,) = self.find_files(checkpoint, model, pretrained)
        tensors = tensors_of(read_state(path), path)
        head = empty_head(tensors, path)
        fill(head, renumbered(tensors), path)
        clip, prepared = load_clip(self.name, model, pretrained)
        super().__init__(AestheticNetwork(clip, head), prepared, way=preprocess, precision=precision, batch=batch)

    @classmethod
    def find_files(
        cls,
        checkpoint: str | Path | None = None,
        model: str = MODEL,
        pretrained: str = PRETRAINED,
        **_others: Any,
    ) -> list[Path]:
        """The head's file, by the options of the reward; fetched where it is not here.

        Raises:
            RequestError: it is not there, or there is no such CLIP.
        """
        note_clip(cls.name, model, pretrained)
        return [find_file(cls.name, HUB, FILE, checkpoint)]

    def read(self, prompts: Sequence[str]) -> Tensor:
        """Nothing is read."""
        return torch.zeros(len(prompts), 0)

    def score(self, pixels: Float[Tensor, "batch 3 size size"], texts: Tensor | None) -> Float[Tensor, " batch"]:
        scores: Tensor = self.network(pixels)
        return scores


class AestheticBlueprint(FixedTextClip):
    """The predictor with random weights; CLIP's tower of texts is loaded with the other and reads nothing."""

    def __init__(self) -> None:
        super().__init__(*TOWERS[MODEL])
        features = self.clip.config.projection_dim
        self.head = nn.Sequential(*(nn.Linear(before, after) for before, after in pairwise((features, *WIDTHS))))

    def forward(self, images: Images) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1] of any size."""
        scores: Tensor = self.head(nn.functional.normalize(self.features(images), dim=-1))[:, 0]
        return scores


def blueprint() -> RewardBlueprint:
    """The published predictor on OpenAI's CLIP."""
    return RewardBlueprint(HUB, AestheticBlueprint)


def renumbered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's `layers.0`, `.2`, `.4`, `.6`, `.7` as layers 0 to 4."""
    return {
        f"{index}.{kind}": tensors[f"layers.{place}.{kind}"]
        for index, place in enumerate(PLACES)
        for kind in ("weight", "bias")
        if f"layers.{place}.{kind}" in tensors
    }


def empty_head(tensors: Mapping[str, Tensor], path: Path) -> nn.Sequential:
    """The five layers on the meta device, as wide as the checkpoint's first one.

    Raises:
        RequestError: the checkpoint has no such layer.
    """
    first = tensors.get("layers.0.weight")
    if first is None or first.ndim != 2:
        raise RequestError(f"{path} does not fit: it has no 'layers.0.weight', as the aesthetic head has.")
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(before, after) for before, after in pairwise((first.shape[1], *WIDTHS))))
