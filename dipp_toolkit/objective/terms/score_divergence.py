r"""Score divergence to the reference, squared or pseudo-Huber (Diff-Instruct*, SiD).

$D(p, q) = \int w(t)\, E_{x_t \sim \mathrm{sg}[p_t]}\, d(y_t)\, dt$ with $y_t = s_p(x_t) - s_{ref}(x_t)$ and the law
that $x_t$ is drawn from held fixed (Luo et al. 2024, Diff-Instruct*, arXiv 2410.20898, eq. 3.2). By its theorem 3.1 the
gradient is that of

$$\ell = -w(t)\, d'(y_t)^T (s_\psi(x_t) - \nabla \log q(x_t|x_0)),$$

differentiated through $x_t$ with the networks' parameters fixed. In denoised samples
$y_t = \frac{\alpha_t}{\sigma_t^2} (\hat x_0^\psi - \hat x_0^{ref})$ and
$s_\psi - \nabla \log q(x_t|x_0) = \frac{\alpha_t}{\sigma_t^2} (\hat x_0^\psi - x_0)$.

The distances are $d(y) = |y|^2/2$, for which this is score identity distillation without its second term (Zhou et al.
2024), and the pseudo-Huber $d(y) = \sqrt{|y|^2 + c^2 D} - c \sqrt D$ in D dimensions, whose slope is never above 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...utils.precision import full_precision
from ..base import Sample, TermContext, TermResult
from ..gaussians import GaussianProblem, Verification
from .divergence import Divergence, noised
from .options import option


@dataclass
class ScoreDivergence(Divergence):
    r"""Score divergence term. Its value is $w(t)\, d(y_t)$ per dimension, zero where the scores agree.

    It differentiates through both networks with respect to their input, which costs about two backward passes more
    than the integral KL.

    Attributes:
        distance: `pseudo-huber` or `squared`.
        c: the pseudo-Huber distance is quadratic below this root-mean-square score difference and linear above.
    """

    distance: Literal["pseudo-huber", "squared"] = option("pseudo-huber", "distance of the scores")
    c: Annotated[float, Field(gt=0, allow_inf_nan=False)] = option(
        0.1, "root-mean-square score difference up to which pseudo-huber is quadratic"
    )

    @property
    def verification(self) -> Verification:
        """Both distances; a square's gradient is affine in the noises."""
        variants = ({"distance": "squared"}, {"distance": "pseudo-huber", "c": 1.0})
        return Verification(variants=variants, nodes=2 if self.distance == "squared" else 3)

    def __call__(self, sample: Sample) -> TermResult:
        with torch.enable_grad():
            x0 = sample.x0.detach().requires_grad_(True)
            noisy = noised(self.schedule, replace(sample, x0=x0), self.sampling)
            x0_reference, x0_assistant = self.reference_x0(noisy), self.assistant_x0(noisy)
            ratio = noisy.alpha / noisy.sigma
            # w(t) of the weighting's whole factor; dmd's depends on the sample, and is held fixed.
            weight = self.factor(noisy, x0_reference, x0_assistant).detach() / ratio.square()
            difference = x0_assistant - x0_reference
            score_difference = (noisy.alpha / noisy.sigma.square()) * difference
            slope = self._slope(score_difference)
            loss = -(weight * noisy.alpha / noisy.sigma.square() * slope * (x0_assistant - x0)).sum()
            with full_precision(x0.device):
                (gradient,) = torch.autograd.grad(loss, x0)
        value = weight.flatten(1).mean(1) * self._distance(score_difference.detach().flatten(1)) / x0[0].numel()
        gap = difference.detach().square().mean().sqrt()
        return TermResult(value, gradient, {"score_gap": gap, **self.kl(noisy, x0_reference, x0_assistant)})

    def _slope(self, y: Tensor) -> Tensor:
        r"""$d'(y)$ of each sample, like `y`."""
        if self.distance == "squared":
            return y
        length = y.flatten(1).square().sum(1)
        return y / (length + self.c**2 * y[0].numel()).sqrt().reshape(-1, *[1] * (y.ndim - 1))

    def _distance(self, y: Tensor) -> Tensor:
        """d of vectors in the last dimension."""
        length = y.square().sum(-1)
        if self.distance == "squared":
            return length / 2
        scale = self.c * y.shape[-1] ** 0.5
        return (length + scale**2).sqrt() - scale

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""$\int w(t)\, E_{x_t \sim \mathrm{drawn}}\, d(s_{law}(x_t) - s_{target}(x_t))\, dt$."""
        x_t, weights = problem.points(problem.drawn)
        difference = problem.score(problem.law, x_t) - problem.score(problem.target, x_t)
        return problem.average((weights[:, None] * self._distance(difference)).sum(0))


def build(context: TermContext) -> ScoreDivergence:
    """The term as the run's settings ask for it."""
    return ScoreDivergence.build(context)
