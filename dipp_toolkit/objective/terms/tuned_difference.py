r"""Integral KL to the reference with what a tuned reference adds as an implicit reward (DI++, theorem 3.2).

A reference $q$ and one that has learned other pictures since, $\tilde q$, disagree by a score. As guidance is a reward
by the difference of two scores, so is this: with the reward

$$r(x_0) = E_{t, \epsilon}\Big[w(t) \log \frac{\tilde q_t(x_t)}{q_t(x_t)}\Big], \qquad
  L = \int w(t)\, KL(p_t \| q_t)\, dt - \gamma\, E\, r
    = \int w(t)\, \big[(1 - \gamma)\, KL(p_t \| q_t) + \gamma\, KL(p_t \| \tilde q_t)\big]\, dt,$$

and its gradient with respect to a sample is the integral KL's with $\hat x_0^{ref} + \gamma\, (\hat x_0^{tuned} - \hat
x_0^{ref})$ in the reference's place. At a strength $\gamma$ of 0 that is the reference, at 1 the tuned one, beyond 1
more of what it learned than it has itself (the extrapolation of classifier-free guidance, Ho and Salimans 2022, between
two networks, as in Karras et al. 2024, arXiv 2406.02507).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ...config import TrainConfig
from ...errors import RequestError
from ...models.generator_options import guidance_option
from ...models.loading import load_reference
from ...models.reference import DiffusersReference
from ...protocols import Reference
from ...utils.precision import FROZEN_DTYPES
from ..base import TermContext
from ..gaussians import GaussianProblem, KnownReference, Verification, average_kl
from .divergence import Noised, guided_x0
from .integral_kl import IntegralKL
from .options import option

WORLD = "dipp_toolkit.verify.tuned_world:tuned_reference"
"""The tuned reference of the world that `dipp verify` holds the term in."""


@dataclass
class TunedDifference(IntegralKL):
    r"""Integral KL term whose reference is moved by what a tuned one has learned.

    An update costs a pass of the tuned reference more than `integral_kl` does. Prompts are encoded by the reference
    alone: the tuned one shares its text encoders.

    Attributes:
        tuned: the tuned reference, by name or folder, of the same latents and text encoders.
        strength: $\gamma$.
        tuned_reference: loaded from that.
    """

    verification: ClassVar[Verification] = Verification(
        variants=({"tuned": WORLD}, {"tuned": WORLD, "strength": 0.5}), patience=2
    )

    tuned: str = option("", "the tuned reference, by name or folder, as dipp tune writes it to its folder reference")
    strength: Annotated[float, Field(gt=0, allow_inf_nan=False)] = option(
        1.0, "how much of the difference: 1 for the tuned reference, above 1 for more than it learned"
    )
    tuned_reference: Reference | None = field(default=None, repr=False)

    @classmethod
    def check_settings(cls, name: str, config: TrainConfig) -> None:
        """Refuse a run without a tuned reference, and options that the term does not have.

        Raises:
            RequestError: none is named, or an option is unknown or invalid.
        """
        super().check_settings(name, config)
        if not config.term_options.get(name, {}).get("tuned"):
            raise RequestError(
                f"The term '{name}' needs a tuned reference: name the folder that dipp tune wrote with --set "
                f"term.{name}.tuned=FOLDER."
            )

    def reference_x0(self, noisy: Noised) -> Float[Tensor, "batch ..."]:
        r"""$\hat x_0^{ref} + \gamma (\hat x_0^{tuned} - \hat x_0^{ref})$, each under the term's guidance."""
        assert self.tuned_reference is not None
        self.tuned_reference.denoiser.network.to(noisy.x_t.device)
        guidance = self.guidance_at(noisy.step)
        base, tuned = (
            guided_x0(self.reference, noisy.x_t, noisy.t, noisy.condition, guidance, denoiser)
            for denoiser in (self.reference.denoiser, self.tuned_reference.denoiser)
        )
        return base + self.strength * (tuned - base)

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""$\int w(t)\, [(1 - \gamma)\, KL(p_t \| q_t) + \gamma\, KL(p_t \| \tilde q_t)]\, dt$.

        Raises:
            RequestError: the tuned reference's law is not known.
        """
        if not isinstance(self.tuned_reference, KnownReference):
            raise RequestError(
                f"The term is verified with a tuned reference whose law is known, such as tuned={WORLD}; that of "
                f"'{self.tuned}' is not."
            )
        tuned = self.tuned_reference.guided(problem.guidance)
        base = average_kl(problem.law, problem.target, problem)
        return base + self.strength * (average_kl(problem.law, tuned, problem) - base)


def build(context: TermContext) -> TunedDifference:
    """The term as the run's settings ask for it.

    Raises:
        RequestError: no tuned reference is named, it cannot be loaded, or its latents are others.
    """
    TunedDifference.check_settings(context.name, context.config)
    name = context.options["tuned"]
    precision = context.config.frozen_precision
    options: dict[str, Any] = {} if precision == "fp32" else {"dtype": FROZEN_DTYPES[precision]}
    options |= guidance_option(context.config, "reference")
    tuned = load_reference(name, **options)
    if isinstance(tuned, DiffusersReference) and isinstance(context.reference, DiffusersReference):
        tuned = tuned.sized(context.reference.size)
    if tuple(tuned.latent_shape) != tuple(context.reference.latent_shape):
        raise RequestError(
            f"The tuned reference '{name}' has latents of the shape {tuple(tuned.latent_shape)}, and the reference's "
            f"are {tuple(context.reference.latent_shape)}; expected one that was tuned from the same reference."
        )
    tuned.denoiser.frozen()
    return TunedDifference.build(context, tuned_reference=tuned)
