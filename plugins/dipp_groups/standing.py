r"""Where an image stands among those of its prompt, by another reward's scores $r_i$.

The others are held fixed: the gradient of image i is that of its own score, $\partial s_i / \partial r_i \cdot \nabla
r_i$. Were they moved as well, all images of a prompt would be pushed at once and what they push each other by would
cancel: shares add up to 1, and so do the two sides of every comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import Reward, close, moved
from dipp_toolkit.rewards.code_digests import identity_of
from dipp_toolkit.rewards.groups import check_samples, mean_of_group, mean_over_others, refuse_alone, same_prompt
from dipp_toolkit.rewards.loading import files_of, find_reward, load_reward
from dipp_toolkit.rewards.scores import ask, check_inputs
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.messages import quoted

ROUNDING = 1e-6
"""Of a score's size: a deviation within a prompt that is smaller says nothing."""


class OfGroup:
    """What rewards have in common that are made of another reward's scores within a prompt.

    Args:
        of: the other reward's name, as `--reward` takes it.
        samples: images of each prompt in a training's batches, 2 or more, unless `noises_per_prompt` says otherwise.
        options: of the other reward.

    Raises:
        RequestError: the other reward is unknown, looks at groups itself, or an option cannot be used.
    """

    name = "group"
    licence = "that of the reward it is made of"
    blind_to = "what the reward it is made of is blind to, and whether all images of a prompt are bad"
    gradient = "through the other reward's gradient, the other images of the prompt held fixed"
    holds_fixed = True
    samples_per_prompt = 4

    def __init__(self, of: str = "", samples: int = 4, options: Mapping[str, Any] | None = None):
        self.of = _named(self.name, of)
        self.samples_per_prompt = check_samples(self.name, samples)
        if options is not None and not isinstance(options, Mapping):
            raise RequestError(
                f"The option options of the reward '{self.name}' is {quoted(options)}; expected those of '{of}', by "
                "name."
            )
        self.other: Reward = load_reward(of, **dict(options or {}))
        refuse_alone(of, self.other, f"The reward '{self.name}'")

    @classmethod
    def find_files(cls, of: str = "", options: Mapping[str, Any] | None = None, **_others: Any) -> list[Path]:
        """The files of the other reward's weights, as far as it says.

        Raises:
            RequestError: it is unknown, or a file is not there.
        """
        own = dict(options) if isinstance(options, Mapping) else {}
        return files_of(find_reward(_named(cls.name, of), **own), own) or []

    @property
    def differentiable(self) -> bool | None:
        """Whether the other reward is."""
        return self.other.differentiable

    def to(self, device: torch.device | str) -> OfGroup:
        """Move the other reward; returns itself."""
        self.other = moved(self.other, device)
        return self

    def close(self) -> None:
        """End the other reward's process or connection, where it has one."""
        close(self.other)

    def score_identity(self) -> str:
        """A digest of what decides a score within a group."""
        return digest_of([self.name, identity_of(self.other), self.decides()])

    def decides(self) -> list[Any]:
        """Options of its own that decide a score."""
        return []

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores of images of which each prompt has two or more.

        Raises:
            RequestError: an image is the only one of its prompt.
        """
        check_inputs(self.name, images, prompts)
        same = same_prompt(self.name, prompts, images.device)
        return self.within(ask(self.of, self.other, images, prompts, finite=False), same)

    def within(self, scores: Float[Tensor, " batch"], same: Bool[Tensor, "batch batch"]) -> Float[Tensor, " batch"]:
        """Scores within groups, of the other reward's scores; `same` says which images are of one prompt."""
        raise NotImplementedError


class GroupRank(OfGroup):
    r"""How probably an image beats another of its prompt, in [0, 1]:

    $$s_i = \frac{1}{K - 1} \sum_{j \ne i} \sigma\Big(\frac{r_i - r_j}{\tau\, d}\Big),$$

    $d$ being the deviation of the scores within the prompt, so that the other reward's units do not matter. With
    `temperature=0` it is the rank itself, the share of the others that it beats, half of those that it equals: that has
    no gradient and trains as a black box.

    Args:
        of: the other reward's name.
        temperature: $\tau$, 0 or more.
        samples: images of a prompt.
        options: of the other reward.
    """

    name = "group-rank"
    range = "a share of the images that it beats, in [0, 1]"
    source = "Bradley and Terry 1952"

    def __init__(
        self, of: str = "", temperature: float = 1.0, samples: int = 4, options: Mapping[str, Any] | None = None
    ):
        self.temperature = _temperature(self.name, temperature, zero=True)
        super().__init__(of, samples, options)

    @property
    def differentiable(self) -> bool | None:
        """Whether the other reward is; never with a temperature of 0."""
        return self.other.differentiable if self.temperature else False

    def decides(self) -> list[Any]:
        return [self.temperature]

    def within(self, scores: Float[Tensor, " batch"], same: Bool[Tensor, "batch batch"]) -> Float[Tensor, " batch"]:
        ahead = scores[:, None] - scores.detach()[None]
        if not self.temperature:
            return mean_over_others((ahead.sign() + 1) / 2 + 0 * ahead, same)  # the sign of no number is 0
        spread, level = _spread(scores, same)
        unit = torch.where(spread <= level, torch.inf, self.temperature * spread)
        return mean_over_others(torch.sigmoid(ahead / unit[:, None]), same)


class GroupShare(OfGroup):
    r"""The logarithm of how probably an image is chosen among those of its prompt, at most 0:

    $$s_i = \log \frac{e^{r_i / \tau}}{\sum_{j \sim i} e^{r_j / \tau}},$$

    what PickScore was fitted by (Kirstain et al. 2023, arXiv 2305.01569, section 4), whose scores are the logits as
    they are.

    Args:
        of: the other reward's name.
        temperature: $\tau$ in units of its scores, above 0.
        samples: images of a prompt.
        options: of the other reward.
    """

    name = "group-share"
    range = "the logarithm of a share, at most 0; -log K where K images are alike"
    source = "Kirstain et al. 2023, arXiv 2305.01569, section 4"

    def __init__(
        self, of: str = "", temperature: float = 1.0, samples: int = 4, options: Mapping[str, Any] | None = None
    ):
        self.temperature = _temperature(self.name, temperature, zero=False)
        super().__init__(of, samples, options)

    def decides(self) -> list[Any]:
        return [self.temperature]

    def within(self, scores: Float[Tensor, " batch"], same: Bool[Tensor, "batch batch"]) -> Float[Tensor, " batch"]:
        logits = scores / self.temperature
        others = logits.detach()[None].expand(len(scores), -1).masked_fill(~same, -torch.inf)
        return logits - torch.logsumexp(torch.cat([logits[:, None], others], dim=1), dim=1)


class GroupStandard(OfGroup):
    r"""Another reward's score, standardised within its prompt: $s_i = (r_i - \bar r) / d$.

    $\bar r$ is the mean and $d$ the deviation (of $K - 1$ degrees of freedom) over the images of the prompt, held
    fixed, so that the gradient is $\nabla r_i / d$: a prompt whose images hardly differ counts as much as one whose
    images differ a lot. Where they do not differ at all it is 0.

    Args:
        of: the other reward's name.
        samples: images of a prompt.
        options: of the other reward.
    """

    name = "group-standard"
    range = "deviations from the mean of a prompt's images, within about 2 of 0"
    source = "Shao et al. 2024, arXiv 2402.03300, section 4.1"

    def within(self, scores: Float[Tensor, " batch"], same: Bool[Tensor, "batch batch"]) -> Float[Tensor, " batch"]:
        spread, level = _spread(scores, same)
        mean = mean_of_group(scores.detach(), same)
        tiny = torch.finfo(spread.dtype).tiny
        return torch.where(spread <= level, 0 * scores, (scores - mean) / spread.clamp_min(tiny))  # no number passes on


def _spread(
    scores: Float[Tensor, " batch"], same: Bool[Tensor, "batch batch"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    r"""The deviation of scores within each image's prompt, held fixed, and what it must exceed to be one.

    $d^2 = \frac{1}{2 K (K - 1)} \sum_{i \ne j} (r_i - r_j)^2$, which is the variance of $K - 1$ degrees of freedom.
    """
    fixed = scores.detach()
    to_others = mean_over_others((fixed[:, None] - fixed[None]).square(), same)
    return (mean_of_group(to_others, same) / 2).sqrt(), ROUNDING * mean_of_group(fixed.abs(), same)


def _named(name: str, of: Any) -> str:
    """The other reward's name.

    Raises:
        RequestError: there is none.
    """
    if not isinstance(of, str) or not of:
        raise RequestError(
            f"The reward '{name}' is made of another reward's scores; name that with --set reward.{name}.of=pickscore."
        )
    return of


def _temperature(name: str, value: Any, zero: bool) -> float:
    """The option temperature: a finite number above 0, or 0 where that means something.

    Raises:
        RequestError: it is not.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf") or (value == 0 and not zero):
        expected = "0 or more" if zero else "above 0"
        raise RequestError(
            f"The option temperature of the reward '{name}' cannot be used; expected a number {expected}."
        )
    return float(value)
