r"""f-divergence to the reference: forward KL, Jensen-Shannon (f-distill, Uni-Instruct).

$D_f = \int w(t) \int p_t f(r_t)\, dx_t\, dt$ with $r_t = q_t/p_t$, reference over generator. Its gradient is the
integral KL's, each sample weighed by $h(r_t) = f''(r_t)\, r_t^2$ (Xu, Nie and Vahdat 2025, f-distill, arXiv 2502.15681,
theorem 1; Uni-Instruct, arXiv 2505.20755):

$$\nabla_{x_0} = E_{t, \epsilon}\big[w(t)\, h(r_t(x_t)) (\alpha_t/\sigma_t)^2 (\hat x_0^\psi - \hat x_0^{ref})\big].$$

| divergence | f(r) | h(r) |
|---|---|---|
| reverse KL (the integral KL) | $-\log r$ | 1 |
| forward KL | $r \log r$ | $r$ |
| Jensen-Shannon | $r \log r - (r + 1) \log \frac{r + 1}{2}$ | $\frac{r}{1 + r}$ |

The ratio comes from a small discriminator on the image's features behind the assistant's middle block
(`dipp_toolkit.objective.estimators.density_ratio`), trained beside the generator. Its real samples are the reference's
own, sampled with its multi-step sampler under the run's guidance: still no images are needed, but a few passes more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ...diffusion.condition import Condition
from ...diffusion.schedules import Schedule, expand_like
from ...models.family import ImageStream
from ..base import Sample, TermContext, TermResult
from ..estimators.density_ratio import LearnedRatio, tokens_of
from ..gaussians import Gaussian, GaussianProblem, Verification, average_kl
from .divergence import Divergence, Noised, noised
from .options import option, options_of, read_options


@runtime_checkable
class Ratio(Protocol):
    """Knows how much likelier a noised sample is under the reference than under the generator."""

    def __call__(self, term: FDivergence, noisy: Noised, sample: Sample) -> tuple[Tensor, Tensor]:
        r"""The assistant's prediction, like `x0`, and $\log q_t(x_t)/p_t(x_t)$, `(B,)`."""


@dataclass(frozen=True)
class GaussianRatio:
    """The ratio in closed form, for verification.

    Attributes:
        generator: has a Gaussian `law`.
        target: the reference's law.
        schedule: the forward process.
    """

    generator: Any
    target: Gaussian
    schedule: Schedule

    def __call__(self, term: FDivergence, noisy: Noised, sample: Sample) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.alpha(noisy.t), self.schedule.sigma(noisy.t)
        x_t, law = noisy.x_t.flatten(1), self.generator.law
        ratio = self.target.noised(alpha, sigma).log_prob(x_t) - law.noised(alpha, sigma).log_prob(x_t)
        return law.denoise(x_t, alpha, sigma).reshape(noisy.x_t.shape), ratio


@dataclass
class Pool:
    """The newest samples of the reference.

    Attributes:
        size: how many are kept.
        x0: `(n, ...)`; None before the first.
        condition: what each was sampled for.
    """

    size: int
    x0: Tensor | None = None
    condition: Condition | None = None

    def add(self, x0: Tensor, condition: Condition) -> None:
        """Keep new samples and forget the oldest."""
        if self.x0 is not None and self.condition is not None:
            x0, condition = torch.cat([self.x0, x0]), Condition.cat([self.condition, condition])
        self.x0, self.condition = x0[-self.size :], condition[slice(max(len(condition) - self.size, 0), None)]

    def draw(self, count: int, random: torch.Generator) -> tuple[Tensor, Condition]:
        """Samples of the pool, without repeating one where it holds enough."""
        assert self.x0 is not None and self.condition is not None
        repeats = -(-count // len(self.x0))
        order = torch.cat(
            [torch.randperm(len(self.x0), generator=random, device=random.device) for _ in range(repeats)]
        )[:count]
        return self.x0[order], self.condition[order.tolist()]


@dataclass
class DiscriminatorRatio:
    """The ratio a discriminator has learned; every call teaches it on the batch, once it has answered.

    Attributes:
        fresh: reference samples added at each call.
        sampling_steps: of the reference's sampler.
        rounds: updates a call.
        pool: the reference samples.
        learned: the discriminator.
    """

    fresh: int
    sampling_steps: int
    rounds: int
    pool: Pool
    learned: LearnedRatio

    @classmethod
    def build(cls, context: TermContext) -> DiscriminatorRatio:
        """As the options of an `FDivergence` say."""
        options = {name: getattr(FDivergence, name) for name in options_of(FDivergence)}
        options |= read_options(FDivergence, context.name, context.options)
        learned = LearnedRatio(options["discriminator_rate"], context.config.seed, processes=context.processes)
        pool = Pool(options["pool"])
        return cls(options["fresh"], context.config.reference_steps, options["rounds"], pool, learned)

    def __call__(self, term: FDivergence, noisy: Noised, sample: Sample) -> tuple[Tensor, Tensor]:
        x0, fake = self._pass(term, noisy)
        log_ratio = self.learned.log_ratio(fake, noisy.t)
        self._sample_reference(term, sample)
        for _ in range(self.rounds):
            drawn, condition = self.pool.draw(len(sample.x0), sample.random)
            other = noised(term.schedule, replace(sample, x0=drawn.to(sample.x0), condition=condition), term.sampling)
            self.learned.update(self._pass(term, other)[1], fake, other.t, noisy.t)
        return x0, log_ratio

    def _pass(self, term: FDivergence, noisy: Noised) -> tuple[Tensor, Tensor]:
        network = cast(Any, term.assistant).denoiser.network
        family = getattr(term.reference, "family", None)  # of a diffusers pipeline
        stream = family.image_stream if isinstance(family, ImageStream) else None
        return tokens_of(network, term.assistant.predict_x0, noisy.x_t, noisy.t, noisy.condition, stream)

    def _sample_reference(self, term: FDivergence, sample: Sample) -> None:
        count = len(sample.x0) if self.pool.x0 is None else min(self.fresh, len(sample.x0))
        if count == 0:
            return
        rows = torch.randperm(len(sample.x0), generator=sample.random, device=sample.random.device)[:count].tolist()
        noise = torch.randn(
            (count, *sample.x0.shape[1:]), generator=sample.random, device=sample.x0.device, dtype=sample.x0.dtype
        )
        condition = sample.condition[rows]
        guidance = term.guidance_at(sample.step)
        self.pool.add(term.reference.sample(condition, noise, self.sampling_steps, guidance), condition)


@dataclass
class FDivergence(Divergence):
    r"""f-divergence term. Its value is the integral KL's, each sample's weighed by $h(r_t)$.

    Attributes:
        kind: `jensen_shannon`, with h between 0 and 1, or `forward_kl`, which covers every mode of the reference and
            has an h without bound (log ratios are clamped to 8).
        fresh: reference samples added to the pool at each step; each costs `reference_steps` passes.
        pool: reference samples that are kept.
        rounds: discriminator updates a step.
        discriminator_rate: its Adam learning rate.
        ratio: gives $\log r_t(x_t)$; `build` makes a `DiscriminatorRatio`.
        keeps_latents: the pool has reference samples of updates before.
    """

    keeps_latents: ClassVar[bool] = True
    kind: Literal["jensen_shannon", "forward_kl"] = option("jensen_shannon", "jensen_shannon or forward_kl")
    fresh: Annotated[int, Field(ge=0)] = option(2, "reference samples made at each step for the discriminator")
    pool: Annotated[int, Field(ge=1)] = option(512, "reference samples that are kept")
    rounds: Annotated[int, Field(ge=1)] = option(1, "discriminator updates a step")
    discriminator_rate: Annotated[float, Field(gt=0)] = option(1e-3, "the discriminator's Adam learning rate")
    ratio: Ratio = field(kw_only=True)

    @property
    def verification(self) -> Verification:
        """Both divergences, the ratio in closed form where the score is. A strong linear reward has no optimum: what it
        gains is without bound, and what these divergences can cost is not (Jensen-Shannon), or is flat (forward KL)."""
        return Verification(
            cases=("distillation", "slight", "guidance"),
            variants=({"kind": "jensen_shannon"}, {"kind": "forward_kl"}),
            settings={"fresh": 3000, "pool": 3000, "rounds": 2, "discriminator_rate": 3e-3},
            nodes=3,
            exact={"ratio": GaussianRatio},
        )

    @torch.no_grad()
    def __call__(self, sample: Sample) -> TermResult:
        noisy = noised(self.schedule, sample, self.sampling)
        x0_reference = self.reference_x0(noisy)
        x0_assistant, log_ratio = self.ratio(self, noisy, sample)
        weight = self.weight(log_ratio.to(sample.x0.dtype))
        difference = x0_assistant - x0_reference
        factor = expand_like(weight, noisy.x_t) * self.factor(noisy, x0_reference, x0_assistant)
        value = (factor * difference * (sample.x0 - x0_reference)).flatten(1).mean(1)
        details = {
            "score_gap": difference.square().mean().sqrt(),
            "log_ratio": log_ratio.mean(),
            "ratio_weight": weight.mean(),
            **self.kl(noisy, x0_reference, x0_assistant),
        }
        return TermResult(value, factor * difference, details)

    def weight(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        r"""$h(r) = f''(r)\, r^2$ of the log ratio."""
        return log_ratio.sigmoid() if self.kind == "jensen_shannon" else log_ratio.exp()

    def state_dict(self) -> dict[str, Any]:
        """The discriminator and its pool."""
        ratio = self.ratio
        if not isinstance(ratio, DiscriminatorRatio) or ratio.pool.x0 is None or ratio.pool.condition is None:
            return {}
        condition = ratio.pool.condition
        return {
            "learned": ratio.learned.state_dict(),
            "x0": ratio.pool.x0,
            "prompts": list(condition.prompts),
            "tensors": dict(condition.tensors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        ratio = self.ratio
        if not state or not isinstance(ratio, DiscriminatorRatio):
            return
        device = next(self.reference.denoiser.network.parameters()).device
        ratio.pool.x0 = state["x0"].to(device)
        tensors = {name: tensor.to(device) for name, tensor in state["tensors"].items()}
        ratio.pool.condition = Condition(tuple(state["prompts"]), tensors)
        ratio.learned.load_state_dict(state["learned"], device)

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""$\int w(t)\, D_f\, dt$: forward KL as $KL(q_t \| p_t)$, Jensen-Shannon by quadrature over $p_t$."""
        if self.kind == "forward_kl":
            return average_kl(problem.target, problem.law, problem)
        x_t, weights = problem.points(problem.law)
        target, law = (gaussian.noised(problem.alpha, problem.sigma) for gaussian in (problem.target, problem.law))
        log_ratio = target.log_prob(x_t) - law.log_prob(x_t)
        half = torch.nn.functional.softplus(log_ratio) - math.log(2)  # log (r + 1) / 2
        inside = log_ratio.exp() * (log_ratio - half) - half
        return problem.average((weights[:, None] * inside).sum(0))


def build(context: TermContext) -> FDivergence:
    """The term as the run's settings ask for it."""
    return FDivergence.build(context, ratio=DiscriminatorRatio.build(context))
