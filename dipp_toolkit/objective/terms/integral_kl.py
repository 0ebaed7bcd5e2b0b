r"""Integral KL to the reference, guidance as implicit reward (Diff-Instruct, DI++).

$D_{IKL}(p, q) = \int w(t)\, KL(p_t \| q_t)\, dt$ (Luo et al. 2023, Diff-Instruct). Its gradient with respect to a
sample is

$$\nabla_{x_0} = E_{t, \epsilon}\big[w(t)\, \alpha_t (s_\psi(x_t) - s_{ref}(x_t))\big]
              = E_{t, \epsilon}\big[w(t) (\alpha_t/\sigma_t)^2 (\hat x_0^\psi - \hat x_0^{ref})\big]$$

with both networks held fixed (DI++, arXiv 2410.18881, theorem 3.1). Replacing the reference's prediction by
$\hat x_0(x_t|\varnothing) + \alpha_{cfg} (\hat x_0(x_t|c) - \hat x_0(x_t|\varnothing))$ adds the reward
$\int w(t) \log q_t(x_t|c)/q_t(x_t)\, dt$ (theorem 3.2).

Where the parts of DI++'s objective (eq. 3.1) stand: this divergence here; its $w(t)$ and times in
`dipp_toolkit.diffusion.times`; guidance in `dipp_toolkit.objective.terms.divergence.guided_x0`; the reward
$-\alpha_{rew}\, r$ in `dipp_toolkit.objective.terms.reward`; the sum in `dipp_toolkit.objective.evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Sample, TermContext, TermResult
from ..gaussians import GaussianProblem, average_kl
from .divergence import Divergence, guided_x0, noised

__all__ = ["IntegralKL", "build", "guided_x0"]


@dataclass
class IntegralKL(Divergence):
    r"""Integral KL term. Its value is the sample's share of the estimate

    $w(t)(\alpha_t/\sigma_t)^2 \langle x_0 - \hat x_0^{ref}, \hat x_0^\psi - \hat x_0^{ref} \rangle$ per dimension,
    which is non-negative on average and zero where generator and reference agree; it tracks the divergence, but is
    not in nats. Those are in the detail `kl`.
    """

    @torch.no_grad()
    def __call__(self, sample: Sample) -> TermResult:
        noisy = noised(self.schedule, sample, self.sampling)
        x0_reference, x0_assistant = self.reference_x0(noisy), self.assistant_x0(noisy)
        difference = x0_assistant - x0_reference
        factor = self.factor(noisy, x0_reference, x0_assistant)
        value = (factor * difference * (sample.x0 - x0_reference)).flatten(1).mean(1)
        details = {"score_gap": difference.square().mean().sqrt(), **self.kl(noisy, x0_reference, x0_assistant)}
        return TermResult(value, factor * difference, details)

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""$\int w(t)\, KL(p_t \| q_t)\, dt$."""
        return average_kl(problem.law, problem.target, problem)


def build(context: TermContext) -> IntegralKL:
    """The term as the run's settings ask for it."""
    return IntegralKL.build(context)
