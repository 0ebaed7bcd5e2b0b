r"""Regression on the reference's own sampler, from the same noise (knowledge distillation, DMD's regression loss).

$L = \frac12 E_{z, c} \| G(z, c) - \Phi_K(z, c) \|^2$ in latents, $\Phi_K$ being K steps of the reference's sampler
under guidance (Luhman and Luhman 2021, arXiv 2101.02388; Yin et al. 2023, DMD, arXiv 2311.18828, eq. 9, which has LPIPS
instead of squares). Its gradient on a sample is $x_0 - \Phi_K(z, c)$.

A divergence compares laws, and one that seeks modes is content with a part of the reference's. This one says which
image belongs to which noise, so every noise keeps an image of its own; alone it gives the mean of what one pass cannot
tell apart, and is blurred. docs/results/emoji-world.md says what it did beside a divergence there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ...config import TrainConfig
from ...errors import RequestError
from ...protocols import Reference
from ...utils.piecewise_linear import PiecewiseLinear, value_at
from ...utils.step_parts import REFERENCE, step_part
from ..base import Sample, Side, TermContext, TermResult
from ..gaussians import GaussianProblem, Verification
from .options import option, read_options


@dataclass
class Trajectory:
    """Regression term. Its value is half the squared error per dimension; a sample that is left out has zero.

    It costs K passes of the reference for each sample that it looks at, twice that where guidance is not 1, and no
    gradient of it.

    Attributes:
        reference: the frozen diffusion model, whose sampler is the target.
        guidance: of the sampler: a number, or one for each generator update.
        sampler_steps: K.
        share: of the batch's samples that are looked at; the gradient of these is divided by it.
    """

    uses_assistant: ClassVar[bool] = False
    side: ClassVar[Side] = "divergences"
    verification: ClassVar[Verification] = Verification(variants=({"share": 1.0},))

    reference: Reference
    guidance: float | PiecewiseLinear = 1.0
    sampler_steps: Annotated[int, Field(ge=1)] = option(8, "steps of the reference's sampler")
    share: Annotated[float, Field(gt=0, le=1)] = option(0.25, "share of the batch's samples that are looked at")

    @classmethod
    def check_settings(cls, name: str, config: TrainConfig) -> None:
        """Refuse generators of several steps, and options that the term does not have.

        Raises:
            RequestError: the generator takes several, or an option is unknown or invalid.
        """
        read_options(cls, name, config.term_options.get(name, {}))
        if config.generator_steps > 1:
            raise RequestError(
                f"The term '{name}' compares the image of a noise with the sampler's, and with generator_steps="
                f"{config.generator_steps} an image depends on several. Train one step, or leave the term out."
            )

    @torch.no_grad()
    def __call__(self, sample: Sample) -> TermResult:
        count = max(1, round(self.share * len(sample.x0)))
        target = self.target(sample, count)
        error = sample.x0[:count] - target
        scale = len(sample.x0) / count
        gradient = torch.zeros_like(sample.x0)
        gradient[:count] = scale * error
        value = sample.x0.new_zeros(len(sample.x0))
        value[:count] = scale * error.square().flatten(1).mean(1) / 2
        return TermResult(value, gradient, {"trajectory_error": error.square().mean().sqrt()})

    @step_part(REFERENCE)
    def target(self, sample: Sample, count: int) -> Tensor:
        r"""$\Phi_K(z, c)$ of the first samples."""
        guidance = value_at(self.guidance, sample.step)
        target = self.reference.sample(sample.condition[:count], sample.noise[:count], self.sampler_steps, guidance)
        return target.to(sample.x0.dtype)

    def closed_form_of_map(self, problem: GaussianProblem, matrix: Tensor, bias: Tensor) -> Tensor:
        r"""$\frac12 |b - m|^2 + \frac12 \|A - L\|_F^2$, the world's sampler being $m + L z$, $L L^T = \Sigma$."""
        sampler = torch.linalg.cholesky(problem.target.covariance)
        return ((bias - problem.target.mean).square().sum() + (matrix - sampler).square().sum()) / 2


def build(context: TermContext) -> Trajectory:
    """The term as the run's settings ask for it.

    Raises:
        RequestError: an option is unknown or invalid, or the generator takes several steps.
    """
    config = context.config
    Trajectory.check_settings(context.name, config)
    options = read_options(Trajectory, context.name, context.options)
    return Trajectory(context.reference, config.guidance_by_step, **options)
