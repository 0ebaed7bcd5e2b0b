r"""Explicit rewards: decode the sample, score it, and bring the gradient back to $x_0$.

It is the first half of DI++'s objective (eq. 3.1); the other is `dipp_toolkit.objective.terms.integral_kl`.

The term's loss is $-r(\mathrm{decode}(x_0), c)$; the graph of the decoder and the reward lives only inside the call.
A reward without a gradient, a black box, only gives scores, and an estimator makes a gradient of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...diffusion.condition import Condition
from ...errors import RunError
from ...protocols import ReportingReward, Reward
from ...rewards.groups import parts_of, samples_per_prompt
from ...rewards.scores import ask
from ...utils.deterministic import Tolerance
from ...utils.device import sent
from ...utils.precision import at_least_float32, full_precision, tf32_products
from ...utils.reproducibility import random_states_kept
from ...utils.step_parts import REWARD, step_part
from ..base import Committing, Sample, TermResult
from ..estimators.base import GradientEstimator
from ..estimators.latent import LatentReward, why_not_latent
from ..estimators.surrogate import Surrogate
from .shared_decode import Decoded, SharedDecode


@dataclass
class RewardTerm:
    """A reward as a term.

    The decoder's passes are narrowed as the run's are; the reward sees float32 images outside that, and so are its
    gradient and the way back through the decoder.

    Attributes:
        name: the reward's name, for messages.
        reward: scores images in [0, 1].
        decode: turns latents into images in [0, 1], differentiably; a `SharedDecode` is shared with other rewards.
        shared: `decode` as one, of this reward alone unless given.
        batch: samples decoded and scored at a time, 0 for all; the graph of each part is freed before the next.
        estimator: stands in where the reward has no gradient; without one, such a reward is refused.
        latent: stands in for the reward in most steps, learned from the others; None where it does in none.
        black_box: whether the reward has none; None until the first call where it does not say.
        ascended: whether the run raises the score; with a negative weight it lowers it. The decoder passes a
            gradient or not by where a step along it would lead, so it gets that of what rises.
        tf32: whether a GPU may round the factors of the reward's float32 products to TF32.
    """

    uses_assistant: ClassVar[bool] = False

    name: str
    reward: Reward
    decode: Callable[[Tensor], Tensor]
    batch: int = 0
    estimator: GradientEstimator | None = None
    black_box: bool | None = None
    ascended: bool = True
    latent: LatentReward | None = None
    tf32: bool = False
    shared: SharedDecode = field(init=False, repr=False)
    _kernels: Tolerance = field(default_factory=Tolerance, init=False, repr=False)
    _reports: list[dict[str, Tensor]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self.shared = self.decode if isinstance(self.decode, SharedDecode) else SharedDecode(self.decode)
        self.shared.learned += self.latent is not None

    @step_part(lambda term, sample: f"{REWARD} {term.name}")
    def __call__(self, sample: Sample) -> TermResult:
        """Score the samples and differentiate, or estimate.

        Raises:
            RunError: the reward failed, or did not return one finite score for each image, or its
                scores have no gradient and nothing can estimate one.
        """
        if self.black_box is None:
            self.find_out(sample.x0, sample.condition)
        self._reports = []
        result = self._result(sample)
        return replace(result, details={**result.details, **self.reported()})

    def _result(self, sample: Sample) -> TermResult:
        if self.black_box:
            assert self.estimator is not None
            estimate = self.estimator.estimate(sample, self.score)
            return TermResult(estimate.scores, -estimate.gradient, estimate.details)
        if self.latent is None:
            return self._evaluate(sample)
        if self.latent.is_trusted:
            return self._evaluate_some(sample, self.latent)
        result = self._evaluate(sample)
        self.latent.look(sample, result.value, -result.grad)
        return replace(result, details=self.latent.details)

    def _evaluate_some(self, sample: Sample, latent: LatentReward) -> TermResult:
        """The same of some samples; the stand-in's gradient for all, corrected by what it was wrong by on these."""
        rows = latent.looked_at(sample)
        self.shared.spared(sample.x0)
        predicted, lent = latent.lend(sample)
        details = {**latent.details, "latent_used": 1 - len(rows) / len(sample.x0)}
        there = sent(torch.tensor(rows, dtype=torch.int64), sample.x0.device)
        if not rows:
            return TermResult(predicted, -latent.corrected(lent, there), details, predicted=True, measured=-lent)
        noise, condition = sample.noise[there], sample.condition[rows]
        part = replace(sample, x0=self.shared.part(sample.x0, there, rows), noise=noise, condition=condition)
        result = self._evaluate(part)
        latent.look(part, result.value, -result.grad)
        # Of the others there is no score: the mean stands for them in the log.
        scores = result.value.mean().expand(len(sample.x0)).index_copy(0, there, result.value)
        return TermResult(scores, -latent.corrected(lent, there, -result.grad), details, measured=-lent)

    def _evaluate(self, sample: Sample) -> TermResult:
        """Decode, score and differentiate."""
        prompts = sample.condition.prompts
        if (self.batch or len(sample.x0)) >= len(sample.x0):
            scores, gradient = self._differentiate(self.shared.decoded(sample.x0), prompts)
            return TermResult(scores, -gradient)
        parts = [
            self._differentiate(self.shared.decoded_alone(sample.x0[part]), prompts[part])
            for part in self.parts(prompts)
        ]
        return TermResult(torch.cat([score for score, _ in parts]), -torch.cat([gradient for _, gradient in parts]))

    def find_out(self, latents: Float[Tensor, "batch ..."], condition: Condition) -> None:
        """Settle `black_box`: as the reward says, or, where it does not say, as a trial shows.

        Raises:
            RunError: the reward failed.
        """
        self.black_box = self.estimator is not None and self._has_no_gradient(latents, condition)
        if self.black_box and samples_per_prompt(self.reward) > 1 and isinstance(self.estimator, Surrogate):
            raise RunError(
                f"The reward '{self.name}' has no gradient and compares images of one prompt with each other. A "
                "surrogate learns what each image is worth by itself: train with black_box=smoothing, or with "
                "term=policy_gradient."
            )
        if self.black_box and self.latent is not None:
            raise RunError(why_not_latent(self.name))
        if self.black_box:
            self.shared.forgone()

    def _has_no_gradient(self, latents: Tensor, condition: Condition) -> bool:
        """Whether the reward cannot be differentiated.

        Every process makes the trial once, a resumed one too: the random state
        is restored after it, so that a resumed run has the random numbers of one that was never stopped.
        """
        if self.reward.differentiable is not None:
            return not self.reward.differentiable
        part = next(self.parts(condition.prompts))
        prompts = condition.prompts[part]
        with random_states_kept(latents.device), torch.enable_grad():
            images = self.decode(latents[part].detach().requires_grad_(True))
            try:
                return not self._call(images, prompts).requires_grad
            except RunError:  # NumPy refuses tensors with a graph; without one it may work
                self._call(images.detach(), prompts)
                return True

    @property
    def rising(self) -> int:
        """1 where the run raises the score, -1 where it lowers it."""
        return 1 if self.ascended else -1

    def _differentiate(self, decoded: Decoded, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        scores, gradient = self.differentiate_images(decoded.images, prompts)
        return scores, self.rising * decoded.pull_back(gradient)

    def differentiate_images(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Scores, and the gradient with respect to the images of what rises: `rising` times their sum.

        Raises:
            RunError: as for a call.
        """
        return self._kernels(lambda: self._differentiate_images(images, prompts))

    def _differentiate_images(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), full_precision(images.device), tf32_products(images.device, self.tf32):
            images = at_least_float32(images.detach()).requires_grad_(True)
            # Whether they are finite is read later, with all other numbers.
            scores = self._call(images, prompts, finite=False)
            if not scores.requires_grad:
                raise RunError(
                    f"The reward '{self.name}' is not differentiable: its scores do not depend on the images through "
                    "torch operations. Compute the score from the images with torch, without .detach(), .numpy() or "
                    "torch.no_grad(), or declare differentiable = False to train it as a black box."
                )
            (gradient,) = torch.autograd.grad(self.rising * scores.sum(), images, allow_unused=True)
        if gradient is None:
            raise RunError(
                f"The reward '{self.name}' does not depend on the images, so it has no gradient to train with."
            )
        return scores.detach(), gradient

    @torch.no_grad()
    def score(self, latents: Float[Tensor, "batch ..."], prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores without a gradient.

        Raises:
            RunError: the reward failed, or did not return one finite score for each image.
        """
        return torch.cat(
            [self._call(self.decode(latents[part]), prompts[part]).detach() for part in self.parts(prompts)]
        )

    def parts(self, prompts: Sequence[str]) -> Iterator[slice]:
        """The parts in which a batch is decoded and scored."""
        return parts_of(self.reward, prompts, self.batch or len(prompts))

    def _call(self, images: Tensor, prompts: Sequence[str], finite: bool = True) -> Tensor:
        with tf32_products(images.device, self.tf32):
            scores = self._kernels(lambda: ask(self.name, self.reward, images, prompts, finite=finite))
        if isinstance(self.reward, ReportingReward):
            self._reports.append(dict(self.reward.report()))
        return scores

    def reported(self) -> dict[str, Tensor]:
        """Means over all images that were scored since the last time of what the reward says of them beside scores."""
        reports, self._reports = self._reports, []
        names = dict.fromkeys(name for report in reports for name in report)
        return {
            name: torch.cat([report[name].detach().float() for report in reports if name in report]).mean()
            for name in names
        }

    @torch.no_grad()
    def explain(self, sample: Sample, result: TermResult) -> str:
        """Whether the decoder, the reward's scores, or their gradient is to blame."""
        size = self.batch or len(sample.x0)
        pixels = torch.cat([self.decode(sample.x0[at : at + size]) for at in range(0, len(sample.x0), size)])
        bad = int((~torch.isfinite(pixels).flatten(1).all(1)).sum())
        if bad:
            return f"the decoder gave pixels that are not finite for {bad} of {len(pixels)} samples"
        bad = int((~torch.isfinite(result.value)).sum())
        if bad:
            return f"the reward '{self.name}' returned a score that is not finite for {bad} of {len(pixels)} images"
        return f"the gradient of the reward '{self.name}' is not finite"

    def warnings(self) -> list[str]:
        """Warnings about how the reward was trained."""
        if self.latent is not None:
            return [f"The reward '{self.name}' saved little time: {why}." for why in self.latent.warnings()]
        warnings = []
        if self._kernels.needed:
            warnings.append(
                f"The reward '{self.name}' uses {self._kernels.needed}, which has no deterministic kernel on a GPU: "
                "this training, begun again from its seed, agrees with itself in its first digits only."
            )
        if not self.black_box or self.estimator is None:
            return warnings
        if self.reward.differentiable is None:
            warnings.append(
                f"The reward '{self.name}' has no gradient, so it was trained as a black box. Where it is meant to "
                "have one, compute it with torch, without .detach(), .numpy() or torch.no_grad()."
            )
        return warnings + [f"The reward '{self.name}' moved little: {why}" for why in self.estimator.warnings()]

    def commit(self) -> None:
        """What learns keeps what it found in the update's passes."""
        for part in self._learning:
            part.commit()

    def discard(self) -> None:
        """It drops it."""
        for part in self._learning:
            part.discard()

    @property
    def _learning(self) -> list[Committing]:
        return [part for part in (self.estimator, self.latent) if isinstance(part, Committing)]

    def state_dict(self) -> dict[str, Any]:
        """What the estimator or the latent stand-in has learned."""
        state = {} if self.estimator is None else dict(self.estimator.state_dict())
        return state if self.latent is None else {**state, "latent": self.latent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give them back what they had learned."""
        if self.latent is not None:
            self.latent.load_state_dict(state.get("latent", {}))
        elif self.estimator is not None:
            self.estimator.load_state_dict(state)
