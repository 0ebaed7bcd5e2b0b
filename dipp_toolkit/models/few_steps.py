r"""A generator of several steps: read out, noised again, read out again.

At times $1 \ge t_1 > \ldots > t_K$, from pure noise $x_{t_1} = z$:

$$x_0^k = \hat x_0^\theta(x_{t_k}, t_k, c), \qquad x_{t_{k+1}} = \alpha_{t_{k+1}} x_0^k + \sigma_{t_{k+1}} \epsilon_k,
  \qquad \epsilon_k \sim N(0, I),$$

and the sample is $x_0^K$ (multistep consistency sampling; DMD2, Yin et al. 2024, arXiv 2405.14867; TDM, Luo et al.
2025, arXiv 2503.06674). One step is $K = 1$, without a fresh noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.condition import Condition
from ..errors import RequestError
from ..protocols import FewStepGenerator, Generator, Latents, StepsChangeable
from ..utils.reproducibility import own_generators


def step_count(generator: Generator) -> int:
    """How many passes of the network make a sample."""
    return generator.steps if isinstance(generator, FewStepGenerator) else 1


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


def run_steps(
    generator: FewStepGenerator, noise: Latents, between: Sequence[Float[Tensor, "batch ..."]], condition: Condition
) -> Latents:
    """The sample of the step after all of `between`; gradients flow through every step.

    Args:
        generator: takes the steps.
        noise: pure noise z.
        between: fresh noises, one before each step but the first; K - 1 of them lead to the last step's sample.
        condition: one row a sample.

    Returns:
        Samples like `noise`.
    """
    x0 = generator.read_out(noise, 0, condition)
    for step, fresh in enumerate(between, start=1):
        x0 = generator.read_out(generator.noised(x0, fresh, step), step, condition)
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
