r"""How far an image is from the others of its prompt: what keeps a generator from drawing one image again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.diversity import SIDE
from dipp_toolkit.rewards.code_digests import identity_of
from dipp_toolkit.rewards.groups import check_samples, rows_of_prompts, same_prompt
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.deterministic import pooled_to
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.imports import load_python_name
from dipp_toolkit.utils.messages import quoted

ROUND = 1e-12
"""Added to a mean square, so that two images that are alike have a gradient."""


class GroupDiversity:
    r"""The mean distance from the other images of the prompt,

    $$s_i = \frac{1}{K - 1} \sum_{j \ne i} \sqrt{\mathrm{mean}\,(f_i - f_j)^2},$$

    over features f: pixels, those of larger images averaged over areas, so that its mean is the diversity that reports
    have (`dipp_toolkit.evaluation.diversity`), or what a function of one's own makes of images. Every image moves, so
    that the gradient is that of the mean over all pairs.

    Args:
        features: `pixels`, or a function of images as `file.py:function`, which returns `(batch, dimensions)`.
        samples: images of each prompt in a training's batches, 2 or more, unless `noises_per_prompt` says otherwise.

    Raises:
        RequestError: the function is not there, or an option is out of range.
    """

    name = "group-diversity"
    differentiable = True
    samples_per_prompt = 4
    range = "a distance of pixels in [0, 1], or of the features, at least 0"
    licence = "no weights; the code is Apache-2.0"
    source = "the mean over pairs, as docs/reference/metrics.md defines diversity"
    blind_to = "the prompt, and whether any image is good: noise is as diverse as anything"
    gradient = "through the formula"

    def __init__(self, features: str = "pixels", samples: int = 4):
        if not isinstance(features, str) or not features:
            raise RequestError(
                f"The option features of the reward '{self.name}' is {quoted(features)}; expected pixels, or a "
                "function of images as in file.py:function."
            )
        self.samples_per_prompt = check_samples(self.name, samples)
        self.features: Callable[[Tensor], Any] = (
            small_pixels if features == "pixels" else load_python_name(features, "function of images")
        )

    def score_identity(self) -> str:
        """A digest of what decides a score."""
        return digest_of([self.name, identity_of(self.features)])

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores of images of which each prompt has two or more.

        Raises:
            RequestError: an image is the only one of its prompt, or the features are no row an image.
        """
        check_inputs(self.name, images, prompts)
        same_prompt(self.name, prompts)
        features = self.features(images.float())
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise RequestError(
                f"The features of the reward '{self.name}' are {found}; expected a tensor of shape ({len(images)}, "
                "dimensions)."
            )
        # Image by image: all pairs of a batch at once would hold batch x batch x dimensions numbers.
        distances = [
            ((features[others] - features[row]).square().mean(1) + ROUND).sqrt().mean()
            for row, others in enumerate(rows_of_prompts(prompts))
        ]
        return torch.stack(distances)


def small_pixels(images: Images) -> Float[Tensor, "batch pixels"]:
    """All pixels of each image in one row; of images whose longer side is more than 64, of averages over areas."""
    height, width = images.shape[-2:]
    longer = max(height, width)
    if longer > SIDE:
        size = (max(1, round(height * SIDE / longer)), max(1, round(width * SIDE / longer)))
        images = pooled_to(images, size)
    return images.flatten(1)
