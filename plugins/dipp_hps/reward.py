"""HPSv2 as a differentiable reward on open_clip, equal to the package `hpsv2`; and its architecture for `dipp plan`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import RewardBlueprint
from dipp_toolkit.rewards.clip_blueprints import TOWERS, FixedTextClip
from dipp_toolkit.rewards.open_clip_models import CosineReward, empty_clip, mend_mask, tokenizer_of
from dipp_toolkit.rewards.preprocess import Preprocess
from dipp_toolkit.rewards.weights import fill, find_file
from dipp_toolkit.utils.tensor_files import read_state, tensors_of

HUB = "xswu/HPSv2"
FILES = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
MODEL = "ViT-H-14"
TEXT, VISION = TOWERS[MODEL]
"""Of laion/CLIP-ViT-H-14-laion2B-s32B-b79K, which HPSv2 fine-tunes."""


class HPS(CosineReward):
    r"""Human Preference Score v2: $r(x, c) = \cos(f(x), g(c))$ with the towers of a fine-tuned OpenCLIP ViT-H/14.

    Pictures are resized as tensors, the longer side to 224, and padded with black: what the package `hpsv2` does. It
    calls torchvision's resize with its default, which antialiases from version 0.17 on; scores of pictures larger than
    224 pixels that were published with older versions differ. Papers often give 100 times the score.

    Args:
        version: `v2.1` or `v2.0`.
        checkpoint: the published file, a folder with it, or another repository of the hub.
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` (here: pictures rounded to 8 bits, as read from files) or `tensor`.
        architecture: an OpenCLIP configuration in the place of ViT-H/14's.

    Raises:
        RequestError: an option is out of range, or the weights are missing, damaged, or of another model.
    """

    name = "hps"
    licence = "Apache-2.0"
    source = "Wu et al. 2023, arXiv 2306.09341; weights: huggingface.co/xswu/HPSv2"
    range = "a cosine, in [-1, 1]; 0.2 to 0.35 in practice"
    blind_to = (
        "what is finer than 224 pixels on the longer side show; the prompt beyond 77 tokens; which word belongs to "
        "which thing, as other cosines of CLIP (Koishigarina et al. 2025, arXiv 2502.03566)"
    )

    def __init__(
        self,
        version: str | float = "v2.1",
        checkpoint: str | Path | None = None,
        precision: str = "fp32",
        batch: int = 0,
        preprocess: str = "auto",
        architecture: Mapping[str, Any] | None = None,
    ):
        self.version = version_of(version)
        (path,) = self.find_files(version, checkpoint)
        network, size = empty_clip(MODEL, architecture)
        fill(network, tensors_of(read_state(path), path), path, torch.float32)
        mend_mask(network)
        prepared = Preprocess(size, "pad", tensor_only=True)
        super().__init__(network, prepared, tokenizer_of(MODEL), way=preprocess, precision=precision, batch=batch)

    @classmethod
    def find_files(
        cls, version: str | float = "v2.1", checkpoint: str | Path | None = None, **_others: Any
    ) -> list[Path]:
        """The weights' file, by the options of the reward; fetched where it is not here.

        Raises:
            RequestError: there is no such version, or the file is not there.
        """
        return [find_file(cls.name, HUB, FILES[version_of(version)], checkpoint)]


def version_of(version: str | float) -> str:
    """`2.1` or `v2.1` as `v2.1`.

    Raises:
        RequestError: there is no such version.
    """
    version = f"v{str(version).removeprefix('v')}"
    if version not in FILES:
        raise RequestError(f"The reward 'hps' comes in the versions {' and '.join(FILES)}, not in {version}.")
    return version


class HPSv2Network(FixedTextClip):
    """HPSv2 with random weights, against one fixed text."""

    def __init__(self) -> None:
        super().__init__(TEXT, VISION)


def blueprint() -> RewardBlueprint:
    """HPSv2 and v2.1 share it."""
    return RewardBlueprint("xswu/HPSv2", HPSv2Network)
