r"""A generator of several steps: read out, noised again, read out again.

At times $1 \ge t_1 > \ldots > t_K$, from pure noise $x_{t_1} = z$, with fresh noises in between:

$$x_0^k = \hat x_0^\theta(x_{t_k}, t_k, c), \qquad x_{t_{k+1}} = \alpha_{t_{k+1}} x_0^k + \sigma_{t_{k+1}} \epsilon_k,
  \qquad \epsilon_k \sim N(0, I),$$

and the sample is $x_0^K$ (multistep consistency sampling; DMD2, Yin et al. 2024, arXiv 2405.14867; TDM, Luo et al.
2025, arXiv 2503.06674). One step is $K = 1$, without a fresh noise.

Deterministic steps take the noise that $x_{t_k}$ holds in the fresh one's place, and are DDIM's and Euler's:
`dipp_toolkit.diffusion.deterministic_steps` has the formula. Their sample is a function of z alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.condition import Condition
from ..errors import RequestError
from ..protocols import (
    DeterministicSteps,
    FewStepGenerator,
    Generator,
    Latents,
    SteppingChangeable,
    StepsChangeable,
)
from ..utils.reproducibility import own_generators
from ..utils.step_settings import StepNoise, Stepping, StepTimes


def step_count(generator: Generator) -> int:
    """How many passes of the network make a sample."""
    return generator.steps if isinstance(generator, FewStepGenerator) else 1


def draws_noise(generator: Generator) -> bool:
    """Whether fresh noise is drawn between its steps."""
    return not (isinstance(generator, DeterministicSteps) and generator.step_noise == "none")


def with_stepping(generator: Generator, noise: StepNoise | None, times: StepTimes | None, name: str) -> Generator:
    """The generator of several steps with other noise between them, or at other times; one of one step as it is.

    Args:
        generator: in as many steps as it is to take.
        noise: between steps; None leaves it as it is.
        times: of the steps; None leaves them as they are.
        name: of the generator, for messages.

    Raises:
        RequestError: it cannot take its steps so.
    """
    if step_count(generator) == 1:
        return generator
    own = generator.stepping if isinstance(generator, SteppingChangeable) else Stepping()
    asked = Stepping(noise or own.noise, own.times if times is None else times)
    if asked == own:
        return generator
    if not isinstance(generator, SteppingChangeable):
        raise RequestError(
            f"The generator '{name}' takes its steps in its own way, and only diffusers pipelines can take them in "
            "another. Leave step_noise and generator_times out."
        )
    return generator.with_stepping(asked)


def with_steps(generator: Generator, steps: int | None, name: str) -> Generator:
    """The generator with another number of steps.

    Args:
        generator: as loaded.
        steps: how many passes its sample is to take; None means one.
        name: of the generator, for messages.

    Raises:
        RequestError: it was saved with several and `steps` is None, or it cannot take another number.
    """
    own = step_count(generator)
    if steps is None and own > 1:
        raise RequestError(
            f"The generator '{name}' was saved to take {own} steps. Set generator_steps={own}, or generator_steps=1 to "
            "train its first step alone."
        )
    wanted = 1 if steps is None else steps
    if own == wanted:
        return generator
    if not isinstance(generator, StepsChangeable):
        raise RequestError(
            f"The generator '{name}' takes {own} step{'s' * (own > 1)}, and only diffusers pipelines can take another "
            f"number. Set generator_steps={own}."
        )
    return generator.in_steps(wanted)


def first_input(generator: FewStepGenerator, noise: Latents) -> Latents:
    """What the first step reads of pure noise z."""
    return generator.first_input(noise) if isinstance(generator, DeterministicSteps) else noise


def next_input(
    generator: FewStepGenerator, x_t: Latents, x0: Latents, fresh: Float[Tensor, "batch ..."] | None, step: int
) -> Latents:
    """What a step reads, differentiable with respect to what the one before it read and made.

    Args:
        generator: takes the steps.
        x_t: what the step before read.
        x0: what it made of that.
        fresh: noise; None where the steps are deterministic.
        step: number of the step, from 1.
    """
    if fresh is None:
        assert isinstance(generator, DeterministicSteps)
        fresh = generator.noise_in(x_t, x0, step - 1)
    return generator.noised(x0, fresh, step)


def run_steps(
    generator: FewStepGenerator,
    noise: Latents,
    between: Sequence[Float[Tensor, "batch ..."] | None],
    condition: Condition,
) -> Latents:
    """The sample of the step after all of `between`; gradients flow through every step.

    Args:
        generator: takes the steps.
        noise: pure noise z.
        between: fresh noises, one before each step but the first; K - 1 of them lead to the last step's sample. None in
            the place of each where the steps are deterministic.
        condition: one row a sample.

    Returns:
        Samples like `noise`.
    """
    x_t = first_input(generator, noise)
    x0 = generator.read_out(x_t, 0, condition)
    for step, fresh in enumerate(between, start=1):
        x_t = next_input(generator, x_t, x0, fresh, step)
        x0 = generator.read_out(x_t, step, condition)
    return x0


def noises_of(noise: Float[Tensor, "batch ..."], count: int) -> list[Float[Tensor, "batch ..."]]:
    """`count` further noises for each sample, a function of its own first noise alone; see `own_generators`.

    Args:
        noise: pure noises z.
        count: how many for each.

    Returns:
        Standard normal noises like `noise`, each independent of the others.
    """
    shape = (count, *noise.shape[1:])
    rows = [torch.randn(shape, generator=generator) for generator in own_generators(noise)]
    return list(torch.stack(rows).to(noise).unbind(1))
