"""Any model of open_clip as a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipp_toolkit.models.blueprints import RewardBlueprint
from dipp_toolkit.rewards.clip_blueprints import clip_blueprint
from dipp_toolkit.rewards.open_clip_models import CosineReward, load_clip, note_clip, tokenizer_of

MODEL, PRETRAINED = "ViT-L-14-quickgelu", "openai"
LARGE = ("ViT-g-14", "laion2b_s12b_b42k")


class Clip(CosineReward):
    r"""$r(x, c) = \cos(f(x), g(c))$, $f$ and $g$ being the towers of a CLIP.

    The field's CLIP score is $100 \max(\cos, 0)$ (Hessel et al. 2021, arXiv 2104.08718, gives 2.5 in the place of 100);
    without the bend it has a gradient everywhere.

    Args:
        model: open_clip's name of the model, or `hf-hub:owner/name`.
        pretrained: open_clip's tag of the weights, or a local file.
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.

    Raises:
        RequestError: an option is out of range, or the weights are unavailable.
    """

    name = "clip"
    licence = "the weights' own; OpenAI's and LAION's are MIT"
    source = "Radford et al. 2021, arXiv 2103.00020; weights: github.com/mlfoundations/open_clip"
    range = "a cosine, in [-1, 1]; 0.1 to 0.4 in practice"
    blind_to = (
        "beauty, which it was not trained on; what lies outside the central square; what is finer than 224 pixels show;"
        " the prompt beyond 77 tokens; which word belongs to which thing (Koishigarina et al. 2025, arXiv 2502.03566)"
    )

    def __init__(
        self,
        model: str = MODEL,
        pretrained: str = PRETRAINED,
        precision: str = "fp32",
        batch: int = 0,
        preprocess: str = "auto",
    ):
        network, prepared = load_clip(self.name, model, pretrained)
        super().__init__(network, prepared, tokenizer_of(model), way=preprocess, precision=precision, batch=batch)

    @classmethod
    def find_files(cls, model: str = MODEL, pretrained: str = PRETRAINED, **_others: Any) -> list[Path]:
        """Refuse options that name no model or no weights; open_clip knows where their files are.

        Raises:
            RequestError: there are none of this name.
        """
        note_clip(cls.name, model, pretrained)
        return []


class LargeClip(Clip):
    """`Clip` by OpenCLIP's ViT-g/14, whose cosine DMD2's and SiD's tables have as their CLIP score.

    Args:
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.

    Raises:
        RequestError: an option is out of range, or the weights are unavailable.
    """

    name = "clip-g"
    licence = "MIT"
    source = "Cherti et al. 2022, arXiv 2212.07143; weights: open_clip's ViT-g-14, laion2b_s12b_b42k"
    range = "a cosine, in [-1, 1]; 0.2 to 0.4 in practice"

    def __init__(self, precision: str = "fp32", batch: int = 0, preprocess: str = "auto"):
        super().__init__(*LARGE, precision, batch, preprocess)

    @classmethod
    def find_files(cls, *_model: str, **_others: Any) -> list[Path]:
        """Refuse where open_clip does not know the weights."""
        note_clip(cls.name, *LARGE)
        return []


def blueprint() -> RewardBlueprint:
    """`clip` as it is by default; another model's is not known before it is named."""
    return clip_blueprint("openai/clip-vit-large-patch14", MODEL)


def large_blueprint() -> RewardBlueprint:
    """`clip-g`."""
    return clip_blueprint("laion/CLIP-ViT-g-14-laion2B-s12B-b42K", LARGE[0])
