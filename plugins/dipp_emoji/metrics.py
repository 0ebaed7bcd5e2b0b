"""Metrics of the emoji world, by its judge: closeness to real compositions, and whether images show what they should.

The judge was trained on other compositions and damages than any reward, and nothing is trained on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.frechet import ReferenceFrechet
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.messages import nearest

from .captions import pairs
from .compose import compose
from .judge import EmojiJudge, caption_pairs

REAL_SEED = 1
REAL_A_PAIR = 2
BATCH = 176


def real_images(seed: int = REAL_SEED, count: int = REAL_A_PAIR) -> Float[Tensor, "images 3 64 64"]:
    """Fresh compositions of the held-out pairs, `count` of each, in [0, 1]."""
    table = torch.tensor(pairs(held_out=True))
    random = torch.Generator().manual_seed(seed)
    batches = [compose(table[:, 0], table[:, 1], random) for _ in range(count)]
    return torch.stack(batches, dim=1).flatten(0, 1)


class EmojiFrechet:
    """Frechet distance of the judge's features to those of 704 real compositions of the held-out pairs.

    They are the real images of `benchmarks/emoji_quality`, so its numbers and these are of one kind: for the held-out
    prompts with two noises each, real images score about what finite sets cost and generators more.

    Args:
        seed: of the real compositions.
    """

    better: Mapping[str, str] = {"emoji-frechet": "lower"}

    def __init__(self, seed: int = REAL_SEED):
        self.seed = seed
        self.judge = EmojiJudge()
        self.notes: list[str] = []

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch dimensions"]:
        """The judge's features, float32, `(B, 192)`.

        Raises:
            RequestError: the images are not a `(B, 3, H, W)` batch, or there is not one prompt for each.
        """
        check_inputs("emoji-frechet", images, prompts)
        return self.judge.features(images)

    @cached_property
    def reference(self) -> ReferenceFrechet:
        """Moments of the real compositions."""
        device = self.judge.model.device
        parts = real_images(self.seed).split(BATCH)
        return ReferenceFrechet(torch.cat([self.judge.features(part.to(device)).cpu() for part in parts]))

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`{"emoji-frechet": ...}`, 0 or more."""
        rows = features.detach().cpu().flatten(0, 1)
        if len(rows) <= rows.shape[1] and not self.notes:
            self.notes.append(
                f"emoji-frechet: {len(rows)} images with {rows.shape[1]} features each; the distance is biased "
                "upwards, and comparable at this count alone."
            )
        return {"emoji-frechet": self.reference.distance(rows)}


class EmojiNaming:
    """Share of images whose emoji and background the judge names as the prompt does, in [0, 1]."""

    better: Mapping[str, str] = {"emoji-naming": "higher"}

    def __init__(self) -> None:
        self.judge = EmojiJudge()

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch 1"]:
        """1 for each image that is named rightly, else 0.

        Raises:
            RequestError: the images are not a `(B, 3, H, W)` batch, or a prompt is not one of this world's captions.
        """
        check_inputs("emoji-naming", images, prompts)
        pair_of = caption_pairs()
        for prompt in prompts:
            if prompt not in pair_of:
                guess = nearest(prompt, pair_of)
                hint = f" The nearest is '{guess}'." if guess else ""
                raise RequestError(
                    f"The prompt '{prompt}' is not a caption of the emoji world, so what it names is unknown.{hint}"
                )
        shown = torch.stack(self.judge.name_images(images), 1).cpu()
        expected = torch.tensor([pair_of[prompt] for prompt in prompts])
        return (shown == expected).all(1).float()[:, None]

    def values(self, features: Float[Tensor, "prompts seeds 1"]) -> dict[str, float | Tensor]:
        """`{"emoji-naming": (P,)}`."""
        return {"emoji-naming": features.double().mean((1, 2))}
