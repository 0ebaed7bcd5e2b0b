"""What the table says of one column of images, alone and beside the reference's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmarks._shared.emoji_columns import features_of, scores_and_naming, stored
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit.evaluation.diversity import pairwise_spread
from dipp_toolkit.evaluation.frechet import ReferenceFrechet
from dipp_toolkit.evaluation.intervals import (
    effect_size,
    mean_interval,
    paired_interval,
    ratio_interval,
    student_quantile,
)


@dataclass(frozen=True)
class Column:
    """One column of images as the judge and the pixels see it.

    Attributes:
        scores: the judge's, `(prompts, noises)`.
        naming: share of the images, in [0, 1], that the judge names rightly.
        features: the judge's, `(prompts, noises, dimensions)`.
        diversity: of each prompt, `(prompts,)`.
    """

    scores: Tensor
    naming: float
    features: Tensor
    diversity: Tensor

    @classmethod
    def of(cls, judge: EmojiJudge, images: Tensor, prompts: list[str]) -> Column:
        """Look at images `(prompts, noises, 3, height, width)` in [0, 1], with their 8-bit pixels."""
        pixels = stored(images)
        scores, naming = scores_and_naming(judge, images, prompts)
        features = features_of(judge, pixels.flatten(0, 1)).unflatten(0, images.shape[:2])
        return cls(scores, naming, features, pairwise_spread(pixels.flatten(2)))

    def numbers(self, real: ReferenceFrechet) -> dict[str, Any]:
        """What the table says of it, intervals over prompts; `real` is of real compositions."""
        distance = real.distance(self.features.flatten(0, 1))
        reach = student_quantile(0.95, len(self.features)) * real.standard_error(self.features)
        diversity = mean_interval(self.diversity)
        return {
            "naming": self.naming,
            "preference": mean_interval(self.scores).as_dict(),
            "frechet": distance,
            "frechet_interval": {"mean": distance, "low": distance - reach, "high": distance + reach},
            "diversity": diversity.mean,
            "diversity_interval": diversity.as_dict(),
        }

    def against(self, reference: Column, real: ReferenceFrechet) -> dict[str, Any]:
        """How it differs from the reference's images of the same prompts, prompt by prompt, with intervals."""
        return {
            "preference": {
                **paired_interval(reference.scores, self.scores).as_dict(),
                "effect": effect_size(reference.scores, self.scores),
            },
            "frechet_ratio": real.ratio(self.features, reference.features).as_dict(),
            "diversity_ratio": ratio_interval(self.diversity, reference.diversity).as_dict(),
        }
