r"""KL divergence between generator and reference at each time, from two denoisers alone.

With $\rho(t) = \alpha_t^2/\sigma_t^2$ the signal-to-noise ratio and $\hat x_0^p$, $\hat x_0^q$ the denoised samples of
two laws p and q, their noised versions are apart by

$$KL(p_t \| q_t) = \frac12 \int_0^{\rho(t)} E_{p} \left|\hat x_0^p - \hat x_0^q\right|^2 d\rho$$

in nats (Guo, Shamai and Verdu 2005, the I-MMSE identity; Verdu 2010, theorem 1, for two laws). No density is needed.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.schedules import Schedule


def bin_middles(low: float, high: float, bins: int) -> Float[Tensor, " bins"]:
    """Middles of equal bins of the times `[low, high]`, rising, float64."""
    return low + (high - low) * (torch.arange(bins, dtype=torch.float64) + 0.5) / bins


def kl_by_time(
    gap: Float[Tensor, " bins"], schedule: Schedule, times: Float[Tensor, " bins"]
) -> Float[Tensor, " bins"]:
    r"""$KL(p_t \| q_t)$ in nats at rising times.

    The integral over $\rho$ is one over $\log \rho$, in which $\rho\, E|\hat x_0^p - \hat x_0^q|^2$ is smooth, by the
    trapezoid rule. Below the signal-to-noise ratio of the last time the gap is taken as constant, which it is in the
    limit of pure noise.

    Args:
        gap: $E_p |\hat x_0^p - \hat x_0^q|^2$, summed over a sample's dimensions.
        schedule: the forward process.
        times: rising; alpha and sigma are zero at none of them.
    """
    ratio = (schedule.alpha(times) / schedule.sigma(times)).square().to(gap)
    height, place = ratio * gap, ratio.log()
    pieces = (height[:-1] + height[1:]) / 2 * (place[:-1] - place[1:])
    from_noise = torch.cat([height[-1:], pieces.flip(0)]).cumsum(0)
    return from_noise.flip(0) / 2
