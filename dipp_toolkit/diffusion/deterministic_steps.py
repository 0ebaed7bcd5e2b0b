r"""From one step of a generator to the next without fresh noise.

A step reads $\hat x_0$ off $x_t = \alpha_t x_0 + \sigma_t \epsilon$, and the next one, at an earlier time $t'$, reads

$$x_{t'} = \alpha_{t'} \hat x_0 + \sigma_{t'} \epsilon',$$

where $\epsilon'$ is one of two. `fresh`: a new standard normal noise (multistep consistency sampling, Song et al. 2023,
arXiv 2303.01469, algorithm 1). `none`: the noise that $x_t$ holds if its sample is $\hat x_0$,

$$\epsilon' = \hat\epsilon = \frac{x_t - \alpha_t \hat x_0}{\sigma_t}, \qquad
  x_{t'} = \alpha_{t'} \hat x_0 + \sigma_{t'} \hat\epsilon,$$

the deterministic step of DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12 with $\sigma_t = 0$ there). In
$x / \alpha$ it is Euler's step of the probability flow. On the straight line of flow matching, $\alpha_t = 1 - t$ and
$\sigma_t = t$, it is Euler's step along the velocity $u = \hat\epsilon - \hat x_0$: $x_{t'} = x_t + (t' - t) u$.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from .schedules import Schedule, expand_like


def noise_in(
    schedule: Schedule, x_t: Float[Tensor, "batch ..."], x0: Float[Tensor, "batch ..."], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch ..."]:
    r"""$\hat\epsilon = (x_t - \alpha_t \hat x_0) / \sigma_t$, like `x_t`.

    Args:
        schedule: gives alpha and sigma, which is not zero at these times.
        x_t: what a step read.
        x0: what it made of it.
        t: times in (0, 1].
    """
    alpha, sigma = expand_like(schedule.alpha(t), x_t), expand_like(schedule.sigma(t), x_t)
    return (x_t - alpha * x0) / sigma
